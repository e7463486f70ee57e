"""Answers when the courier is behind: news merge, and nothing is lost or disguised."""

from __future__ import annotations

from typing import Any

import pytest

from engine.answer import Answer
from engine.request import Request
from engine.response import Response
from engine.sequence import Progress, Sequence, Status
from tests.engine.client import PROMPT, Recorder


def answer(**values: Any) -> tuple[Answer, Sequence]:
    made = Answer(Recorder(), 1)
    sequence = Sequence(made, Request(prompt=PROMPT, max_tokens=9, **values), 0, 0, 300, 1)
    made.expect([sequence])
    return made, sequence


def sent(made: Answer) -> list[Response]:
    parcel = made.take(0.0)
    return [response for _, response in parcel()] if parcel else []


def shown(responses: list[Response]) -> list[tuple[list[int], bool]]:
    return [(r.outputs["output_ids"][0, 0].tolist(), r.final) for r in responses]


@pytest.mark.parametrize(("status", "last", "expected"), [
    (Status.RUNNING, [3], [([1, 2, 3], False)]),
    (Status.LENGTH, [3], [([1, 2, 3], True)]),
    (Status.STOP_WORD, [3], [([1, 2, 3], True)]),
    (Status.END_ID, [], [([1, 2], False), ([], True)]),
    (Status.CANCELLED, [], [([], True)]),
])
def test_piled_up_news(status: Status, last: list[int], expected: list[tuple[list[int], bool]]) -> None:
    made, sequence = answer(streaming=True)
    for progress in (Progress(sequence, tokens=[1]), Progress(sequence, tokens=[2]), Progress(sequence, status, last)):
        made.push(progress)
    assert shown(sent(made)) == expected
    assert sent(made) == [] and made.done == (status is not Status.RUNNING)


def test_log_probs_of_merged_news() -> None:
    made, sequence = answer(streaming=True, log_probs=True)
    lists = []
    for number in range(4):
        made.push(Progress(sequence, tokens=[number], log_probs=[-float(number)], cum_log_prob=-float(number)))
        if number in (0, 3):
            (response,) = sent(made)
            lists.append(response.outputs["output_log_probs"][0, 0].tolist())
    assert lists == [[0.0], [0.0, -1.0, -2.0, -3.0]]


def test_a_whole_answer_waits_for_its_end() -> None:
    made, sequence = answer()
    made.push(Progress(sequence, tokens=[1]))
    assert sent(made) == []
    made.push(Progress(sequence, Status.END_ID))
    assert shown(sent(made)) == [([*PROMPT, 1], True)]


def test_nothing_follows_an_error() -> None:
    made, sequence = answer(streaming=True, num_sequences=2)
    made.push(Progress(sequence, Status.ERROR, error="broken"))
    assert [r.error for r in sent(made)] == ["broken"]
    made.push(Progress(sequence, tokens=[1]))
    assert sent(made) == []
