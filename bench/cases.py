"""What is measured. Each case starts its own servers, tells how it goes, and returns tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import stacks, usage, vocabulary
from bench.figures import Figures, median
from bench.run import BUSY, Load, ceiling, generating, measure
from bench.stacks import Engine, Running
from bench.target import Target

Tell = Callable[[str], None]
SPARE = 2.0
"""So many times as much as was measured the load generator should manage by itself."""
LOAD_SECONDS = 120.0
"""For the first requests, which load tokenizers."""
LONG_PROMPTS = (1_000, 10_000, 100_000)
LONG_ANSWER = 16_000
BACKGROUND = 16  # streams beside a long prompt


def prepare(target: Target) -> None:
    """Has every instance answer once, so that tokenizers are loaded."""
    places = target.places or 1
    measure(target, Load(places, 0.1, tokens=8, warm_up=LOAD_SECONDS, requests=4 * places))


def line(figures: Figures) -> str:
    first, gap = figures.first_ms, figures.gap_ms
    told = [
        f"{figures.system:22} {figures.mode:>10} {figures.streams:4} streams {figures.tokens_per_s:8.0f} tokens/s",
        f"first {number(first.p50)} / {number(first.p99)} ms, then {number(gap.p50)} / {number(gap.p99)} ms",
        f"{number(figures.cpu, 3)} CPU s per 1000, {number(figures.memory)} MB",
    ]
    if figures.errors or figures.wrong:
        told.append(f"{figures.errors} errors, {figures.wrong} wrong texts: {figures.error}")
    if figures.generator_share > BUSY:
        told.append(f"the load generator took {figures.generator_share:.0%} of a core and may be the limit")
    return "; ".join(told)


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


@dataclass(frozen=True)
class Matrix:
    """Throughput, latency, CPU time and memory of every system at every number of streams.

    Attributes:
        forms: of openai_bls; each with and without the gateway.
        others: further servers, whose engines are their own. With one mode these are taken to be as fast.
        options: further parameters of openai_bls.
    """

    forms: Sequence[str]
    modes: Sequence[str]
    streams: Sequence[int]
    repeats: int
    seconds: float
    others: Sequence[Target] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def run(self, folder: Path, tell: Tell) -> list[Figures]:
        found: list[Figures] = []
        for mode in self.modes:
            for form in self.forms:
                tell(f"starting Triton: {form}, engine: {mode}")
                with stacks.serving(form, stacks.MODES[mode], folder, options=self.options) as running:
                    # The engine is the same in all of them.
                    targets = [each for name, each in running.targets.items() if form == self.forms[0] or form in name]
                    found += self._measured(targets, mode, tell)
        found += self._measured(self.others, self.modes[0] if len(self.modes) == 1 else "its own", tell)
        return found

    def _measured(self, targets: Sequence[Target], mode: str, tell: Tell) -> Iterator[Figures]:
        # Streams that start whenever they please, as clients do: else they fall into step with the engine.
        think = stacks.MODES[mode].step_us * 1e-6 if mode in stacks.MODES else 0.0
        for target in targets:
            prepare(target)
        for streams in self.streams:
            load = Load(streams, self.seconds, think=think)
            repeats = [[measure(target, load) for target in targets] for _ in range(self.repeats)]
            for each in zip(*repeats, strict=True):
                figures = replace(median(each), mode=mode)
                tell(line(figures))
                yield figures


def generator_check(figures: Sequence[Figures], folder: Path) -> list[str]:
    """Whether the load generator was what limited the throughput, in words; nothing if it was not."""
    if not figures:
        return []
    busiest = max(figures, key=lambda each: each.tokens_per_s)
    alone = ceiling(busiest.streams, folder, stacks.free_port())
    told = [
        f"The load generator by itself: {alone.tokens_per_s:.0f} tokens/s at {busiest.streams} streams, with a server "
        f"that only writes. Most measured: {busiest.tokens_per_s:.0f}."
    ]
    if alone.tokens_per_s < SPARE * busiest.tokens_per_s:
        told.append("That is less than twice what was measured: THE LOAD GENERATOR MAY HAVE BEEN THE LIMIT.")
    told += [
        f"THE LOAD GENERATOR took {each.generator_share:.0%} of a core with {each.system} at {each.streams} streams "
        f"({each.mode}) and may have been the limit there."
        for each in figures
        if each.generator_share > BUSY
    ]
    return told


# --- Long inputs and outputs ---------------------------------------------------------------------------------------


def prompt_of(tokens: int) -> str:
    """A prompt of about so many tokens."""
    known = [text for _, text in vocabulary.words(stacks.CHECKPOINT / "tokenizer.json")]
    return "Request @@@@@@@@@@:" + "".join(known[place * 7 % len(known)] for place in range(tokens))


def long(form: str, seconds: float, folder: Path, tell: Tell) -> list[str]:
    """Long prompts beside running streams, and long answers."""
    rows: list[str] = []
    with stacks.serving(form, stacks.MODES["10 ms"], folder) as running:
        target = running.targets[f"{form} + gateway"]
        prepare(target)
        rows += long_prompts(target, seconds, folder, tell)
    with stacks.serving(form, stacks.MODES["1 ms"], folder) as running:
        target = running.targets[f"{form} + gateway"]
        prepare(target)
        rows += long_answers(target, seconds, tell)
    return rows


def long_prompts(target: Target, seconds: float, folder: Path, tell: Tell) -> Iterator[str]:
    """What streams notice while one long prompt is on its way to its first token."""
    background = Load(BACKGROUND, seconds + 3, tokens=1000, warm_up=1.0, think=0.01, record=folder / "gaps")
    others = f"{BACKGROUND} other streams meanwhile: gap p50 / p99 / max, ms"
    yield f"| prompt tokens | {others} | first token p50 / max, ms |"
    yield "|---|---|---|"
    alone = measure(target, background).gap_ms
    yield f"| none | {number(alone.p50)} / {number(alone.p99)} / {number(alone.max)} | – |"
    for tokens in LONG_PROMPTS:
        tell(f"prompts of {tokens} tokens, one at a time, beside {BACKGROUND} streams")
        prompt = prompt_of(tokens)
        prompts = Load(1, seconds, tokens=2, warm_up=2.0, think=0.5, prompt=prompt, record=folder / "prompts")
        with generating(target, background) as beside:
            beside.wait_for("begin")
            found = measure(target, prompts)
            beside.wait_for("end")
            noticed = beside.result()
        gaps = sorted(gaps_while(read_record(folder / "prompts", "answer"), read_record(folder / "gaps", "gap")))
        told = " / ".join(number(1e3 * gaps[min(len(gaps) - 1, int(share * len(gaps)))]) for share in (0.5, 0.99, 1.0))
        more = 1e3 * gaps[int(0.99 * len(gaps))] - (alone.p99 or 0)
        why = found.error or noticed["error"]
        yield (
            f"| {tokens} | {told} (p99 {more:+.1f}; {len(gaps)} gaps) | {number(found.first_ms.p50)} / "
            f"{number(found.first_ms.max)} |{' ' + why if why else ''}"
        )


def read_record(file: Path, kind: str) -> list[tuple[float, float]]:
    lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    return [(float(first), float(second)) for name, first, second in lines if name == kind]


def gaps_while(spans: Sequence[tuple[float, float]], gaps: Sequence[tuple[float, float]]) -> Iterator[float]:
    """The gaps (end, length) that have a moment in common with one of the spans (begin, end); in seconds."""
    for end, length in gaps:
        if any(end - length < span_end and begin < end for begin, span_end in spans):
            yield length


def long_answers(target: Target, seconds: float, tell: Tell) -> Iterator[str]:
    """What a token costs early and late in an answer of LONG_ANSWER tokens, at 1 ms per token."""
    yield ""
    yield "| token | tokens/s of 16 streams | CPU s per 1000 | gap p50 / p99, ms | memory, MB | by program |"
    yield "|---|---|---|---|---|---|"
    seconds = min(seconds, 3.0)
    late = LONG_ANSWER / 1000 - seconds - 1
    for warm_up in (0.5, late / 2, late):
        tell(f"answers of {LONG_ANSWER} tokens, looked at after {warm_up:.1f} s")
        found = measure(target, Load(16, seconds, tokens=LONG_ANSWER, warm_up=warm_up))
        failed = found.errors or found.wrong
        trouble = f" ({found.errors} errors, {found.wrong} wrong texts: {found.error})" if failed else ""
        gap = f"{number(found.gap_ms.p50)} / {number(found.gap_ms.p99)}"
        yield (
            f"| from {warm_up * 1000:.0f} | {found.tokens_per_s:.0f} | {number(found.cpu, 3)} | {gap} "
            f"| {number(found.memory)}{trouble} | {programs(found.memory_mb)} |"
        )


# --- Instances and memory ------------------------------------------------------------------------------------------


def instances(counts: Iterable[int], seconds: float, folder: Path, tell: Tell) -> list[str]:
    """The single form: what instances cost and what they bring."""
    rows = [
        "| instances | start, s | memory, MB | per instance, MB | 10 ms: tokens/s at as many streams (of the pace) "
        "| first p50 at twice as many, ms | fast: tokens/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in counts:
        tell(f"single form, {count} instances")
        began = time.monotonic()
        with stacks.serving("single", stacks.MODES["10 ms"], folder, count) as running:
            took = time.monotonic() - began
            target = running.targets["single + gateway"]
            prepare(target)
            paced, queued = (measure(target, Load(each, seconds, think=0.01)) for each in (count, 2 * count))
            stubs = usage.pss(running.pids)
            per = [stubs[pid] for pid in stubs if usage.name_of(pid).startswith("triton_python")]
        with stacks.serving("single", stacks.MODES["fast"], folder, count) as running:
            target = running.targets["single + gateway"]
            prepare(target)
            fast = measure(target, Load(count, seconds))
        pace = paced.tokens_per_s / (count * 100)
        rows.append(
            f"| {count} | {took:.1f} | {number(paced.memory, 0)} | {number(sum(per) / max(1, len(per)), 0)} "
            f"| {paced.tokens_per_s:.0f} ({pace:.0%}) | {number(queued.first_ms.p50, 0)} | {fast.tokens_per_s:.0f} |"
        )
    return rows


def idle(streams: Iterable[int], folder: Path, tell: Tell) -> list[str]:
    """Memory of streams that wait for their engine."""
    rows = ["| streams that wait | memory, MB | by program |", "|---|---|---|"]
    with stacks.serving("session", Engine(step_us=8_000_000), folder) as running:
        target = running.targets["session + gateway"]
        prepare(replace(target, places=64))
        tell("memory of waiting streams")
        base = usage.by_program(usage.pss(running.pids))
        rows.append(_memory_row(0, base))
        for count in streams:
            found = measure(target, Load(count, 1.0, tokens=2, warm_up=3.0, requests=count))
            rows.append(_memory_row(count, found.memory_mb))
            more = (sum(found.memory_mb.values()) - sum(base.values())) / count * 1000
            rows[-1] = rows[-1].removesuffix(" |") + f"; {more:.0f} kB per stream |"
    return rows


def _memory_row(count: int, memory: Mapping[str, float]) -> str:
    return f"| {count} | {sum(memory.values()):.0f} | {programs(memory)} |"


def programs(memory: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in sorted(memory.items()))


# --- Soak ----------------------------------------------------------------------------------------------------------


def soak(form: str, mode: str, minutes: int, streams: int, folder: Path, tell: Tell) -> list[str]:
    """The same load for long: does memory grow, is every text right."""
    rows = [
        "| minute | tokens/s | answers | errors | wrong texts | gap p50 / p99, ms | memory, MB | by program |",
        "|---|---|---|---|---|---|---|---|",
    ]
    tell("\n".join(rows))
    with stacks.serving(form, stacks.MODES[mode], folder) as running:
        target = running.targets[f"{form} + gateway"]
        prepare(target)
        for minute in range(1, minutes + 1):
            rows.append(soak_minute(minute, target, streams, running))
            tell(rows[-1])
    return rows


def soak_minute(minute: int, target: Target, streams: int, running: Running) -> str:
    found = measure(target, Load(streams, 58.0, think=0.01))
    running.stack.check_alive()
    why = f" ({found.error})" if found.error else ""
    return (
        f"| {minute} | {found.tokens_per_s:.0f} | {found.answers} | {found.errors}{why} | {found.wrong} "
        f"| {number(found.gap_ms.p50)} / {number(found.gap_ms.p99)} "
        f"| {number(found.memory)} | {programs(found.memory_mb)} |"
    )
