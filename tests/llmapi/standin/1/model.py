"""What NVIDIA's llmapi model does with its tensors: one asyncio loop's worth of requests, cumulative text, its errors.

It counts: " 1", " 1 2", …; every third number is followed by é, whose two bytes come one after the other.
"""

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        self._stopped = set()

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self._serve, args=(request,)).start()

    def _serve(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        sender = request.get_response_sender()
        assert all(array.ndim == 1 for array in given.values())
        if "stop" in given and given["stop"].item():
            known = bool(request.request_id())
            self._stopped.add(request.request_id())
            text = "Request cancelled by client" if known else "A request id must be provided for request cancellation"
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(text)), flags=FINAL)
            return
        steps = list(self._texts(given))
        for place, text in enumerate(steps):
            last = place == len(steps) - 1
            stopped = request.request_id() in self._stopped
            reason = ("length" if last else "cancelled" if stopped else None)
            tensors = [pb_utils.Tensor("text_output", np.array([text.encode()], object)),
                       pb_utils.Tensor("finish_reason", np.array([str(reason).encode()], object))]
            sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL if reason else 0)
            if reason:
                return
            time.sleep(0.005)

    def _texts(self, given):
        text = ""
        for number in range(1, int(given["sampling_param_max_tokens"].item()) + 1):
            text += f" {number}"
            if number % 3 == 0:
                yield text + "\ufffd"
                text += "é"
            yield text
