"""An OpenTelemetry collector that keeps what it is sent: OTLP over HTTP, protobuf (openai_bls) and JSON (Triton)."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2

SERVER, CLIENT, INTERNAL = (
    trace_pb2.Span.SPAN_KIND_SERVER,
    trace_pb2.Span.SPAN_KIND_CLIENT,
    trace_pb2.Span.SPAN_KIND_INTERNAL,
)
OK, ERROR = trace_pb2.Status.STATUS_CODE_UNSET, trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True)
class Received:
    """A span. Ids are hexadecimal, times nanoseconds since 1970; service: who sent it."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    status: int
    state: str


class Collector:
    """Listens on a free port of 127.0.0.1, or on the one that is given."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Received] = []
        self.paths: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.paths.add(self.path)
                collector.take(body, self.headers["Content-Type"])
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes, content_type: str) -> None:
        message = parsed(json.loads(body)) if "json" in content_type else ExportTraceServiceRequest.FromString(body)
        for of_resource in message.resource_spans:
            service = values(of_resource.resource.attributes)["service.name"]
            found = [received(service, span) for scope in of_resource.scope_spans for span in scope.spans]
            self.spans += found

    def of(self, trace: str) -> list[Received]:
        """The spans of a trace, those of openai_bls first and in the order in which it made them."""
        found = [span for span in self.spans if span.trace == trace]
        return sorted(found, key=lambda span: span.service != "openai_bls")

    def named(self, trace: str, name: str) -> list[Received]:
        return [span for span in self.of(trace) if span.name == name]


def parsed(message: Any) -> ExportTraceServiceRequest:
    """OTLP's JSON has ids in hexadecimal, where protobuf's own has base64."""
    for of_resource in message["resourceSpans"]:
        for scope in of_resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return ParseDict(message, ExportTraceServiceRequest(), ignore_unknown_fields=True)


def received(service: str, span: trace_pb2.Span) -> Received:
    return Received(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        values(span.attributes),
        span.status.code,
        span.trace_state,
    )


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: value(each.value) for each in attributes}


def value(told: Any) -> Any:
    kind = told.WhichOneof("value")
    return [value(each) for each in told.array_value.values] if kind == "array_value" else getattr(told, kind)
