"""Triton shell of the engine: tensors of a request in, responses of the engine out. The work is done in `engine`.

It knows Triton's objects and nothing about what the tensors mean.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
from typing import Any

import triton_python_backend_utils as pb_utils

from engine.engine import Engine, limits_of
from engine.load import load
from engine.metrics import Metrics
from engine.response import Response
from engine.settings import Settings


class TritonChannel:
    """engine.response.Channel over the response sender of one Triton request."""

    def __init__(self, request: Any):
        self.request_id: str = request.request_id()
        self.wanted = frozenset(request.requested_output_names())
        self._sender = request.get_response_sender()
        self._lock = threading.Lock()  # the sender must not be asked after, or during, its last response
        self._closed = False

    def send(self, response: Response) -> None:
        final = bool(response.final or response.error)
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        # Kept in locals until send returns: older Tritons destroy tensors inside it without the GIL.
        tensors = [pb_utils.Tensor(name, array) for name, array in response.outputs.items()
                   if not self.wanted or name in self.wanted]
        error = pb_utils.TritonError(response.error) if response.error else None
        answer = pb_utils.InferenceResponse(tensors, error)
        with self._lock:
            self._closed = final
            self._sender.send(answer, flags=flags)

    def is_cancelled(self) -> bool:
        with self._lock:
            return not self._closed and self._sender.is_cancelled()


class TritonPythonModel:
    """Lifecycle hooks of the Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        atexit.register(os._exit, 0)  # after finalize: taking Python apart would take a second and more
        logging.getLogger().addHandler(_TritonLog())
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        settings = Settings.from_parameters(parameters)
        runner, folder = load(settings)
        metrics = Metrics(_gauges, args["model_name"], args["model_version"], settings.max_batch_size,
                          limits_of(runner, settings).max_seq_len)
        self._engine = Engine(runner, settings, str(folder), metrics.publish)
        self._engine.start()

    def execute(self, requests: list[Any]) -> None:
        """Hands the requests over; the engine answers from its own threads."""
        for request in requests:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            self._engine.receive(tensors, TritonChannel(request), json.loads(request.parameters() or "{}"))

    def finalize(self) -> None:
        self._engine.close()


class _TritonLog(logging.Handler):
    """Python's log records -> Triton's log."""

    def emit(self, record: logging.LogRecord) -> None:
        write = pb_utils.Logger.log_error if record.levelno >= logging.ERROR else pb_utils.Logger.log_warn
        write(self.format(record))


def _gauges(name: str, description: str) -> Any:
    return pb_utils.MetricFamily(name=name, description=description, kind=pb_utils.MetricFamily.GAUGE)
