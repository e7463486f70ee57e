"""One client's call, seen from Triton: what it asks, and the way back to it.

Everything that is sent goes through here, under one lock per call, because the engine's news, ticks and cancellation
come from different threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from postprocessing import shapes
from postprocessing.answer import Answer
from postprocessing.events import Event, Status
from preprocessing.errors import Kind, OpenAIError
from refusals import Refusals
from report import appendix
from request_stats import RequestStats
from trace_context import Context

# Triton fixes the HTTP status by the code of the first response (2.51: 400 for all, see refusals.py). UNSUPPORTED
# (501) is used for nothing else here, so the gateway can turn it into 429, which Triton has no code for. (By name:
# pb_utils is filled in after this module is imported.)
CODES = {
    400: "INVALID_ARG",
    404: "NOT_FOUND",
    429: "UNSUPPORTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
TICK = b""
KEEP_ALIVE = b": keep-alive\n\n"
MAX_RESPONSE = 16 * 1024  # bytes
# Triton notices that a client has gone only when it writes to it: after so many seconds of silence it is made to write.
TICK_AFTER = 0.25
# Of a client that leaves the gateway knows what the last report said.
REPORT_EVERY = 1.0  # seconds
# The parameter by which a gateway asks for reports, as Triton writes it. (An input would cost 0.2 ms.)
REPORT = '"report":'
INTERNAL_ERROR = OpenAIError(Kind.INTERNAL, "The server had an error while processing the request.")
WAITED_TOO_LONG = OpenAIError(Kind.QUEUE_TIMEOUT, "The request waited too long for its turn. Try again later.")
TOOK_TOO_LONG = OpenAIError(Kind.TIMEOUT, "The request took longer than this server allows.")


@dataclass(frozen=True)
class Patience:
    """How long a call may take, in seconds.

    Attributes:
        queue: until the engine's first news of it.
        request: in all.
        keep_alive: of silence on a stream until a comment is sent; None: none are.
    """

    queue: float = 60.0
    request: float = 1800.0
    keep_alive: float | None = None


class Call:
    """A Triton request of this model and its response sender.

    Args:
        patience: what `look` goes by.
        ended: called once, when nothing more will be sent.

    Attributes:
        endpoint: the path after /v1/.
        raw: the client's body.
        ticket: the gateway's name for the request; empty without one.
        answer: set by the server once the request is understood.
        backend: the model that serves it, set by the server.
        stats: how it goes; complete when the call has ended.
        trace: where it is in a trace, set by the server; None: it is not traced.
        opens_after: seconds of silence after which the answer begins although the engine has not said that it has taken
            the request; None: it waits for that.
    """

    def __init__(
        self, request: Any, refusals: Refusals, patience: Patience, ended: Callable[[Call], None] = lambda call: None
    ) -> None:
        self._sender = request.get_response_sender()
        self._refusals = refusals
        self._patience = patience
        self._ended = ended
        self._lock = threading.Lock()
        self._heard = False
        self._reports = REPORT in request.parameters()
        self._reported_at = float("-inf")
        self._closed = False
        self._since = self._sent_at = self._shown_at = time.monotonic()
        self.opens_after: float | None = None
        self.id: str = request.request_id()
        self.endpoint = text_input(request, "endpoint", b"chat/completions").decode(errors="replace")
        self.ticket = text_input(request, "ticket", b"").decode(errors="replace")
        self.raw = text_input(request, "request", b"")
        self.answer: Answer | None = None
        self.backend: object | None = None
        self.stats = RequestStats(self.endpoint, self._since)
        self.trace: Context | None = None

    @property
    def traceparent(self) -> str:
        """For an engine that takes part in traces; empty: there is none."""
        return "" if self.trace is None else self.trace.traceparent

    @property
    def heard(self) -> bool:
        """Whether the engine has sent something of it."""
        return self._heard

    def reply(self, body: bytes) -> None:
        """A whole answer in one response."""
        with self._lock:
            self._send(body, final=True)

    def fail(self, error: OpenAIError) -> None:
        """Ends the call with an error: the HTTP status if nothing was sent before, else part of the answer."""
        with self._lock:
            self._fail(error)

    def accepted(self) -> None:
        """The engine has taken the request: the answer may begin, with status 200.

        It has nothing to say before its first token: until then a gateway may ask another Triton. But the tick fixes
        the status and starts the watch.
        """
        with self._lock:
            self._send(TICK, final=False)

    def working(self) -> None:
        """It has had its turn: what it does now may take long."""
        with self._lock:
            self._heard = True

    def begin(self) -> None:
        """A part of a whole answer is there: status 200 is fixed, and the watch for the client starts."""
        with self._lock:
            self._heard = True
            if not self.stats.opened:
                self._send(TICK, final=False)

    def push(self, event: Event) -> bool:
        """Passes the engine's news on. False: nothing more is wanted, the sequence can be cancelled."""
        assert self.answer is not None
        with self._lock:
            if self._closed:
                return False
            self._heard = True
            self.stats.see(event, time.monotonic())
            try:
                out = self.answer.push(event)
            except OpenAIError as error:
                log_failure(self.id, event)
                return self._fail(error)
            except Exception as error:
                pb_utils.Logger.log_error(f"request {self.id}: {error!r} while rendering an answer")
                return self._fail(INTERNAL_ERROR)
            if out or self.answer.done:
                self._send(out, final=self.answer.done)
            return not self._closed and self.answer.wants(event.prompt)

    def alive(self) -> bool:
        """Whether the client still waits, as far as is known; costs nothing."""
        return not self._closed

    def look(self) -> bool:
        """Finds out whether the client is still there and has waited long enough; if so, closes the call.

        Costs a round trip: for now and then.
        """
        # Under the lock: Triton must not be asked about a request whose last response is being sent.
        with self._lock:
            if self._closed:
                return False
            now = time.monotonic()
            overdue = self._overdue(now)
            if overdue is not None:
                pb_utils.Logger.log_warn(f"request {self.id}: {overdue.message}")
                self._fail(overdue)
            elif self.stats.opened:
                self._look_for_client(now)
            elif self.opens_after is not None and now - self._since > self.opens_after and self.answer is not None:
                self._send(TICK, final=False)
            return not self._closed

    def _overdue(self, now: float) -> OpenAIError | None:
        waited = now - self._since
        if waited > self._patience.request:
            return TOOK_TOO_LONG
        return WAITED_TOO_LONG if waited > self._patience.queue and not self._heard else None

    def _look_for_client(self, now: float) -> None:
        if self._is_cancelled():
            self.stats.cancelled = True
            self._transmit(None, final=True)
            self._close()
        elif self._wants_sign_of_life(now):
            self._send(KEEP_ALIVE, final=False)
        elif now - self._sent_at > TICK_AFTER:
            self._send(TICK, final=False)

    def _wants_sign_of_life(self, now: float) -> bool:
        interval = self._patience.keep_alive
        if interval is None or self.answer is None or not self.answer.streams:
            return False
        return now - self._shown_at >= interval

    def has_gone(self) -> bool:
        """Whether Triton knows that the client has gone: not before it has written to it.

        Triton is not asked about a call that has ended: it would look at what it has freed, and die of that.
        """
        with self._lock:
            return not self._closed and self._is_cancelled()

    def _is_cancelled(self) -> bool:
        """Under the lock, and for a call that has not ended."""
        try:
            return bool(self._sender.is_cancelled())
        except Exception as error:
            pb_utils.Logger.log_error(f"request {self.id}: {error}")
            return True

    def _fail(self, error: OpenAIError) -> bool:
        if not self._closed:
            self.stats.error = error
        if self.stats.opened:
            self._send(shapes.FAILED if self.answer is None else self.answer.fail(error), final=True)
        else:
            self._refuse(error)
        return False

    def _refuse(self, error: OpenAIError) -> None:
        if self._closed:
            return
        report = appendix(self.stats, self.answer, final=True) if self._reports else b""
        self._refusals.put(self.ticket, error.status, error.body(), report)
        code = getattr(pb_utils.TritonError, CODES[error.status])
        failure = pb_utils.TritonError((error.body() + report).decode(), code)
        self._transmit(pb_utils.InferenceResponse(output_tensors=[], error=failure), final=True)
        self._close()

    def _send(self, out: bytes, *, final: bool) -> None:
        if self._closed:
            return
        self.stats.opened = True
        self._sent_at = time.monotonic()
        if out:
            self._shown_at = self._sent_at
        # A gateway handles each response as a whole, at a cost that grows faster than its size.
        pieces = [out[at : at + MAX_RESPONSE] for at in range(0, len(out), MAX_RESPONSE)] or [out]
        if self._reports and (final or self._report_is_due()):
            self._reported_at = self._sent_at
            pieces[-1] += appendix(self.stats, self.answer, final=final)
        for piece in pieces:
            tensor = pb_utils.Tensor("response", np.array([piece], dtype=np.object_))
            self._transmit(pb_utils.InferenceResponse([tensor]), final=False)
        if final:
            # By itself: should Triton have lost sight of a response (docs/performance.md), it finds it now.
            self._transmit(None, final=True)
            self._close()

    def _report_is_due(self) -> bool:
        """From the engine's first news on, now and then."""
        return self._heard and self._sent_at - self._reported_at >= REPORT_EVERY

    def _transmit(self, response: Any, *, final: bool) -> None:
        """Sends a response (None: only the end). Never raises: a call in trouble must not end a transport's thread."""
        try:
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0)
        except Exception as error:
            pb_utils.Logger.log_error(f"request {self.id}: the answer could not be sent: {error}")
            self.stats.error = INTERNAL_ERROR
            self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self.stats.ended = time.monotonic()
            self._ended(self)


def text_input(request: Any, name: str, default: bytes) -> bytes:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else bytes(tensor.as_numpy().reshape(-1)[0])


def log_failure(call_id: str, event: Event) -> None:
    """The engine's own words are for the operator only."""
    if event.status is Status.ERROR:
        pb_utils.Logger.log_error(f"request {call_id}: engine error: {event.error}")
