"""How one request went: written by its call, read by the metrics."""

from __future__ import annotations

from collections.abc import Sequence

from postprocessing.events import Event, Status
from preprocessing.errors import OpenAIError

UNKNOWN = "unknown"
PROMPT = Status.PROMPT  # asked for each of the engine's news


class RequestStats:
    """Times are seconds of the monotonic clock; the first is when openai_bls got the request.

    Attributes:
        endpoint: the path after /v1/, as the client wrote it.
        model: the id of the model that serves it, once that is known: never what a client made up.
        asked: what the client calls the model; empty if it does not say.
        began, submitted: when a thread began to prepare it, and when it went to the engine; None: it did not get there.
        engine: the Triton model that works for it.
        first_token, last_token: when the engine's news of them came.
        queued: seconds in the engine's own queue, if it tells.
        gaps: seconds between pieces of news of a sequence; whoever counts them takes them out.
        prompt_tokens: of a request that generates nothing; an answer knows its own.
        ended: when nothing more was sent.
        opened: the answer has begun, so its status is 200 whatever comes.
        counted: tokens of the prompt, of it cached, and of the answer that have been counted so far; `first_counted`:
            whether the first token's time has been.
        error: what it ended with; None: it was answered to the end, or `cancelled`.
        cancelled: the client left before the end.
    """

    __slots__ = (
        "asked", "began", "cancelled", "counted", "ended", "endpoint", "engine", "error", "first_counted",
        "first_token", "gaps", "last_token", "model", "opened", "prompt_tokens", "queued", "started", "submitted",
        "_last",
    )  # fmt: skip

    def __init__(self, endpoint: str, started: float) -> None:
        self.endpoint = endpoint
        self.model = UNKNOWN
        self.asked = ""
        self.started = started
        self.began: float | None = None
        self.submitted: float | None = None
        self.engine = ""
        self.first_token: float | None = None
        self.last_token = self.ended = started
        self.opened = False
        self.queued: float | None = None
        self.gaps: list[float] = []
        self.prompt_tokens = 0
        self.counted: Sequence[int] = (0, 0, 0)
        self.first_counted = False
        self.error: OpenAIError | None = None
        self.cancelled = False
        self._last: dict[tuple[int, int], float] = {}

    @property
    def status(self) -> int:
        """What was sent, or would have been to a client that left."""
        return 200 if self.error is None or self.opened else self.error.status

    def see(self, event: Event, now: float) -> None:
        """Notes when tokens come. Called for each of the engine's news, so it does little."""
        tokens, status, prompt, sequence = event[:4]
        if status is PROMPT:
            if len(tokens) > 1:
                self.queued = tokens[1] / 1e6
        elif tokens:
            last = self._last.get((prompt, sequence))
            if last is not None:
                self.gaps.append(now - last)
            elif self.first_token is None:
                self.first_token = now
            self._last[prompt, sequence] = self.last_token = now
