"""News on their way to a sink that is slower than the engine, and to one that is not."""

from __future__ import annotations

import threading
import time

from postprocessing.events import Event, Status
from transports.outbox import AT_ONCE, Outbox


class Slow:
    """A sink that waits to be let go on."""

    def __init__(self) -> None:
        self.taken: list[Event] = []
        self.go = threading.Event()

    def take(self, event: Event) -> bool:
        self.go.wait(10)
        self.taken.append(event)
        return True


def tokens(taken: list[Event]) -> list[int]:
    return [token for event in taken for token in event.tokens]


def test_a_slow_engines_tokens_go_out_one_by_one_and_without_a_thread() -> None:
    taken: list[tuple[list[int], threading.Thread]] = []

    def take(event: Event) -> bool:
        taken.append((list(event.tokens), threading.current_thread()))
        return True

    outbox = Outbox(take)
    for token in range(5):
        outbox.put(Event([token]))
        time.sleep(20 * AT_ONCE)
    outbox.close()
    assert taken == [([token], threading.current_thread()) for token in range(5)]


def test_what_comes_while_the_sink_is_busy_goes_out_as_one() -> None:
    sink = Slow()
    sink.go.set()
    outbox = Outbox(sink.take)
    outbox.put(Event([0]))
    sink.go.clear()
    for token in range(1, 1000):
        outbox.put(Event([token], log_probs=[-float(token)]))
    outbox.put(Event([1000], Status.LENGTH))
    sink.go.set()
    outbox.close()
    assert tokens(sink.taken) == list(range(1001))
    assert [event.status for event in sink.taken][-1] is Status.LENGTH
    assert len(sink.taken) < 20
    assert [value for event in sink.taken for value in event.log_probs] == [-float(token) for token in range(1, 1000)]


def test_sequences_are_not_mixed() -> None:
    sink = Slow()
    outbox = Outbox(sink.take)
    sink.go.set()
    for token in range(100):
        outbox.put(Event([token], sequence=token % 3))
    outbox.close()
    for sequence in range(3):
        assert tokens([event for event in sink.taken if event.sequence == sequence]) == list(range(sequence, 100, 3))


def test_nothing_is_passed_on_to_who_wants_no_more() -> None:
    taken: list[Event] = []

    def take(event: Event) -> bool:
        taken.append(event)
        return False

    outbox = Outbox(take)
    for token in range(50):
        outbox.put(Event([token]))
    outbox.close()
    assert not outbox.wanted
    assert tokens(taken) == [0]


def test_closing_an_outbox_that_was_never_used() -> None:
    Outbox(Slow().take).close()
