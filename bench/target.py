"""One way into a server: where requests go, what they look like, and how text is found in the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench import usage

SEED = "@@@@@@@@@@"
"""What the load generator replaces by a number of ten digits, another one for each request."""
_SEED_NUMBER = 1_111_111_111  # stands for SEED where JSON wants a number
PROMPT = f"Request {SEED}: please answer this with some words."


@dataclass(frozen=True)
class Target:
    """
    Attributes:
        name: in tables.
        dialect: openai; triton, for OpenAI's events as strings within Triton's; engine, for tensors.
        pids: the processes that serve it; empty for a server elsewhere.
        table: the words that it writes (vocabulary.py); None: it is no synthetic engine's, and texts are not compared.
        places: requests that it serves at a time; None: as many as come.
    """

    name: str
    host: str
    port: int
    path: str
    dialect: str
    model: str = ""
    pids: Sequence[int] = ()
    table: Path | None = None
    header: str = ""
    places: int | None = None
    more: dict[str, object] = field(default_factory=dict)

    def body(self, tokens: int, prompt: str = PROMPT, prompt_ids: int = 30) -> str:
        """A request for so many tokens. An engine is not asked in words but in token ids."""
        if self.dialect == "engine":
            ids = [3 + place % 200 for place in range(prompt_ids)]
            asked: dict[str, object] = {
                "input_ids": ids, "input_lengths": prompt_ids, "request_output_len": tokens, "streaming": True,
                "seed": _SEED_NUMBER,
            }  # fmt: skip
            return json.dumps(asked).replace(str(_SEED_NUMBER), SEED)
        message = {"role": "user", "content": prompt}
        asked = {"model": self.model, "messages": [message], "max_tokens": tokens, "stream": True, **self.more}
        if self.table is not None:
            asked["seed"] = _SEED_NUMBER
        text = json.dumps(asked).replace(str(_SEED_NUMBER), SEED)
        return json.dumps({"endpoint": "chat/completions", "request": text}) if self.dialect == "triton" else text

    @classmethod
    def elsewhere(
        cls, url: str, model: str, name: str = "", key: str = "", pids: Sequence[int] = (), table: Path | None = None
    ) -> Target:
        """Any OpenAI server.

        Args:
            name: in tables; empty: made of the others.
            table: of words, if its engine is the synthetic one.
            url: what OpenAI's clients call the base URL, http only.
            pids: its processes, if they run on this machine; their descendants count as well.

        Raises:
            ValueError: the URL is none.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url}: wanted http://HOST:PORT/v1")
        return cls(
            name=name or f"{model} at {parts.netloc}",
            host=parts.hostname,
            port=parts.port or 80,
            path=parts.path.rstrip("/") + "/chat/completions",
            dialect="openai",
            model=model,
            pids=[each for pid in pids for each in usage.family(pid)],
            table=table,
            header=f"Authorization: Bearer {key}" if key else "",
        )
