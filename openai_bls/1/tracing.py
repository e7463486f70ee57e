"""Sends the spans of requests to an OpenTelemetry collector, over OTLP/HTTP. Made only if an operator asks for it.

A call that has ended leaves its spans in a queue; every second one thread makes OpenTelemetry's of them and sends them.
A collector that is slow or away costs spans, never requests: the queue has an end.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import triton_python_backend_utils as pb_utils

from call import Call
from spans import Span, spans_of
from trace_context import Context, from_gateway, gateways_word, new_id, of_triton

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

SERVICE = "openai_bls"  # unless OTEL_SERVICE_NAME says otherwise
INTERVAL = 1.0  # seconds between two looks at the queue
MOST_REQUESTS = 4096  # whose spans wait; of more the oldest are given up
MOST_AT_ONCE = 128  # requests in one message
PATIENCE = 5.0  # seconds that a message may take, tried again included
LAST_PATIENCE = 1.0  # seconds that the rest may take when the model ends
MOST_AGE = 60.0  # seconds that a gateway may have had a request; what says more has another clock
NEEDED = "wanted the packages opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http (requirements.txt)"


class Ended(NamedTuple):
    """A request that has ended; `clock` is what the monotonic clock lacks to seconds since 1970."""

    context: Context
    request_id: str
    spans: list[Span]
    clock: float


class Tracer:
    """Decides which calls are traced, and sends their spans.

    Args:
        url: where OTLP is taken, path included.
        ratio: of requests that are traced if nobody has decided before, 0 to 1.
        instance: the name of this instance of the Triton model.
        exporter: sends spans; None: to `url`.

    Raises:
        ValueError: OpenTelemetry's packages are not there.
    """

    def __init__(self, url: str, ratio: float, instance: str, exporter: SpanExporter | None = None) -> None:
        self._ratio = ratio
        self._exporter = exporter or exporter_to(url)
        self._resource = resource(instance)
        self._waiting: deque[Ended] = deque(maxlen=MOST_REQUESTS)
        self._lost = 0
        self._works = True
        self._lock = threading.Lock()
        self._started = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="traces", daemon=True)

    def context(self, request: Any) -> Context | None:
        """Where a Triton request is in a trace; None: it is not traced."""
        if told := gateways_word(request):
            return from_gateway(told)
        if (outer := of_triton(request)) is not None:
            return outer
        return Context(new_id(128), new_id(64)) if random.random() < self._ratio else None

    def ended(self, call: Call, context: Context) -> None:
        """Takes the spans of a call. Called once for each, from any thread; never raises."""
        try:
            self._take(call, context)
        except Exception as error:  # whatever it is, the call itself went well
            pb_utils.Logger.log_error(f"request {call.id}: {error!r} while making spans")

    def _take(self, call: Call, context: Context) -> None:
        clock = time.time() - time.monotonic()
        since = None if context.since is None else context.since - clock
        if since is not None and not 0 <= call.stats.started - since <= MOST_AGE:
            since = None
        spans = spans_of(call.stats, call.answer, since)
        with self._lock:
            self._lost += len(self._waiting) == MOST_REQUESTS
            self._waiting.append(Ended(context, call.id, spans, clock))
            if not self._started:
                self._started = True
                self._thread.start()

    def close(self) -> None:
        """Sends the rest, if that does not take long."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(LAST_PATIENCE)
        if not self._thread.is_alive():  # else it is in the exporter, and ends with the process
            self._exporter.shutdown()

    def flush(self) -> None:
        """Sends what waits. For one thread at a time."""
        while self._waiting:
            with self._lock:
                taken = [self._waiting.popleft() for _ in range(min(MOST_AT_ONCE, len(self._waiting)))]
            self._send(taken)

    def _loop(self) -> None:
        while not self._closed.wait(INTERVAL):
            self._try()
        self._try()

    def _try(self) -> None:
        try:
            self.flush()
        except Exception as error:  # whatever it is, the next spans may do better
            pb_utils.Logger.log_error(f"openai_bls: {error!r} while sending spans")

    def _send(self, taken: Sequence[Ended]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = [span for each in taken for span in otel_spans(each, self._resource)]
        works = self._exporter.export(spans) is SpanExportResult.SUCCESS
        with self._lock:
            self._lost += 0 if works else len(taken)
            lost, self._lost = (self._lost, 0) if works else (0, self._lost)
        if works != self._works:
            self._works = works
            pb_utils.Logger.log_warn(
                f"openai_bls: the collector of traces takes spans again; those of {lost} requests are lost"
                if works
                else "openai_bls: the collector of traces does not take spans; requests go on without them"
            )


def exporter_to(url: str) -> SpanExporter:
    """OpenTelemetry's own; headers, certificates and compression are those of its variables (OTEL_EXPORTER_OTLP_…).

    Raises:
        ValueError: it is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ValueError(f"parameter trace_url: {NEEDED}, found something missing") from None
    # It writes about every attempt; here is said once that the collector is away, and once that it is back.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)
    return OTLPSpanExporter(endpoint=url, timeout=PATIENCE)


def resource(instance: str) -> Resource:
    """Who sends; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count."""
    from opentelemetry.sdk.resources import Resource

    found = Resource.create()
    if str(found.attributes.get("service.name", "")).startswith("unknown_service"):
        found = found.merge(Resource({"service.name": SERVICE}))
    return found.merge(Resource({"service.instance.id": instance}))


def otel_spans(ended: Ended, of: Resource) -> list[ReadableSpan]:
    """A request's spans as OpenTelemetry has them."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
    from opentelemetry.trace.status import Status, StatusCode

    context = ended.context
    state = TraceState.from_header([context.state])
    scope = InstrumentationScope(SERVICE)

    def place(span_id: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(context.trace, span_id, remote, TraceFlags(TraceFlags.SAMPLED), state)

    places = [
        place(context.span if each.parent is None else context.engine if each.remote else new_id(64))
        for each in ended.spans
    ]
    outer = place(context.parent, remote=True) if context.parent else None
    return [
        ReadableSpan(
            name=span.name,
            context=place_,
            parent=outer if span.parent is None else places[span.parent],
            resource=of,
            attributes={**span.attributes, "openai_bls.request.id": ended.request_id}
            if span.parent is None
            else span.attributes,
            kind=SpanKind.SERVER if span.parent is None else SpanKind.CLIENT if span.remote else SpanKind.INTERNAL,
            instrumentation_scope=scope,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(),
            start_time=round((span.start + ended.clock) * 1e9),
            end_time=round((span.end + ended.clock) * 1e9),
        )
        for span, place_ in zip(ended.spans, places, strict=True)
    ]
