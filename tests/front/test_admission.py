from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.drain import Drain


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "draining"


@pytest.fixture
def admission() -> Iterator[Callable[..., Any]]:
    from admission import Admission

    made: list[Any] = []

    def make(most: int = 2, file: Path | None = None) -> Any:
        made.append(Admission(most, file))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_so_many_and_no_more(admission: Any) -> None:
    door = admission(2)
    first, second, third = object(), object(), object()
    assert door.enter(first) is None
    assert door.enter(second) is None
    refused = door.enter(third)
    assert (refused.status, door.enter(third)) == (429, refused)
    door.leave(third)  # was never in
    assert door.enter(third) is refused
    door.leave(first)
    door.leave(first)
    assert door.enter(third) is None
    assert set(door.calls) == {second, third}


def test_nothing_is_taken_while_the_file_is_there(admission: Any, file: Path) -> None:
    door, drain = admission(2, file), Drain(file)
    running, late = object(), object()
    assert door.enter(running) is None
    drain.begin()
    assert door.draining
    assert door.enter(late).status == 503
    assert door.calls == [running]
    assert not door.cut_off
    drain.cut_off()
    assert door.cut_off
    drain.end()
    assert door.enter(late) is None


def test_a_drain_is_over_when_no_instance_has_a_call(admission: Any, file: Path) -> None:
    doors, drain = [admission(2, file), admission(2, file)], Drain(file)
    assert drain.is_over()
    calls = [object(), object(), object()]
    for door, call in zip([doors[0], doors[0], doors[1]], calls, strict=True):
        door.enter(call)
        assert not drain.is_over()
    for door, call in zip([doors[1], doors[0]], [calls[2], calls[0]], strict=True):
        door.leave(call)
        assert not drain.is_over()
    doors[0].leave(calls[1])
    assert drain.is_over()
    doors[0].enter(calls[0])
    doors[0].close()  # as a process that has died
    assert drain.is_over()
    doors[0].leave(calls[0])


def test_a_folder_that_is_not_there(admission: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        admission(1, tmp_path / "none" / "draining")
