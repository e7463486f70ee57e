"""What the synthetic engine writes: words of a model's vocabulary, one token each, over and over.

A request with seed s begins at word s modulo their number. So each of many streams has a text of its own that the load
generator knows: a token that is lost, repeated or in the wrong stream shows.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer


def words(tokenizer: Path) -> list[tuple[int, str]]:
    """Tokens that are a whole ASCII word with the space before it: their text does not depend on their neighbours.

    Args:
        tokenizer: a tokenizer.json.

    Raises:
        ValueError: there are none.
    """
    loaded = Tokenizer.from_file(str(tokenizer))
    texts = ((id_, loaded.decode([id_])) for id_ in range(loaded.get_vocab_size()))
    found = [(id_, text) for id_, text in texts if text[:1] == " " and text[1:].isalpha() and text.isascii()]
    if not found:
        raise ValueError(f"{tokenizer} has no tokens that are whole words")
    return found


def write_table(tokenizer: Path, table: Path) -> None:
    """A line for each: id, space, text. The engine reads the ids, the load generator both."""
    table.write_text("".join(f"{id_} {text}\n" for id_, text in words(tokenizer)), encoding="ascii")
