"""docs/fields.md says what preprocessing/fields.py says. `python -m tests.core.test_docs` writes it anew."""

from __future__ import annotations

from pathlib import Path

from preprocessing import fields

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fields.md"
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def cell(table: dict[str, fields.Field], name: str) -> str:
    return table[name].use if name in table else "unknown"


def table() -> str:
    """All fields of both endpoints, honoured ones first."""
    known = fields.CHAT | fields.COMPLETIONS
    order = {"honoured": 0, "accepted": 1, "refused": 2}
    names = sorted(known, key=lambda name: (order[known[name].use], name))
    lines = ["| field | chat completions | completions | note |", "|---|---|---|---|"]
    for name in names:
        field = known[name]
        allowed = f" (except {', '.join(f'`{value!r}`' for value in field.neutral)})" if field.neutral else ""
        lines.append(
            f"| `{name}` | {cell(fields.CHAT, name)} | {cell(fields.COMPLETIONS, name)} | {field.note}{allowed} |"
        )
    return "\n".join(lines) + "\n"


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == table()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text[: text.index(BEGIN) + len(BEGIN)] + table() + text[text.index(END) :], encoding="utf-8")
