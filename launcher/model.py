"""--model: a folder, or the id of a Hugging Face repository -> a checked folder.

In: what the user wrote. Out: `Model`, or a LaunchError. Knows which files a model folder needs, not what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import LaunchError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
_HUGGING_FACE_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OTHER_FORMATS = ("*.bin", "*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.tflite", "onnx/*", "original/*")
"""The same weights once more, in formats that no engine here reads."""


@dataclass(frozen=True)
class Model:
    folder: Path
    name: str


def resolve(wanted: str, tell: Callable[[str], None]) -> Model:
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        checked = checked_folder(folder)
        return Model(checked, checked.name)
    if folder.exists():
        raise LaunchError(f"{wanted} is a file; --model wants the folder of a model.")
    if not _HUGGING_FACE_ID.fullmatch(wanted):
        raise LaunchError(f"The model folder {wanted} does not exist.")
    tell(f"downloading {wanted} from Hugging Face")
    return Model(checked_folder(_download(wanted)), wanted)


def checked_folder(folder: Path) -> Path:
    """sentence-transformers may keep the transformer in a folder of its own."""
    inner = folder / "0_Transformer"
    if (folder / "modules.json").is_file() and inner.is_dir():
        checked_folder(inner)
        return folder.resolve()
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise LaunchError(f"The model folder {folder} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}).")
    if not (folder / "config.json").is_file():
        raise LaunchError(f"The model folder {folder} has no config.json.")
    return folder.resolve()


def _download(repository: str) -> Path:
    from huggingface_hub import snapshot_download  # installed with the engines, not needed for a local folder

    try:
        return Path(snapshot_download(repository, ignore_patterns=list(_OTHER_FORMATS)))
    except Exception as error:  # whatever the network and the hub come up with: the user gets one sentence
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise LaunchError(
            f"{repository} is not a folder here and could not be downloaded from Hugging Face: {reason}."
        ) from None
