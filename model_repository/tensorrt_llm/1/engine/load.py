"""Settings -> a runner and the folder of its checkpoint.

Only here is a runner's library imported, so that the numpy runner never needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .batcher import SelfBatching
from .runner import Runner
from .settings import Settings

# The Triton model's folder: paths in its parameters begin there. Triton may see the version through a link.
HERE = Path(__file__).resolve().parents[2]
DEFAULT = HERE / "tiny-chat"  # the model that ships with it


def load(settings: Settings) -> tuple[Runner | SelfBatching, Path]:
    """Raises ValueError, FileNotFoundError or ImportError whose text tells the operator what to change."""
    if settings.runner not in _RUNNERS:
        raise ValueError(f"runner: wanted {' or '.join(_RUNNERS)}, found {settings.runner!r}")
    return _RUNNERS[settings.runner](_folder(settings), settings), _folder(settings)


def _folder(settings: Settings) -> Path:
    return Path(_here(settings.checkpoint)) if settings.checkpoint else DEFAULT


def _here(path: str) -> str:
    return str((HERE / Path(path).expanduser()).resolve()) if path else ""


def _numpy(folder: Path, settings: Settings) -> Runner:
    from . import blas
    from .checkpoint import Checkpoint
    from .numpy_runner import NumpyRunner
    blas.set_threads(settings.threads or 1)  # more threads pay only for models that are too large for this runner
    return NumpyRunner(Checkpoint(folder))


def _transformers(folder: Path, settings: Settings) -> Runner:
    try:
        from .transformers_runner import TransformersRunner
    except ImportError as error:
        raise ImportError(f"the transformers runner needs torch and transformers: {error}") from error
    return TransformersRunner(folder, settings.threads)


def _trtllm(folder: Path, settings: Settings) -> SelfBatching:
    from .trtllm import TrtllmModel
    return TrtllmModel(folder, replace(
        settings, llm_options=_here(settings.llm_options), lora_dir=_here(settings.lora_dir)))


_RUNNERS: dict[str, Callable[[Path, Settings], Runner | SelfBatching]] = {
    "numpy": _numpy, "transformers": _transformers, "trtllm": _trtllm}
