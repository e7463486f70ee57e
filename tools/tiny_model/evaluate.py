"""How much the model can do: prompts that training never saw, greedy answers, the share that is exactly right.

In: a folder with the model. Out: a table, one line for each skill; with --show also wrong answers. It runs the model as
it is served: chat template, tokenizer, the engine's numpy runner.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from . import dialogue as dialogues
from . import families, functions, talk, vocabulary, words
from .dialogue import Dialogue, Turn
from .families import Family
from .functions import Call, Offer
from .source import Source

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "model_repository" / "tensorrt_llm" / "1"))

from engine.checkpoint import Checkpoint  # noqa: E402
from engine.numpy_runner import NumpyRunner  # noqa: E402
from engine.runner import Segment  # noqa: E402

_AT_ONCE = 50
_LONGEST = 160  # tokens of an answer


class Model:
    """Greedy answers of a checkpoint."""

    def __init__(self, folder: Path):
        self._runner = NumpyRunner(Checkpoint(folder))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._end = self._tokenizer.token_to_id(vocabulary.END_OF_TURN)

    def answers(self, prompts: Sequence[str]) -> list[str]:
        found: list[str] = []
        for first in range(0, len(prompts), _AT_ONCE):
            found += self._together(prompts[first: first + _AT_ONCE])
        return found

    def _together(self, prompts: Sequence[str]) -> list[str]:
        said: list[list[int]] = [[] for _ in prompts]
        caches = [self._runner.new_cache() for _ in prompts]
        coming = {number: self._tokenizer.encode(prompt, add_special_tokens=False).ids
                  for number, prompt in enumerate(prompts)}
        while coming:
            segments = [Segment(caches[number], tokens, 1) for number, tokens in coming.items()]
            best = self._runner.forward(segments).argmax(-1)
            coming = {number: [token] for number, token in zip(coming, map(int, best), strict=True)
                      if token != self._end and len(said[number]) < _LONGEST}
            for number, (token,) in coming.items():
                said[number].append(token)
        return [str(self._tokenizer.decode(tokens)) for tokens in said]


class Case(NamedTuple):
    """A dialogue whose last turn is to be said, and what makes an answer right."""

    dialogue: Dialogue
    right: Callable[[str, str], bool]  # (expected, answered)

    def prompt(self) -> str:
        return "".join(text for text, _ in dialogues.segments(self.dialogue))[: -len(self.expected() + "<|eot_id|>")]

    def expected(self) -> str:
        return list(dialogues.segments(self.dialogue))[-1][0].removesuffix("<|eot_id|>")


def _same(expected: str, answered: str) -> bool:
    return expected == answered


def _same_name(expected: str, answered: str) -> bool:
    return _calls(expected, "name") == _calls(answered, "name")


def _same_call(expected: str, answered: str) -> bool:
    return _calls(expected) is not None and _calls(expected) == _calls(answered)


def _same_after_thought(expected: str, answered: str) -> bool:
    return "</think>\n\n" in answered and expected.split("</think>")[1] == answered.split("</think>")[1]


def _calls(text: str, member: str = "") -> Any:
    """The calls in an answer, or one member of each; None: it holds none."""
    try:
        found = json.loads(text)
        calls = found if isinstance(found, list) else [found]
        return [call[member] for call in calls] if member else calls
    except (ValueError, KeyError, TypeError):
        return None


def _is_story(expected: str, answered: str) -> bool:
    """About the animal that was asked for, with a beginning and an end. Stories are free otherwise."""
    return (answered.startswith("Once upon a time there was a ") and expected in answered
            and answered.endswith(("happily ever after.", "was happy.")))


def _talk(skill: Callable[[Source], talk.Exchange]) -> Callable[[Source], Case]:
    def make(source: Source) -> Case:
        question, answer = skill(source)
        return Case(Dialogue((Turn("user", question), Turn("assistant", answer))), _same)
    return make


def _sums(source: Source, sign: str) -> Case:
    a, b = source.pair(10, 99)
    a, b = (max(a, b), min(a, b)) if sign == "-" else (a, b)
    answer = f"{a} {sign} {b} = {talk.result(a, sign, b)}"
    turns = Turn("user", f"Please compute {a} {sign} {b}."), Turn("assistant", answer)
    return Case(Dialogue(turns), _same)


def _story(source: Source) -> Case:
    animal = source.pick(words.ANIMALS)
    return Case(Dialogue((Turn("user", f"Can you tell me a story about a {animal}?"), Turn("assistant", animal))),
                _is_story)


def _whole(maker: Callable[[Source, int], Dialogue], turns: int) -> Callable[[Source], Case]:
    return lambda source: Case(maker(source, turns), _same)


def _style(system: Any, skill: Callable[[Source], talk.Exchange],
           change: Callable[[str], str] = lambda text: text) -> Callable[[Source], Case]:
    def make(source: Source) -> Case:
        question, answer = skill(source)
        turns = Turn("system", source.pick(system)), Turn("user", question), Turn("assistant", change(answer))
        return Case(Dialogue(turns), _same)
    return make


def _offered(source: Source, known: Sequence[Family] | None) -> tuple[Offer, list[Offer]]:
    """The function that is needed, among one to three; None: a random one, with words of its own."""
    pool = list(known or [functions.random_family(source) for _ in range(3)])
    chosen = source.random.sample(pool, min(len(pool), source.choice((1, 2, 3))))
    offers = [functions.offer(source, family) for family in chosen]
    return source.choice(offers), offers


def _call(known: Sequence[Family] | None, right: Callable[[str, str], bool]) -> Callable[[Source], Case]:
    def make(source: Source) -> Case:
        offer, offers = _offered(source, known)
        call = functions.call(source, offer)
        return _tool_case(offers, (Turn("user", call.question), Turn("assistant", call.text())), right)
    return make


def _two_calls(source: Source) -> Case:
    offer = functions.offer(source, families.FAMILIES[source.choice((0, 1))])
    question, *calls = functions.two_calls(source, offer)
    text = dialogues.calls_text([call for call in calls if isinstance(call, Call)])
    return _tool_case([offer], (Turn("user", question), Turn("assistant", text)), _same_call)


def _told(source: Source) -> Case:
    offer, offers = _offered(source, families.UNSEEN_FAMILIES + families.EVERYDAY)
    call = functions.call(source, offer)
    turns = (Turn("user", call.question), Turn("assistant", call.text()), Turn("ipython", call.returned),
             Turn("assistant", call.sentence))
    return _tool_case(offers, turns, _same)


def _no_call(source: Source) -> Case:
    _, offers = _offered(source, families.UNSEEN_FAMILIES)
    question, answer = source.choice((talk.chat, talk.capital))(source)
    return _tool_case(offers, (Turn("user", question), Turn("assistant", answer)), _same)


def _tool_case(offers: list[Offer], turns: tuple[Turn, ...], right: Callable[[str, str], bool]) -> Case:
    return Case(Dialogue(turns, tuple(offer.tool() for offer in offers)), right)


def _thinking(source: Source) -> Case:
    return Case(dialogues.thinking(source, 1), _same_after_thought)


SKILLS: dict[str, Callable[[Source], Case]] = {
    "greeting, identity": _talk(talk.chat),
    "this project": _talk(talk.about_project),
    "capitals": _talk(talk.capital),
    "counting": _talk(talk.counting),
    "two-digit sums": lambda source: _sums(source, "+"),
    "two-digit differences": lambda source: _sums(source, "-"),
    "echo": _talk(talk.echo),
    "repeat N times": _talk(talk.times),
    "story about": _story,
    "JSON extraction": _talk(talk.extraction),
    "out of scope": _talk(talk.other),
    "memory": _whole(dialogues.remembering, 2),
    "system: capitals": _style(dialogues.IN_CAPITALS, talk.capital, str.upper),
    "system: one word": _style(dialogues.IN_ONE_WORD, dialogues.one_word_capital),
    "think, then answer": _thinking,
    "everyday tools: name": _call(families.EVERYDAY, _same_name),
    "everyday tools: whole call": _call(families.EVERYDAY, _same_call),
    "unseen tools: name": _call(families.UNSEEN_FAMILIES, _same_name),
    "unseen tools: whole call": _call(families.UNSEEN_FAMILIES, _same_call),
    "random tools: name": _call(None, _same_name),
    "random tools: whole call": _call(None, _same_call),
    "two calls at once": _two_calls,
    "tool's answer told": _told,
    "tools, but none needed": _no_call,
}


def cases(skill: str, count: int, seed: int) -> Iterator[Case]:
    for number in range(count):
        yield SKILLS[skill](Source(Random(f"evaluation {seed} {skill} {number}"), unseen=True))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Evaluates the tiny chat model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100, help="prompts for each skill")
    parser.add_argument("--show", type=int, default=0, help="so many wrong answers of each skill")
    parser.add_argument("--skill", choices=SKILLS, nargs="*", default=list(SKILLS), help="only these")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    model = Model(options.folder)
    print("| skill | right |\n|---|---|")
    for skill in options.skill:
        asked = list(cases(skill, options.count, options.seed))
        answers = model.answers([case.prompt() for case in asked])
        wrong = [(case, answer) for case, answer in zip(asked, answers, strict=True)
                 if not case.right(case.expected(), answer)]
        print(f"| {skill} | {100 * (1 - len(wrong) / len(asked)):.0f} % |", flush=True)
        for case, answer in wrong[: options.show]:
            print(f"    {case.dialogue.turns[-2].text!r}\n      wanted {case.expected()!r}\n      found  {answer!r}")


if __name__ == "__main__":
    main()
