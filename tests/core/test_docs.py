"""The tables of docs/ say what preprocessing/fields.py says. `python -m tests.core.test_docs` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocessing import fields

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"
ORDER = {"honoured": 0, "accepted": 1, "refused": 2}
Table = dict[str, fields.Field]
# Page → its columns.
PAGES: dict[Path, dict[str, Table]] = {
    ROOT / "docs" / "fields.md": {"chat completions": fields.CHAT, "completions": fields.COMPLETIONS},
    ROOT / "docs" / "embeddings.md": {"embeddings": fields.EMBEDDINGS},
}


def cell(table: Table, name: str) -> str:
    return table[name].use if name in table else "unknown"


def row(name: str, field: fields.Field, columns: dict[str, Table]) -> str:
    allowed = f" (except {', '.join(f'`{value!r}`' for value in field.neutral)})" if field.neutral else ""
    uses = " | ".join(cell(table, name) for table in columns.values())
    return f"| `{name}` | {uses} | {field.note}{allowed} |"


def rendered(columns: dict[str, Table]) -> str:
    """All fields of a page's endpoints, honoured ones first."""
    # The first endpoint that knows a field says what is to be noted.
    known = {name: field for table in reversed(columns.values()) for name, field in table.items()}
    names = sorted(known, key=lambda name: (ORDER[known[name].use], name))
    lines = [f"| field | {' | '.join(columns)} | note |", "|---" * (len(columns) + 2) + "|"]
    return "\n".join(lines + [row(name, known[name], columns) for name in names]) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_is_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == rendered(PAGES[page])


if __name__ == "__main__":
    for page, columns in PAGES.items():
        text = page.read_text(encoding="utf-8")
        until = text.index(BEGIN) + len(BEGIN)
        page.write_text(text[:until] + rendered(columns) + text[text.index(END) :], encoding="utf-8")
