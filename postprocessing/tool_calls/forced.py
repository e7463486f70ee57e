"""The reader of answers that had to call one function: their text is its arguments."""

from __future__ import annotations

from postprocessing.reader import CallArguments, CallOpened, Delta


class Arguments:
    """Everything is the arguments of one call: the engine was held to them.

    Args:
        name: of the function.
    """

    reasoning = False
    failures = 0

    def __init__(self, name: str) -> None:
        self._name = name
        self._opened = False
        self.calls = 0

    def push(self, text: str) -> list[Delta]:
        if not text:
            return []
        arguments = CallArguments(0, text)
        if self._opened:
            return [arguments]
        self._opened = True
        return [CallOpened(0, self._name), arguments]

    def finish(self) -> list[Delta]:
        self.calls = int(self._opened)
        return []
