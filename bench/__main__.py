"""The command line: `python -m bench --help`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import build, cases, plot, stacks, table
from bench.build import BuildError
from bench.figures import Figures
from bench.run import LoadError
from bench.target import Target
from launcher.errors import LaunchError
from launcher.stack import ROOT

STREAMS = (1, 4, 16, 64, 256)
FOLDER = ROOT / ".run" / "bench"


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        found = [part.strip() for part in text.split(",") if part.strip()]
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: wanted some of {', '.join(known)}")
        return found

    return read


def pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text}: wanted KEY=VALUE")
    return key, value


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("python -m bench", description="Measures openai_bls (docs/performance.md).")
    made.add_argument(
        "case",
        nargs="?",
        default="matrix",
        choices=("matrix", "long", "instances", "idle", "soak", "build", "serve", "text-engine"),
        help="matrix (the default): every system at every number of streams; long: 100k-token prompts, 16k-token "
        "answers; instances: of the single form; idle: memory of waiting streams; soak: one load for long; build: only "
        "compile; serve: only start a stack with the synthetic engine, until Ctrl+C; text-engine: only write a model "
        "repository with the synthetic engine as a model of text, for other front ends, into --out",
    )
    made.add_argument("--quick", action="store_true", help="1 repeat of 2 s at 1, 16 and 64 streams")
    made.add_argument("--streams", type=numbers, help="default: 1,4,16,64,256; soak: 64")
    modes = ", ".join(stacks.MODES)
    made.add_argument("--modes", type=names(list(stacks.MODES)),
                      help=f"how fast the engine is: {modes} (default: fast,10 ms; soak: 10 ms)")  # fmt: skip
    made.add_argument("--forms", type=names(stacks.FORMS), default=list(stacks.FORMS),
                      help="ways to the engine: session,single,http (empty: none)")  # fmt: skip
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", type=pair,
                      help="a parameter of openai_bls in the matrix, such as stream_interval=4")  # fmt: skip
    made.add_argument("--repeats", type=int, default=3, help="medians of so many (default: 3)")
    made.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default: 5)")
    made.add_argument("--minutes", type=int, default=30, help="of the soak (default: 30)")
    made.add_argument("--instances", type=numbers, default=[1, 4, 16, 32], help="default: 1,4,16,32")
    made.add_argument("--url", help="another OpenAI server, for the same table: http://HOST:PORT/v1")
    made.add_argument("--model", help="what it calls its model")
    made.add_argument("--name", default="", help="what it is called in tables")
    made.add_argument("--words", type=Path, help="what its engine writes, if that is the synthetic one: text/words.txt")
    made.add_argument("--key", default="", help="its API key")
    made.add_argument("--pid", type=numbers, default=[], help="its processes, if they run here, to count as well")
    made.add_argument("--also", type=Path, action="append", default=[], metavar="JSON",
                      help="matrix.json of an earlier run, to be shown in the same tables and plot")  # fmt: skip
    made.add_argument("--out", type=Path, default=FOLDER / "results", help="folder for JSON, table and plot")
    made.add_argument("--folder", type=Path, default=FOLDER / "servers", help="where servers run; written anew")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.quick:
        options.repeats, options.seconds = 1, 2.0
        options.streams = options.streams or [1, 16, 64]
    if bool(options.url) != bool(options.model):
        parser().error("--url and --model go together")
    folder = options.folder
    try:
        build.build()
        if options.case == "build":
            return 0
        if options.case == "text-engine":
            stacks.write_text_engine(options.out, stacks.MODES[(options.modes or ["10 ms"])[0]])
            return 0
        if options.case == "serve":
            return serve(options, folder)
        text = matrix(options, folder) if options.case == "matrix" else other(options, folder)
    except (BuildError, LaunchError, LoadError, ValueError) as error:
        tell(str(error))
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{options.case}.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


def matrix(options: argparse.Namespace, folder: Path) -> str:
    given = (options.model, options.name, options.key, options.pid, options.words)
    others = [Target.elsewhere(options.url, *given)] if options.url else []
    streams = options.streams or list(STREAMS)
    modes = options.modes or ["fast", "10 ms"]
    plan = cases.Matrix(options.forms, modes, streams, options.repeats, options.seconds, others, dict(options.set))
    found = plan.run(folder, tell)
    checked = cases.generator_check(found, folder)
    for each in checked:
        tell(each)
    earlier = [json.loads(file.read_text(encoding="utf-8"))["figures"] for file in options.also]
    found = [Figures.from_json(each) for figures in earlier for each in figures] + found
    options.out.mkdir(parents=True, exist_ok=True)
    kept = {"machine": machine(), "figures": [each.json() for each in found], "load_generator": checked}
    (options.out / "matrix.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    (options.out / "matrix.svg").write_text(plot.svg(found), encoding="utf-8")
    return "\n".join([f"{machine()}\n", table.markdown(found), *checked]) + "\n"


def other(options: argparse.Namespace, folder: Path) -> str:
    form, mode = options.forms[0], (options.modes or ["10 ms"])[0]
    rows = {
        "long": lambda: cases.long(form, 2 * options.seconds, folder, tell),
        "instances": lambda: cases.instances(options.instances, options.seconds, folder, tell),
        "idle": lambda: cases.idle(options.streams or [64, 256], folder, tell),
        "soak": lambda: cases.soak(form, mode, options.minutes, (options.streams or [64])[0], folder, tell),
    }[options.case]()
    return "\n".join([f"{machine()}\n", *rows]) + "\n"


def serve(options: argparse.Namespace, folder: Path) -> int:
    with stacks.serving(options.forms[0], stacks.MODES[(options.modes or ["10 ms"])[0]], folder) as running:
        cases.prepare(running.targets[options.forms[0]])
        print(f"{running.stack.base_url} (model {stacks.MODEL}); Triton: {running.stack.triton_url}", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return 0


def machine() -> str:
    """What figures hold for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    load = Path("/proc/loadavg").read_text().split()[0]
    system = f"{platform.system()} {platform.release()}"
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {model}, {system}, load before it {load}"


if __name__ == "__main__":
    sys.exit(main())
