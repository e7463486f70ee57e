"""Settings -> a runner and the folder of its checkpoint.

Only here is a runner's library imported, so that the numpy runner never needs torch.
"""

from __future__ import annotations

from pathlib import Path

from .runner import Runner
from .settings import Settings


def load(settings: Settings) -> tuple[Runner, Path]:
    """Raises ValueError, FileNotFoundError or ImportError whose text tells the operator what to change."""
    if settings.runner not in _RUNNERS:
        raise ValueError(f"runner: wanted {' or '.join(_RUNNERS)}, found {settings.runner!r}")
    return _RUNNERS[settings.runner](_folder(settings), settings), _folder(settings)


def _folder(settings: Settings) -> Path:
    if settings.checkpoint:
        return Path(settings.checkpoint).expanduser().resolve()
    from . import tiny_checkpoint
    return tiny_checkpoint.ensure()


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


_RUNNERS = {"numpy": _numpy, "transformers": _transformers}
