"""One client's call, seen from Triton: what it asks, and the way back to it.

Everything that is sent goes through here, under one lock per call, because the engine's news, ticks and cancellation
come from different threads.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from postprocessing.answer import Answer
from postprocessing.events import Event, Status
from preprocessing.errors import Kind, OpenAIError
from refusals import Refusals

# Triton fixes the HTTP status by the code of the first response (2.51: 400 for all, see refusals.py). UNSUPPORTED
# (501) is used for nothing else here, so the gateway can turn it into 429, which Triton has no code for. (By name:
# pb_utils is filled in after this module is imported.)
CODES = {
    400: "INVALID_ARG",
    404: "NOT_FOUND",
    429: "UNSUPPORTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
TICK = b""
MAX_RESPONSE = 16 * 1024  # bytes
# Triton notices that a client has gone only when it writes to it: after so many seconds of silence it is made to write.
TICK_AFTER = 0.25
INTERNAL_ERROR = OpenAIError(Kind.INTERNAL, "The server had an error while processing the request.")


class Call:
    """A Triton request of this model and its response sender.

    Attributes:
        endpoint: the path after /v1/.
        raw: the client's body.
        ticket: the gateway's name for the request; empty without one.
        answer: set by the server once the request is understood.
    """

    def __init__(self, request: Any, refusals: Refusals) -> None:
        self._sender = request.get_response_sender()
        self._refusals = refusals
        self._lock = threading.Lock()
        self._started = False
        self._closed = False
        self._sent_at = time.monotonic()
        self.id: str = request.request_id()
        self.endpoint = text_input(request, "endpoint", b"chat/completions").decode(errors="replace")
        self.ticket = text_input(request, "ticket", b"").decode(errors="replace")
        self.raw = text_input(request, "request", b"")
        self.answer: Answer | None = None

    def reply(self, body: bytes) -> None:
        """A whole answer in one response."""
        with self._lock:
            self._send(body, final=True)

    def fail(self, error: OpenAIError) -> None:
        """Ends the call with an error: the HTTP status if nothing was sent before, else part of the answer."""
        with self._lock:
            self._fail(error)

    def accepted(self) -> None:
        """The engine has taken the request: the answer may begin, with status 200."""
        assert self.answer is not None
        with self._lock:
            # An answer that does not stream has nothing to say yet, but the tick fixes the status and starts the watch.
            self._send(self.answer.open() or TICK, final=False)

    def push(self, event: Event) -> bool:
        """Passes the engine's news on. False: nothing more is wanted, the sequence can be cancelled."""
        assert self.answer is not None
        with self._lock:
            if self._closed:
                return False
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
        """Whether the client is still there; if not, the call is closed. Costs a round trip: for now and then."""
        # Under the lock: Triton must not be asked about a request whose last response is being sent.
        with self._lock:
            if self._closed:
                return False
            if self.is_cancelled():
                self._closed = True
                self._transmit(None, final=True)
            elif time.monotonic() - self._sent_at > TICK_AFTER:
                self._send(TICK, final=False)
            return not self._closed

    def is_cancelled(self) -> bool:
        """Whether Triton knows that the client has gone: not before it has written to it."""
        try:
            return bool(self._sender.is_cancelled())
        except Exception as error:
            pb_utils.Logger.log_error(f"request {self.id}: {error}")
            return True

    def _fail(self, error: OpenAIError) -> bool:
        if self._started and self.answer is not None:
            self._send(self.answer.fail(error), final=True)
        else:
            self._refuse(error)
        return False

    def _refuse(self, error: OpenAIError) -> None:
        if self._closed:
            return
        self._closed = True
        self._refusals.put(self.ticket, error.status, error.body())
        code = getattr(pb_utils.TritonError, CODES[error.status])
        failure = pb_utils.TritonError(error.body().decode(), code)
        self._transmit(pb_utils.InferenceResponse(output_tensors=[], error=failure), final=True)

    def _send(self, out: bytes, *, final: bool) -> None:
        if self._closed:
            return
        self._started = True
        self._sent_at = time.monotonic()
        # A gateway handles each response as a whole, at a cost that grows faster than its size.
        pieces = [out[at : at + MAX_RESPONSE] for at in range(0, len(out), MAX_RESPONSE)] or [out]
        for number, piece in enumerate(pieces, 1):
            tensor = pb_utils.Tensor("response", np.array([piece], dtype=np.object_))
            self._transmit(pb_utils.InferenceResponse([tensor]), final=final and number == len(pieces))
        self._closed = self._closed or final

    def _transmit(self, response: Any, *, final: bool) -> None:
        """Sends a response (None: only the end). Never raises: a call in trouble must not end a transport's thread."""
        try:
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0)
        except Exception as error:
            self._closed = True
            pb_utils.Logger.log_error(f"request {self.id}: the answer could not be sent: {error}")


def text_input(request: Any, name: str, default: bytes) -> bytes:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else bytes(tensor.as_numpy().reshape(-1)[0])


def log_failure(call_id: str, event: Event) -> None:
    """The engine's own words are for the operator only."""
    if event.status is Status.ERROR:
        pb_utils.Logger.log_error(f"request {call_id}: engine error: {event.error}")
