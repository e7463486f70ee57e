"""Tries guides out in a process of its own: a guide that never compiles can only be stopped together with a process.

In: a Guide. Out: its grammar, known to compile in bounded time and memory, or GuideError.
Some guides keep llguidance busy for hours, or take all memory, whatever limits it is given, and a thread cannot be
stopped. The same process turns GBNF into Lark, Python code that would take the steps' time otherwise.
`main` is the process, `Trial` the one who asks it. Python and llguidance are all it imports.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from .guides import Guide, GuideError, compile_grammar, load_tokenizer, to_grammar

NOT_COMPILED = "it could not be compiled"
SECONDS = 3.0
"""How long a guide may take. The longest useful ones take some tenths of a second."""
MEMORY = 2 << 30
"""Address space of the process, in bytes."""

_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from engine.guide_trial import main; main()"


class TrialError(GuideError):
    """The process did not survive: this says something about today, not only about the guide."""


class Trial:
    """One process, started when it is needed. One thread asks at a time."""

    def __init__(self, folder: str):
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._closed = threading.Event()

    def grammar(self, guide: Guide) -> str:
        process = self._process or self._start()
        assert process.stdin and process.stdout
        try:
            print(json.dumps(guide), file=process.stdin, flush=True)
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            self._process = None
            raise TrialError(_cause_of_death(_end(process)))
        found: dict[str, str] = json.loads(answer)
        if "error" in found:
            raise GuideError(found["error"])
        return found["grammar"]

    def stop(self) -> None:
        """From any thread: who waits for an answer gets TrialError, now and always."""
        self._closed.set()
        if process := self._process:
            process.kill()

    def close(self) -> None:
        """When nobody asks any more."""
        self.stop()
        if process := self._process:
            _end(process)

    def _start(self) -> subprocess.Popen[str]:
        if self._closed.is_set():
            raise TrialError("the engine is shutting down")
        command = [_python(), "-c", _CODE, json.dumps(sys.path), self._folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, encoding="utf-8")
        if self._closed.is_set():  # meanwhile
            self._process.kill()
        return self._process


def main() -> None:
    """Answers each line, until there are no more. Ends by a signal if one takes too long."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    tokenizer = load_tokenizer(sys.argv[2])
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            grammar = to_grammar(Guide(*json.loads(line)), tokenizer)
            compile_grammar(grammar, tokenizer)
            answer = {"grammar": grammar}
        except Exception as error:
            # What else went wrong is ours, and no business of whoever wrote the guide; stderr goes nowhere.
            answer = {"error": str(error) if isinstance(error, GuideError) else NOT_COMPILED}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(answer), flush=True)


def _python() -> str:
    """The interpreter: inside Triton's stub, `sys.executable` need not be one. Any version that starts will do."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [Path(sys.prefix, "bin", name), Path(sys.base_prefix, "bin", name), Path(sys.prefix, "bin", "python3")]
    found = next((str(place) for place in places if place.is_file()), None)
    return found or shutil.which(name) or shutil.which("python3") or sys.executable


def _end(process: subprocess.Popen[str]) -> int:
    """Takes the process away; how it ended."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe:
                pipe.close()
        except OSError:  # what it did not read any more
            pass
    return process.returncode


def _cause_of_death(code: int) -> str:
    return "it takes too long to compile" if code == -signal.SIGALRM else NOT_COMPILED
