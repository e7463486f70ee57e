"""--models-file: what the launcher itself has to do for it, which is to provide engines.

In: the file. Out: the Triton models that are to be made of the two engines here, or a LaunchError. Whether the file is
right in all else openai_bls says when it loads (docs/models.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.errors import LaunchError
from launcher.repository import EMBEDDING_MODEL, ENGINE_MODEL


@dataclass(frozen=True)
class Engine:
    """A Triton model to be made.

    Attributes:
        source: the model of the source repository that it is a copy of.
        checkpoint: the folder of the model that it computes; None: its own default.
        loaded: Triton loads it when it starts.
    """

    name: str
    source: str
    checkpoint: str | None
    loaded: bool


def engines(file: Path) -> list[Engine]:
    """Each engine once, as its first entry describes it. Those on other servers are not ours to make."""
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise LaunchError(f"The models file {file} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise LaunchError(f"The models file {file} is not JSON: {error}.") from None
    found: dict[str, Engine] = {}
    for engine in _named(given, file.parent):
        first = found.setdefault(engine.name, engine)
        if first.source != engine.source:
            raise LaunchError(f"The models file {file} has {engine.name} as engine and as embedding_engine.")
        if engine.loaded and not first.loaded:  # whoever needs it from the start has it
            found[engine.name] = Engine(first.name, first.source, first.checkpoint, loaded=True)
    return list(found.values())


def _named(given: Any, folder: Path) -> Iterator[Engine]:
    models = given.get("models") if isinstance(given, dict) else None
    for entry in models if isinstance(models, list) else ():
        if not isinstance(entry, dict):
            continue
        own = entry.get("tokenizer_dir")
        for key, source, checkpoint in (
            ("engine", ENGINE_MODEL, own),
            ("embedding_engine", EMBEDDING_MODEL, entry.get("embedding_tokenizer_dir") or own),
        ):
            name = entry.get(key)
            if not isinstance(name, str) or Path(name).name != name:  # openai_bls says what is wrong with it
                continue
            if not (key == "engine" and entry.get("engine_url")):
                path = str(folder / checkpoint) if isinstance(checkpoint, str) else None
                yield Engine(name, source, path, entry.get("loaded", True) is not False)
