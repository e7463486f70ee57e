"""tokenizer.json -> the file that the C++ backend's xgrammar_tokenizer_info_path names.

It has three members: encoded_vocab (the tokens as the tokenizer writes them, by id), tokenizer_str (tokenizer.json's
own text) and stop_token_ids. With `trtllm` as runner nobody needs it: the LLM API makes it from the tokenizer itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import LaunchError


def write(model: Path, end_ids: Sequence[int], target: Path) -> None:
    """Raises LaunchError for a model without tokenizer.json."""
    source = model / "tokenizer.json"
    if not source.is_file():
        raise LaunchError(f"Guided decoding needs {source} (a fast tokenizer); --guided-decoding none does without.")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source))
    by_id = {number: token for token, number in tokenizer.get_vocab(with_added_tokens=True).items()}
    vocabulary = [by_id.get(number, "") for number in range(max(by_id) + 1)]
    info = {"encoded_vocab": vocabulary, "tokenizer_str": tokenizer.to_str(), "stop_token_ids": list(end_ids)}
    target.write_text(json.dumps(info), encoding="utf-8")
