"""Loading and unloading of models at clients' request: what is drained and forgotten here, Triton loads and unloads.

Answers have the shapes of NVIDIA's OpenAI frontend (github.com/triton-inference-server/server, python/openai).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import triton_python_backend_utils as pb_utils

from admission import Admission
from backend import Backend, State
from call import Call
from directory import Directory
from preprocessing import listing
from preprocessing.errors import Kind, OpenAIError, invalid
from preprocessing.wire import dumps

LOAD, UNLOAD = "/load", "/unload"  # behind the name of a model
DRAIN_SECONDS = 30.0  # that a model's running requests have before it is unloaded
DRAIN_INTERVAL = 0.05
# Seconds after which an answer begins, so that no gateway gives it up; what fails after that cannot have a status.
OPENS_AFTER = 30.0
OFF = invalid(
    "Model load/unload requires --model-control-mode=explicit and the parameter model_control; this server has it off."
)
NOT_EXPLICIT = "explicit model load / unload is not allowed"  # Triton's words where it runs in another mode
FAILED = OpenAIError(Kind.INTERNAL, "The model could not be loaded or unloaded; the server's log says why.")
UNLOADED = OpenAIError(Kind.UNAVAILABLE, "The model was unloaded before the answer was complete.")


class Control:
    """Takes the calls that load and unload.

    Args:
        allowed: an operator has switched it on.
        guard: runs an action; what fails in it becomes the call's error.
    """

    def __init__(
        self,
        directory: Directory,
        admission: Admission,
        allowed: bool,
        guard: Callable[[Call, Callable[[], None]], None],
    ) -> None:
        self._directory = directory
        self._admission = admission
        self._allowed = allowed
        self._guard = guard
        self._lock = threading.Lock()
        # Between the look at who needs an engine, or whether it is there, and what Triton is told then.
        self._engines = threading.Lock()

    def take(self, call: Call, path: str) -> None:
        """Does it on a thread of its own: loading may take minutes.

        Args:
            path: a model's name and what is to be done with it.

        Raises:
            OpenAIError: it cannot be done.
        """
        if not self._allowed:
            raise OFF
        name, _, verb = path.rpartition("/")
        backend = self._directory.called(name)
        action = self._load if f"/{verb}" == LOAD else self._unload
        call.working()
        opening = threading.Timer(OPENS_AFTER, call.begin)
        opening.daemon = True
        opening.start()

        def work() -> None:
            self._guard(call, lambda: action(call, backend, name))
            opening.cancel()

        threading.Thread(target=work, name="control", daemon=True).start()

    def _load(self, call: Call, backend: Backend, name: str) -> None:
        self._turn(backend, name, State.UNLOADED, State.LOADING)
        try:
            with self._engines:
                for engine in backend.engines:
                    # One that another model uses as well is there already.
                    if not pb_utils.is_model_ready(model_name=engine):
                        ask_triton(pb_utils.load_model, engine)
            backend.connect().result()
        except BaseException:
            self._put_away(backend)
            raise
        backend.state = State.LOADED
        call.reply(listing.single(backend.listed(), name))

    def _unload(self, call: Call, backend: Backend, name: str) -> None:
        self._turn(backend, name, State.LOADED, State.UNLOADING)
        self._drain(backend)
        try:
            self._put_away(backend)
        except OpenAIError:
            backend.state = State.LOADED  # Triton has it still
            raise
        call.reply(dumps({"status": "success", "model": name}))

    def _turn(self, backend: Backend, name: str, before: State, after: State) -> None:
        """Of several that want the same only the first gets it."""
        with self._lock:
            if backend.state is not before:
                raise invalid(f"The model '{name}' is already {backend.state.value}.", "model")
            backend.state = after

    def _drain(self, backend: Backend) -> None:
        """Waits for what runs, and ends what takes too long."""
        until = time.monotonic() + DRAIN_SECONDS
        while running := [call for call in self._admission.calls if call.backend is backend]:
            if time.monotonic() > until:
                for call in running:
                    call.fail(UNLOADED)
                return
            time.sleep(DRAIN_INTERVAL)

    def _put_away(self, backend: Backend) -> None:
        """Forgets the engines and has Triton unload those that no other model needs."""
        backend.disconnect()
        with self._engines:
            with self._lock:
                needed = {engine for other in self._directory.backends for engine in other.engines
                          if other is not backend and other.state is not State.UNLOADED}  # fmt: skip
                backend.state = State.UNLOADED
            for engine in backend.engines:
                if engine not in needed:
                    ask_triton(pb_utils.unload_model, engine)


def ask_triton(action: Callable[..., None], engine: str) -> None:
    """Has Triton load a model, or unload it as soon as nothing runs there.

    Raises:
        OpenAIError: Triton does not.
    """
    try:
        action(model_name=engine)
    except Exception as error:
        pb_utils.Logger.log_error(f"openai_bls: {action.__name__} of '{engine}' failed: {error}")
        raise (OFF if NOT_EXPLICIT in str(error) else FAILED) from None
