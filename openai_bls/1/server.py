"""What happens to a call: understood by preprocessing, run by a transport, answered by postprocessing."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import triton_python_backend_utils as pb_utils

from admission import DRAINING, Admission
from backend import Backend, Served
from call import INTERNAL_ERROR, Call
from control import LOAD, UNLOAD, Control
from directory import Directory, Target
from embedder import Job
from health import Quorum
from metrics import INTERNAL, Metrics
from postprocessing import engine_errors, shapes
from postprocessing.answer import Answer
from postprocessing.shapes import Identity
from preprocessing import embeddings, listing, tokenization
from preprocessing.body import decode
from preprocessing.errors import Kind, OpenAIError
from preprocessing.generation import Generation, prepare
from preprocessing.model import Model
from preprocessing.tensors import submissions
from refusals import Refusals
from report import line
from request_stats import UNKNOWN
from settings import Settings
from tracing import Tracer
from transports.bls import EngineError
from transports.session import SILENT

WATCH_INTERVAL = 0.25  # seconds between looks at the calls
# Without sessions the engine's first news is a token. If that does not come soon, the answer begins without it: only so
# can a client be noticed that has gone. What the engine refuses it refuses at once.
OPENS_AFTER = 1.0
WAITED = 0.02  # seconds after which a client may have gone before its request began
LISTERS = 2  # threads that tell which models there are; they may wait a moment
REFUSAL, HEALTH = "refusal", "health"
GENERATING = ("chat/completions", "completions")
EMBEDDINGS = "embeddings"
MODELS, ONE_MODEL = "models", "models/"
READY = b'{"status":"ready"}'
NOT_READY = OpenAIError(Kind.UNAVAILABLE, "The engine does not generate tokens. Try again later.")
NO_ENDPOINT = OpenAIError(Kind.NOT_FOUND, "There is no such endpoint.")
GONE = OpenAIError(Kind.UNAVAILABLE, "The client has gone.")
# Endpoints whose answer needs no engine.
BODIES: dict[str, Callable[[dict[str, Any], Model], bytes]] = {
    "tokenize": tokenization.tokenize,
    "detokenize": tokenization.detokenize,
}
Action = Callable[[Served], None]


class Server:
    """Takes calls for as long as the Triton model lives.

    Args:
        instance: the name of this instance of the Triton model.

    Raises:
        ValueError, OSError: the settings cannot work (the model then does not load).
    """

    def __init__(self, settings: Settings, instance: str) -> None:
        self._settings = settings
        alone = len(settings.models) == 1
        self._directory = Directory([Backend(each, settings.health_seconds, alone=alone) for each in settings.models])
        self._refusals = Refusals.of_this_server()
        self._admission = Admission(settings.max_requests, settings.drain_file)
        self._metrics = Metrics(instance, settings.max_requests, lambda: self._admission.calls)
        self._tracer = Tracer(settings.trace_url, settings.trace_ratio, instance) if settings.trace_url else None
        self._control = Control(self._directory, self._admission, settings.model_control, self._guard)
        self._closed = threading.Event()
        self._listers = ThreadPoolExecutor(LISTERS, thread_name_prefix="list")
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def accept(self, request: Any) -> None:
        """Serves a Triton request: at once and to its end if the transport takes one at a time, else on a thread."""
        self._metrics.start()
        call = Call(request, self._refusals, self._settings.patience, self._ended)
        if self._tracer is not None and call.endpoint not in INTERNAL:
            call.trace = self._tracer.context(request)
        if call.endpoint == REFUSAL:
            call.reply(self._refusals.take(call.raw.decode(errors="replace")) or b"{}")
        elif call.endpoint == HEALTH:
            self._guard(call, lambda: self._tell_health(call))
        elif (refusal := self._admission.enter(call)) is not None:
            call.fail(refusal)
        else:
            self._guard(call, lambda: self._route(call))

    def close(self) -> None:
        """Ends what still runs with an error: nobody may wait for ever."""
        self._closed.set()
        self._listers.shutdown(wait=False, cancel_futures=True)
        for call in self._admission.calls:
            call.fail(DRAINING)
        for backend in self._directory.backends:
            backend.close()
        self._metrics.close()
        if self._tracer is not None:
            self._tracer.close()
        self._refusals.close()
        self._admission.close()

    def _ended(self, call: Call) -> None:
        self._admission.leave(call)
        self._metrics.ended(call)
        if call.trace is not None and self._tracer is not None:
            self._tracer.ended(call, call.trace)
        if self._settings.log_requests and call.endpoint not in INTERNAL:
            pb_utils.Logger.log_info(line(call.id, call.stats, call.answer))

    def _watch(self) -> None:
        """Looks for clients that have gone and for calls that take too long; then the transports cancel those."""
        while not self._closed.wait(WATCH_INTERVAL):
            try:
                self._look()
            except Exception as error:  # without this thread nobody would be missed any more
                pb_utils.Logger.log_error(f"openai_bls: {error!r} while looking at the calls")

    def _look(self) -> None:
        cut_off = self._admission.cut_off
        for call in self._admission.calls:
            if cut_off:
                call.fail(DRAINING)
            else:
                call.look()
        for backend in self._directory.backends:
            if backend.writer is not None:
                backend.writer.transport.sweep()

    def _guard(self, call: Call, action: Callable[[], None]) -> None:
        """Runs an action; whatever fails becomes the call's error, and no more is said of it than a client may know."""
        try:
            action()
        except OpenAIError as error:
            call.fail(error)
        except EngineError as error:
            pb_utils.Logger.log_warn(f"request {call.id}: refused by the engine: {error}")
            call.fail(engine_errors.from_message(str(error)))
        except Exception as error:
            pb_utils.Logger.log_error(f"request {call.id}: {error!r}")
            call.fail(INTERNAL_ERROR)

    # --- Which thread serves a call ----------------------------------------------------------------------------------

    def _route(self, call: Call) -> None:
        """Finds the model that a call asks for, and hands the call to its threads."""
        if self._directory.only is not None and not self._directory.only.named:
            self._directory.only.connect().result()  # its name comes from the engine
        if call.endpoint in GENERATING:
            given = self._read(call)
            target = self._directory.writer(given.get("model"), given.get("lora_model"))
            self._serve(call, target.backend, partial(self._generate, call, given, target))
        elif call.endpoint in BODIES:
            given = self._read(call)
            target = self._directory.writer(given.get("model"))
            self._serve(call, target.backend, partial(self._tell, call, given, target))
        elif call.endpoint == EMBEDDINGS:
            given = self._read(call)
            self._serve(call, self._directory.embedder(given.get("model")), partial(self._embed, call, given))
        elif call.endpoint.startswith(ONE_MODEL) and call.endpoint.endswith((LOAD, UNLOAD)):
            self._control.take(call, call.endpoint[len(ONE_MODEL) :])
        elif call.endpoint == MODELS or call.endpoint.startswith(ONE_MODEL):
            self._listers.submit(self._guard, call, lambda: self._list(call))
        else:
            raise NO_ENDPOINT

    def _read(self, call: Call) -> dict[str, Any]:
        given = decode(call.raw)
        asked = given.get("model")
        call.stats.asked = asked if isinstance(asked, str) else ""
        return given

    def _serve(self, call: Call, backend: Backend, action: Action) -> None:
        """Runs an action when the way to the engine is known: here if the engine takes one request at a time."""
        names = backend.embedding_names if call.endpoint == EMBEDDINGS else backend.names
        call.stats.model = next(iter(names), UNKNOWN)
        call.stats.engine = backend.engine(embeds=call.endpoint == EMBEDDINGS)
        # Before the look at its state: whoever unloads the model sees this call, or this call sees that.
        call.backend = backend
        backend.check()
        connection = backend.connect()
        if backend.may_take_turns:
            connection.result()  # what engine it is decides which thread serves the call
        if backend.writer is not None and not backend.writer.transport.concurrent:
            self._begin(call, connection, action)
            return
        pool = backend.pools.embed if call.endpoint == EMBEDDINGS else backend.pools.submit
        connection.add_done_callback(lambda found: pool.submit(self._begin, call, found, action))

    def _begin(self, call: Call, connection: Future[Served], action: Action) -> None:
        call.stats.began = time.monotonic()
        # Asking Triton takes a message to it and back.
        if call.stats.began - call.stats.started > WAITED and call.has_gone():
            call.stats.cancelled = True
            call.fail(GONE)
        elif call.alive():
            self._guard(call, lambda: action(connection.result()))

    # --- What is done for it -----------------------------------------------------------------------------------------

    def _generate(self, call: Call, given: dict[str, Any], target: Target, served: Served) -> None:
        writer = served.writer
        assert writer is not None
        if not writer.transport.ready:
            raise engine_errors.from_message(SILENT)
        given = given if target.name is None else given | {"model": target.name}
        generation = prepare(call.endpoint, given, writer.model, seed=secrets.randbits(63))
        name = identity(generation, writer.fingerprint)
        call.answer = Answer(generation, writer.model.tokenizer, writer.vocabulary, name, writer.stream_interval)
        if writer.transport.silent_until_token:
            call.opens_after = OPENS_AFTER
        adapter = writer.model.adapter(target.adapter)
        asked = submissions(generation, writer.model.tokenizer.vocab_size, adapter)
        call.stats.submitted = time.monotonic()
        if generation.guide is not None and writer.transport.concurrent:
            served.pools.guided.submit(self._guard, call, lambda: writer.transport.submit(asked, call))
        else:
            writer.transport.submit(asked, call)

    def _tell(self, call: Call, given: dict[str, Any], target: Target, served: Served) -> None:
        assert served.writer is not None
        served.writer.model.adapter(target.adapter)
        call.reply(BODIES[call.endpoint](given, served.writer.model))

    def _list(self, call: Call) -> None:
        entries = self._directory.listed()
        if call.endpoint == MODELS:
            call.reply(listing.listing(entries))
        else:
            call.reply(listing.single(entries, call.endpoint[len(ONE_MODEL) :]))

    def _tell_health(self, call: Call) -> None:
        """Ready is who gets a token from every model that clients can have."""
        if self._admission.draining:
            raise DRAINING
        writers = [backend for backend in self._directory.loaded if backend.writes]
        quorum = Quorum(len(writers), lambda works: call.reply(READY) if works else call.fail(NOT_READY))
        for backend in writers:
            connection = backend.connect()
            if backend.may_take_turns:
                connection.result()
            if backend.writer is not None:
                backend.writer.health.ask(quorum.hear)
            else:  # not asked so far, or not there; the next question may find it
                quorum.hear(False)

    def _embed(self, call: Call, given: dict[str, Any], served: Served) -> None:
        """Has the first batches computed; each makes room for the next one, so that requests take turns."""
        assert served.embedder is not None
        asked = embeddings.prepare(given, served.embedder.model, served.embedder.size)
        call.stats.prompt_tokens = asked.tokens
        call.stats.submitted = time.monotonic()
        job = Job(asked, served.embedder, call.id)
        if served.writer is not None and not served.writer.transport.concurrent:
            while job.waits and call.alive():
                self._advance(call, job)
            return
        for _ in range(job.parallel):
            served.pools.embed.submit(self._take_turn, call, job, served.pools.embed)

    def _take_turn(self, call: Call, job: Job, pool: ThreadPoolExecutor) -> None:
        if call.alive():
            self._guard(call, lambda: self._advance(call, job))
            if job.waits:
                pool.submit(self._take_turn, call, job, pool)

    def _advance(self, call: Call, job: Job) -> None:
        vectors = job.step()
        if vectors is None:
            call.begin()
        else:
            call.reply(embeddings.answer(job.asked, vectors))


def identity(generation: Generation, fingerprint: str) -> Identity:
    prefix = shapes.shape_of(chat=generation.chat).id_prefix
    return Identity(prefix + uuid.uuid4().hex, int(time.time()), generation.model, fingerprint)
