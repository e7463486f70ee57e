"""A seeded source of names, words, numbers and wordings, from what training sees or from what it never sees."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from string import ascii_lowercase
from typing import NamedTuple, TypeVar

from . import words
from .words import Split

T = TypeVar("T")

_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl sh sp st tr th".split()
_VOWELS = "a e i o u a e i o ai ea ou".split()
_HALVES = [word.lower() for split in (words.WORDS, words.NAMES, words.CITIES) for word in split.seen if len(word) > 4]
_TOWNS = ("New", "San", "Santa", "Port", "Saint", "North", "Great", "Old", "Fort", "El", "Villa", "Bad")
_OPENINGS = ("Ok, ", "So, ", "Well, ", "And ", "Dear bot, ", "Kindly ", "A question: ", "Now, ", "Hm, ", "Next: ")
_ENDS = ["", "", "", "n", "r", "s", "l", "t", "m", "k", "nd", "x"]


class Wordings(NamedTuple):
    """Ways to ask for one thing: those of training, and those that only the evaluation uses."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


class Source:
    """All chance of one dialogue. `unseen` chooses the evaluation's side of every split."""

    def __init__(self, random: Random, unseen: bool = False):
        self.random = random
        self.unseen = unseen

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def choice(self, options: Sequence[T]) -> T:
        return self.random.choice(options)

    def number(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, split: Split | Wordings) -> str:
        return self.random.choice(split.unseen if self.unseen else split.seen)

    def ask(self, wordings: Wordings, **values: object) -> str:
        """A wording with its values. Training also sees careless ones: no end mark, no capital, more words."""
        text = self.pick(wordings)
        if not self.unseen:
            if text[-1] in ".?!" and self.chance(0.15):
                text = text[:-1]
            if self.chance(0.1):
                text = text[0].lower() + text[1:]
            if self.chance(0.08):
                text = self.choice(_OPENINGS) + text[0].lower() + text[1:]
        return text.format(**values)

    def invented(self, syllables: int = 0) -> str:
        """A word that does not exist, so that it can only be copied: syllables, two halves of words, or letters."""
        kind = self.random.random()
        if kind < 0.45:
            count = syllables or self.choice((1, 2, 2, 3))
            return "".join(self.choice(_ONSETS) + self.choice(_VOWELS) for _ in range(count)) + self.choice(_ENDS)
        if kind < 0.85:
            first, second = (self.choice(_HALVES) for _ in range(2))
            return first[: self.number(2, 5)] + second[-self.number(2, 5):]
        return "".join(self.choice(ascii_lowercase) for _ in range(self.number(3, 6)))

    def word(self) -> str:
        return self.invented() if self.chance(0.4) else self.pick(words.WORDS)

    def name(self) -> str:
        if not self.unseen and self.chance(0.35):
            return self._invented_except(words.NAMES.unseen)
        return self.pick(words.NAMES)

    def city(self) -> str:
        if self.chance(0.1):
            return self.pick(words.LONG_CITIES)
        if not self.unseen and self.chance(0.12):
            first = self.choice(_TOWNS) if self.chance(0.6) else self._invented_except(words.CITIES.unseen)
            return f"{first} {self._invented_except(words.CITIES.unseen)}"
        if not self.unseen and self.chance(0.3):
            return self._invented_except(words.CITIES.unseen)
        return self.pick(words.CITIES)

    def phrase(self, low: int = 1, high: int = 5) -> str:
        """So many words; now and then one of them twice."""
        said = [self.word() for _ in range(self.number(low, high))]
        if len(said) > 1 and not self.unseen and self.chance(0.2):
            said[self.number(0, len(said) - 1)] = self.choice(said)
        return " ".join(said)

    def pair(self, low: int, high: int, second: tuple[int, int] | None = None) -> tuple[int, int]:
        """Two numbers for a sum, on this source's side of the split; the second one may have other bounds."""
        while True:
            a, b = self.number(low, high), self.number(*(second or (low, high)))
            if words.unseen_pair(a, b) == self.unseen:
                return a, b

    def end(self, low: int, high: int) -> int:
        """A number to count to."""
        while True:
            number = self.number(low, high)
            if (number in words.UNSEEN_ENDS) == self.unseen:
                return number

    def _invented_except(self, taken: Sequence[str]) -> str:
        while (name := self.invented(self.choice((2, 2, 3)))) in taken or name.capitalize() in taken:
            pass
        return name.capitalize()
