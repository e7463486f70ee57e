"""The Triton shell of openai_bls: hands requests to the server, and that is all."""

import atexit
import os
import sys
from typing import Any

import triton_python_backend_utils as pb_utils

from server import Server
from settings import Settings

# transformers needs no torch to read a tokenizer, but imports it where it is installed, as in NVIDIA's containers: two
# seconds and 250 MB for each instance.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say at each start that torch is missing


class TritonPythonModel:
    """Triton's Python backend calls these three (github.com/triton-inference-server/python_backend)."""

    def initialize(self, args: dict[str, str]) -> None:
        atexit.register(os._exit, 0)  # after finalize: taking Python apart would take a second and more
        try:
            self._server = Server(Settings.read(args), args["model_instance_name"])
        except (ValueError, OSError) as error:
            raise pb_utils.TritonModelException(f"openai_bls: {error}") from None

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            self._server.accept(request)

    def finalize(self) -> None:
        self._server.close()
