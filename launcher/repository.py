"""Makes the model repository that Triton loads out of the one in the source tree.

In: the source repository and what to change. Out: a folder with, for each model, links to everything in it and a
config.pbtxt written from the original. The source tree is never written to. It knows nothing about which models or
parameters exist, but for the names below: configurations are edited line by line, and a line that should be there and
is not is an error.

What a config.pbtxt has to look like:

    name: "x"                                                     one line
    parameters { key: "x" value: { string_value: "y" } }         one line per parameter
    instance_group [ { count: 1 kind: KIND_CPU } ]                one line
    { name: "session_…" … }                                       one line per tensor of the session extension
    # dynamic_batching { … }                                      one line, a comment: for engines without sessions
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import LaunchError

CONFIG = "config.pbtxt"
FRONT_MODEL = "openai_bls"
ENGINE_MODEL = "tensorrt_llm"
EMBEDDING_MODEL = "embedding"
OPTIONAL = (EMBEDDING_MODEL,)
"""Models that are left out unless parameters are given for them."""

_PARAMETER = re.compile(
    r'^(?P<head>\s*parameters\s*:?\s*\{\s*key:\s*"(?P<key>[^"]+)"\s*,?\s*value:?\s*\{\s*string_value:\s*)'
    r'"(?:[^"\\]|\\.)*"(?P<tail>\s*\}\s*\}.*)$'
)
_NAME = re.compile(r'^(name\s*:\s*")[^"]*(")', re.MULTILINE)
_INSTANCES = re.compile(r"^(\s*instance_group\s*:?\s*\[\s*\{[^}]*\bcount:\s*)\d+", re.MULTILINE)
_QUEUE = re.compile(r"^# (dynamic_batching \{.*\})$", re.MULTILINE)
_QUEUE_SIZE = re.compile(r"(?<=\bmax_queue_size: )\d+")
_QUEUE_TIMEOUT = re.compile(r"(?<=\bdefault_timeout_microseconds: )\d+")
_SESSION_TENSOR = re.compile(r'\bname:\s*"session_')
_DANGLING_COMMA = re.compile(r",(\s*(?:#[^\n]*\n\s*)*\])")


def assemble(
    source: Path,
    target: Path,
    parameters: Mapping[str, Mapping[str, str]] | None = None,
    instances: int = 1,
    sessions: bool = True,
    engines: Mapping[str, str] | None = None,
) -> None:
    """Writes `target` anew.

    Args:
        parameters: model name -> key -> value. Optional models need to be in it.
        engines: model name -> the engine here that it is made of; None: each engine under its own name.
    """
    found = sorted(folder.name for folder in source.iterdir() if (folder / CONFIG).is_file()) if source.is_dir() else []
    if not found:
        raise LaunchError(f"There is no model in {source}: no folder there has a {CONFIG}.")
    parameters = parameters or {}
    usual = {name: name for name in found if name not in OPTIONAL or name in parameters}
    models = usual if engines is None else {FRONT_MODEL: FRONT_MODEL, **engines}
    unknown = sorted((set(parameters) - set(models)) | (set(models.values()) - set(found)))
    if unknown:
        raise LaunchError(f"Parameters are given for {', '.join(unknown)}, but {source} has no such model.")
    shutil.rmtree(target, ignore_errors=True)
    for name, made_of in models.items():
        config = with_name((source / made_of / CONFIG).read_text(encoding="utf-8"), made_of, name)
        config = with_parameters(config, name, parameters.get(name, {}))
        if name == FRONT_MODEL:
            config = with_instances(config, name, instances)
            if not sessions:
                config = with_queue(config, name, parameters.get(name, {}))
        if made_of == ENGINE_MODEL and not sessions:
            config = without_sessions(config, name)
        _link(source / made_of, target / name, config)


def with_name(config: str, old: str, new: str) -> str:
    changed, places = _NAME.subn(rf"\g<1>{new}\g<2>", config)
    if places != 1 and old != new:
        raise LaunchError(f"The {CONFIG} of {old} must have exactly one line with the model's name.")
    return changed


def with_parameters(config: str, model: str, values: Mapping[str, str]) -> str:
    """`config` with the parameters in `values` replaced; each must be there already."""
    missing = dict(values)

    def replaced(line: str) -> str:
        found = _PARAMETER.match(line)
        if found is None or found["key"] not in values:
            return line
        missing.pop(found["key"], None)
        return f"{found['head']}{_quoted(values[found['key']])}{found['tail']}"

    lines = [replaced(line) for line in config.split("\n")]
    if missing:
        known = ", ".join(sorted(parameters_in(config))) or "none"
        raise LaunchError(f"Model {model} has no parameter {', '.join(sorted(missing))} (it has: {known}).")
    return "\n".join(lines)


def parameters_in(config: str) -> list[str]:
    return [found["key"] for line in config.split("\n") if (found := _PARAMETER.match(line))]


def with_instances(config: str, model: str, count: int) -> str:
    changed, places = _INSTANCES.subn(rf"\g<1>{count}", config)
    if places != 1:
        raise LaunchError(f"The {CONFIG} of {model} must have exactly one line with instance_group and count.")
    return changed


def with_queue(config: str, model: str, parameters: Mapping[str, str]) -> str:
    """Bounds Triton's own queue, in which requests wait if the model serves one at a time."""
    if len(_QUEUE.findall(config)) != 1:
        raise LaunchError(f"The {CONFIG} of {model} must have exactly one commented line with dynamic_batching.")
    config = _QUEUE.sub(r"\1", config)
    if size := parameters.get("max_requests"):
        config = _QUEUE_SIZE.sub(size, config)
    if seconds := parameters.get("max_queue_seconds"):
        config = _QUEUE_TIMEOUT.sub(str(int(float(seconds) * 1e6)), config)
    return config


def without_sessions(config: str, model: str) -> str:
    """Drops the tensors of the session extension: what is left is the standard contract."""
    lines = config.split("\n")
    dropped = [line for line in lines if _SESSION_TENSOR.search(line)]
    if not dropped:
        raise LaunchError(f'The {CONFIG} of {model} has no tensor named "session_…" to switch off.')
    for line in dropped:
        if line.count("{") != line.count("}") or "{" not in line:
            raise LaunchError(f"In the {CONFIG} of {model} a session tensor takes more than one line: {line.strip()}.")
    kept = "\n".join(line for line in lines if not _SESSION_TENSOR.search(line))
    return _DANGLING_COMMA.sub(r"\1", kept)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _link(model: Path, target: Path, config: str) -> None:
    target.mkdir(parents=True)
    for entry in model.iterdir():
        if entry.name != CONFIG:
            (target / entry.name).symlink_to(entry.resolve())
    (target / CONFIG).write_text(config, encoding="utf-8")
