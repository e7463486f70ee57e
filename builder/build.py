"""From a command line to a repository."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from builder import engine_flow, pytorch_flow, repository, start, steps
from builder.model import Facts
from builder.options import ENGINE, PYTORCH, Options, parse
from launcher import model as models
from launcher.errors import LaunchError

PACKAGES = ("transformers", "tokenizers", "jinja2", "orjson", "pydantic", "numpy")
"""What openai_bls imports. NVIDIA's images with TensorRT-LLM bring most of them, in versions of their own."""


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        build(parse(sys.argv[1:] if arguments is None else arguments), print)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def build(options: Options, tell: Callable[[str], None]) -> None:
    """Raises LaunchError whose text says what to do."""
    repository.check_place(options)
    found = _resolve(options, tell)
    facts = Facts.of(found.folder, found.name)
    tell(f"{facts.name}: {facts.model_type}, {options.max_seq_len or facts.max_seq_len} tokens, flow {options.flow}")
    _check(options, facts, tell)
    flow = engine_flow.Flow(options, facts) if options.flow == ENGINE else None
    made = flow.steps() if flow else []
    if options.dry_run:
        steps.show(made, tell)
        tell(f"then the repository is written to {options.output}; it starts with")
    else:
        steps.run(made, tell)
        repository.write(options, facts, flow)
        tell(f"{options.output} is complete. Start it with")
    for line in start.lines(options):
        tell(f"    {line}")


def _resolve(options: Options, tell: Callable[[str], None]) -> models.Model:
    if options.dry_run and not Path(options.model).expanduser().exists():
        raise LaunchError(f"--dry-run downloads nothing, and {options.model} is no folder here.")
    return models.resolve(options.model, tell)


def _check(options: Options, facts: Facts, tell: Callable[[str], None]) -> None:
    """What cannot work is an error; what only cannot work on this machine is said."""
    if options.max_seq_len and options.max_seq_len > facts.max_seq_len:
        raise LaunchError(f"--max-seq-len {options.max_seq_len}: {facts.name} was trained for {facts.max_seq_len}.")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        tell(f"note: openai_bls needs {', '.join(missing)} in the Python that Triton uses (pip install).")
    if options.flow == PYTORCH:
        pytorch_flow.check(options)
        for problem in pytorch_flow.problems():
            tell(f"note: {problem}")
    if options.flow == ENGINE:
        for problem in engine_flow.problems():
            if not options.dry_run:
                raise LaunchError(problem)
            tell(f"note: {problem}")
