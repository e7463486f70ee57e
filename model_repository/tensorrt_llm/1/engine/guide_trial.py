"""Tries guides out in a process of its own: a guide that never compiles can only be stopped together with a process.

In: a Guide. Out: its grammar, known to compile in bounded time and memory, or GuideError.
Some guides keep llguidance busy for hours, or take all memory, whatever limits it is given, and a thread cannot be
stopped. Others compile and fail at some token later: a few short texts are made with each. The same process turns GBNF
into Lark, Python code that would take the steps' time otherwise.
`main` is the process, `Trial` the one who asks it. It reads the tokenizer once, which may take seconds, and works in
a copy of itself: what ends is the copy, and the next is there at once. Python and llguidance are all it imports.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .guides import (
    SLOW_MASK,
    TOO_SLOW,
    Effort,
    Guide,
    GuideError,
    compile_grammar,
    first_line,
    load_tokenizer,
    to_grammar,
)

NOT_COMPILED, SHUTTING_DOWN = "it could not be compiled", "the engine is shutting down"
SECONDS = 3.0
"""How long a guide may take. The longest useful ones take some tenths of a second."""
MEMORY = 2 << 30
"""Address space of the process, in bytes."""

COMPILE_SECONDS = 1.0
"""CPU time: who asks compiles it once more, where nothing can stop it."""
STEPS, WALK_SECONDS = 100, 0.1
"""How many tokens the texts may have, and the CPU time that they may take together, slow tokens not counted."""
LIKED = ('"}],:', '",:[{', "", "", "")
"""A text each: what it prefers to go on with. The first ends objects and lists early, the second makes them grow."""

_CODE = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from engine.guide_trial import main; main()"


class TrialError(GuideError):
    """The process did not survive: this says something about today, not only about the guide."""


class Stopped(TrialError):
    """This says nothing about the guide."""


class Trial:
    """One process, started when it is needed. One thread asks at a time."""

    def __init__(self, folder: str):
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._closed = threading.Event()
        self._number = 0

    def grammar(self, guide: Guide) -> str:
        process = self._process or self.start()
        self._number += 1
        found = self._ask(process, [self._number, *guide])
        if found is None:
            self._process = None
            cause = _cause_of_death(_end(process))
            raise Stopped(SHUTTING_DOWN) if self._closed.is_set() else TrialError(cause)
        if "died" in found:
            raise TrialError(_cause_of_death(found["died"]))
        if "error" in found:
            raise GuideError(found["error"])
        grammar: str = found["grammar"]
        return grammar

    def _ask(self, process: subprocess.Popen[str], question: list[Any]) -> dict[str, Any] | None:
        """The answer; None if there is none, now or ever."""
        assert process.stdin and process.stdout
        try:
            print(json.dumps(question), file=process.stdin, flush=True)
            for line in process.stdout:
                found: dict[str, Any] = json.loads(line)
                if "died" in found or found["number"] == question[0]:  # else it comes too late
                    return found
        except OSError:
            pass
        return None

    def stop(self) -> None:
        """From any thread: who waits for an answer gets TrialError, now and always."""
        self._closed.set()
        if process := self._process:
            _kill(process)

    def close(self) -> None:
        """When nobody asks any more."""
        self.stop()
        process, self._process = self._process, None
        if process:
            _end(process)

    def start(self) -> subprocess.Popen[str]:
        """Ahead of the first question, whose time it would take."""
        if self._process:
            return self._process
        if self._closed.is_set():
            raise Stopped(SHUTTING_DOWN)
        command = [_python(), "-c", _CODE, json.dumps(sys.path), self._folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, encoding="utf-8", start_new_session=True)
        if self._closed.is_set():  # meanwhile
            _kill(self._process)
        return self._process


def main() -> None:
    """Answers each line, until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    tokenizer = load_tokenizer(sys.argv[2])
    while copy := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        if not code:
            return
        print(json.dumps({"died": code}), flush=True)
    _answer_lines(tokenizer)


def _answer_lines(tokenizer: Any) -> None:
    """Ends by a signal if one takes too long."""
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        number, *guide = json.loads(line)
        try:
            grammar = to_grammar(Guide(*guide), tokenizer)
            try_out(grammar, tokenizer)
            answer = {"grammar": grammar}
        except Exception as error:
            # What else went wrong is ours, and no business of whoever wrote the guide; stderr goes nowhere.
            answer = {"error": str(error) if isinstance(error, GuideError) else NOT_COMPILED}
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"number": number, **answer}), flush=True)


def try_out(grammar: str, tokenizer: Any) -> None:
    """Raises GuideError."""
    started = time.thread_time()
    matcher = compile_grammar(grammar, tokenizer)
    if time.thread_time() - started > COMPILE_SECONDS:
        raise GuideError("it takes too long to compile")
    left = WALK_SECONDS
    for seed, liked in enumerate(LIKED):
        ids = [ids[0] for ids in map(tokenizer.tokenize_str, liked) if len(ids) == 1]
        left = _walk(matcher.deep_copy(), tokenizer.eos_tokens, ids, random.Random(seed), left)


def _walk(matcher: Any, ends: list[int], liked: list[int], chance: random.Random, left: float) -> float:
    """Makes one text, as long as there is time left; returns what is left then."""
    effort = Effort()
    for _ in range(STEPS):
        started = time.thread_time()
        mask = bytearray(matcher.compute_bitmask())
        bearable, between = effort.bearable(started), time.thread_time()
        token = _choose(mask, ends, liked, chance)
        if token is not None:
            matcher.consume_token(token)
        if matcher.is_error():
            raise GuideError(first_line(matcher.get_error()))
        if not (effort.bearable(between) and bearable):
            raise GuideError(TOO_SLOW)
        left -= min(time.thread_time() - started, 2 * SLOW_MASK)
        if token is None or left <= 0:
            break
    return left


def _choose(mask: bytearray, ends: list[int], liked: list[int], chance: random.Random) -> int | None:
    """One of the tokens in the mask, None if all of them are ends."""
    for token in ends:
        mask[token >> 3] &= ~(1 << (token & 7))
    for token in liked:
        if mask[token >> 3] >> (token & 7) & 1:
            return token
    place = chance.randrange(len(mask))
    rest = mask[place:].lstrip(b"\0") or mask.lstrip(b"\0")
    if not rest:
        return None
    return (len(mask) - len(rest)) * 8 + chance.choice([bit for bit in range(8) if rest[0] >> bit & 1])


def _python() -> str:
    """The interpreter: inside Triton's stub, `sys.executable` need not be one. Any version that starts will do."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    places = [Path(sys.prefix, "bin", name), Path(sys.base_prefix, "bin", name), Path(sys.prefix, "bin", "python3")]
    found = next((str(place) for place in places if place.is_file()), None)
    return found or shutil.which(name) or shutil.which("python3") or sys.executable


def _kill(process: subprocess.Popen[str]) -> None:
    """With its copy, which would keep the pipe open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has ended, and its copy with it
        pass


def _end(process: subprocess.Popen[str]) -> int:
    """Takes the process away; how it ended."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        _kill(process)
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
