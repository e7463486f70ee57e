"""Model parameters of config.pbtxt -> an encoder.

Only here is a runner's library imported, so that the numpy runner never needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine import load as engine_load
from engine.numpy_runner import NumpyRunner
from engine.settings import Settings as EngineSettings
from preprocessing.sentences import Recipe, read

from .encoder import Encoder

_MAX_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Settings:
    """What an operator can set; empty and 0 mean the default."""

    checkpoint: str = ""
    runner: str = ""
    max_batch_tokens: int = _MAX_BATCH_TOKENS
    threads: int = 0

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Settings:
        """Raises ValueError that names a bad value."""
        given = {name: text.strip() for name, text in parameters.items()}
        given = {name: text for name, text in given.items() if text and not text.startswith("${")}
        for name in ("max_batch_tokens", "threads"):
            if not given.get(name, "0").isdecimal():
                raise ValueError(f"{name}: wanted an integer that is not negative, found {given[name]!r}")
        checkpoint = given.get("checkpoint", "")
        runner = given.get("runner") or ("transformers" if checkpoint else "numpy")
        if runner not in _RUNNERS:
            raise ValueError(f"runner: wanted {' or '.join(_RUNNERS)}, found {runner!r}")
        most = int(given.get("max_batch_tokens", 0)) or _MAX_BATCH_TOKENS
        return cls(checkpoint, runner, most, int(given.get("threads", 0)))


def load(settings: Settings) -> Encoder:
    """Raises ValueError, FileNotFoundError or ImportError whose text tells the operator what to change."""
    return _RUNNERS[settings.runner](settings)


def _numpy(settings: Settings) -> Encoder:
    from .numpy_encoder import NumpyEncoder
    runner, folder = engine_load.load(EngineSettings(checkpoint=settings.checkpoint, threads=settings.threads))
    assert isinstance(runner, NumpyRunner)
    return NumpyEncoder(runner, _recipe(folder))


def _transformers(settings: Settings) -> Encoder:
    try:
        from .transformers_encoder import TransformersEncoder
    except ImportError as error:
        raise ImportError(f"the transformers runner needs torch and transformers: {error}") from error
    return TransformersEncoder(_recipe(Path(settings.checkpoint).expanduser()), settings.threads)


def _recipe(folder: Path) -> Recipe:
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise FileNotFoundError(f"checkpoint: wanted the folder of a model, found no config.json in {folder}")
    return read(folder)


_RUNNERS: dict[str, Callable[[Settings], Encoder]] = {"transformers": _transformers, "numpy": _numpy}
