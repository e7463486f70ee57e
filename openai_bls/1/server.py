"""What happens to a call: understood by preprocessing, run by a transport, answered by postprocessing.

Which transport, which tokenizer and how long a context there is, is found out from the engine with the first call.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from admission import DRAINING, Admission
from call import INTERNAL_ERROR, Call
from embedder import Embedder, Job, own_embedding, shared_embedding
from health import Health
from postprocessing import engine_errors, reasoning, shapes
from postprocessing.answer import Answer
from postprocessing.reasoning import STYLES, Style
from postprocessing.shapes import Identity
from postprocessing.tool_calls import families
from postprocessing.tool_calls.families import FAMILIES, Family
from postprocessing.vocabulary import Vocabulary
from preprocessing import embeddings, listing, tokenization, tokenizer
from preprocessing.embeddings import EmbeddingModel
from preprocessing.errors import Kind, OpenAIError
from preprocessing.generation import Generation, prepare
from preprocessing.model import GUIDE_TYPES, Model
from preprocessing.sentences import Recipe
from preprocessing.tensors import submissions
from refusals import Refusals
from settings import Settings
from transports import Transport
from transports.bls import Engine, EngineError
from transports.llmapi import LlmapiTransport, recognised
from transports.session import SILENT, SessionTransport, hello
from transports.single import SingleTransport

# Threads that prepare and submit requests side by side; tokenizing runs outside Python's lock.
SUBMITTERS = 4
# Threads that submit requests with a constraint: the engine answers when it has compiled it, which may take seconds.
GUIDED_SUBMITTERS = 8
# Threads that wait for embeddings; batches of all requests take turns.
EMBEDDERS = 16
WATCH_INTERVAL = 0.25  # seconds between looks at the calls
# In the single form the engine's first news is a token. If that does not come soon, the answer begins without it: only
# so can a client be noticed that has gone. What the engine refuses it refuses at once.
OPENS_AFTER = 1.0
GENERATING = ("chat/completions", "completions")
EMBEDDINGS = "embeddings"
ONE_MODEL = "models/"
NO_EMBEDDINGS = OpenAIError(
    Kind.NOT_FOUND, "This server has no embedding model; its operator can set one up (parameter embedding_engine)."
)
GONE = OpenAIError(Kind.UNAVAILABLE, "The client has gone.")
# Endpoints whose answer needs no engine.
BODIES: dict[str, Callable[[bytes, Model], bytes]] = {
    "tokenize": tokenization.tokenize,
    "detokenize": tokenization.detokenize,
}


@dataclass(frozen=True)
class Served:
    """A model and the way to its engine, once both are known."""

    model: Model
    vocabulary: Vocabulary
    transport: Transport
    health: Health
    fingerprint: str
    embedder: Embedder | None

    @property
    def models(self) -> list[Model | EmbeddingModel]:
        return [self.model] if self.embedder is None else [self.model, self.embedder.model]


class Server:
    """Takes calls for as long as the Triton model lives.

    Raises:
        ValueError, OSError: the settings cannot work (the model then does not load).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = Engine(settings.engine)
        self._served: Served | None = None
        self._refusals = Refusals.of_this_server()
        self._admission = Admission(settings.max_requests, settings.drain_file)
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(SUBMITTERS, thread_name_prefix="submit")
        self._guided_pool = ThreadPoolExecutor(GUIDED_SUBMITTERS, thread_name_prefix="guided")
        self._embed_pool = ThreadPoolExecutor(EMBEDDERS, thread_name_prefix="embed")
        # A tokenizer that is named is loaded now, so that a wrong one shows when the model loads.
        folder = settings.tokenizer_dir
        self._tokenizer = tokenizer.load(folder, settings.chat_template) if folder else None
        self._embedding = own_embedding(settings.embedding, settings.limits.ignore_unknown)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def accept(self, request: Any) -> None:
        """Serves a Triton request: at once and to its end if the transport takes one at a time, else on a thread."""
        call = Call(request, self._refusals, self._settings.patience, self._admission.leave)
        if call.endpoint == "refusal":
            call.reply(self._refusals.take(call.raw.decode(errors="replace")) or b"{}")
            return
        served = self._connected(call)
        if served is None:
            return
        if call.endpoint == "health":
            self._tell_health(call, served)
        elif not served.transport.ready:
            call.fail(engine_errors.from_message(SILENT))
        elif (refusal := self._admission.enter(call)) is not None:
            call.fail(refusal)
        elif served.transport.concurrent:
            pool = self._embed_pool if call.endpoint == EMBEDDINGS else self._pool
            pool.submit(self._serve, call, served)
        else:
            call.opens_after = OPENS_AFTER
            self._serve(call, served)

    def close(self) -> None:
        """Ends what still runs with an error: nobody may wait for ever."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._guided_pool.shutdown(wait=False, cancel_futures=True)
        self._embed_pool.shutdown(wait=False, cancel_futures=True)
        for call in self._admission.calls:
            call.fail(DRAINING)
        if self._served is not None:
            self._served.health.close()
            self._served.transport.close()
        self._refusals.close()
        self._admission.close()

    def _tell_health(self, call: Call, served: Served) -> None:
        if self._admission.draining:
            call.fail(DRAINING)
        else:
            served.health.ask(call)

    def _watch(self) -> None:
        """Looks for clients that have gone and for calls that take too long; then the transport cancels those."""
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
        if self._served is not None:
            self._served.transport.sweep()

    def _connected(self, call: Call) -> Served | None:
        if self._served is None:
            self._guard(call, self._connect)
        return self._served

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

    def _connect(self) -> None:
        """Asks the engine what it is. Triton calls a model from one thread, so this happens once."""
        about = hello(self._engine)
        model = self._model(about or {})
        transport = self._transport(model, sessions=about is not None)
        health = Health(transport, model, self._settings.health_seconds)
        self._served = Served(
            model, Vocabulary(model.tokenizer.backend), transport, health, fingerprint(model), self._embedder(model)
        )
        pb_utils.Logger.log_info(
            f"openai_bls: serving '{model.name}' from '{self._settings.engine}', "
            f"{'one request per instance' if about is None else 'sessions'}, context {model.max_model_len} tokens"
        )

    def _transport(self, model: Model, *, sessions: bool) -> Transport:
        if sessions:
            return SessionTransport(self._engine)
        if recognised(self._engine):
            return LlmapiTransport(self._engine, model.tokenizer)
        return SingleTransport(self._engine)

    def _model(self, about: dict[str, Any]) -> Model:
        """What is configured, else what the engine says, else what the model's folder says."""
        folder = self._settings.tokenizer_dir or Path(about.get("checkpoint") or "")
        if self._tokenizer is None and not about.get("checkpoint"):
            pb_utils.Logger.log_error(
                "openai_bls: set the parameter tokenizer_dir: the engine does not say where it is"
            )
            raise OpenAIError(Kind.UNAVAILABLE, "The server has no tokenizer configured.")
        max_model_len = self._settings.max_model_len or about.get("max_seq_len") or tokenizer.max_positions(folder)
        if max_model_len is None:
            pb_utils.Logger.log_error(
                "openai_bls: set the parameter max_model_len: neither engine nor config.json says it"
            )
            raise OpenAIError(Kind.UNAVAILABLE, "The server has no context length configured.")
        loaded = self._tokenizer or tokenizer.load(folder, self._settings.chat_template)
        name = self._settings.served_model_name or folder.name
        # The folder's age, not the process's: the same for all instances and after a restart.
        created = int(folder.stat().st_mtime)
        return Model(
            name,
            loaded,
            max_model_len,
            created,
            self._settings.limits,
            guide_types=tuple(about.get("guide_types", GUIDE_TYPES)),
            tools=self._tools(loaded),
            reasoning=self._reasoning(loaded),
            reasoning_fields=self._settings.reasoning_fields,
        )

    def _embedder(self, model: Model) -> Embedder | None:
        """The way to the embeddings; without a model folder of their own they have the generating model's tokenizer."""
        settings = self._settings.embedding
        if settings is None:
            return None
        own, recipe = self._embedding or (shared_embedding(settings, model), Recipe(Path()))
        return Embedder(settings, own, recipe)

    def _tools(self, loaded: tokenizer.Tokenizer) -> Family | None:
        """How the model writes calls: as configured, else as its template shows, else as the server asks for them."""
        named = self._settings.tool_parser
        if named is not None:
            return FAMILIES.get(named)
        template = loaded.template
        knows = template.takes_tools or template.takes_calls
        return (families.recognise(template.source) if knows else None) or FAMILIES["json"]

    def _reasoning(self, loaded: tokenizer.Tokenizer) -> Style | None:
        named = self._settings.reasoning_parser
        return reasoning.recognise(loaded.template.source) if named is None else STYLES.get(named)

    def _serve(self, call: Call, served: Served) -> None:
        if call.is_cancelled():
            call.fail(GONE)
        elif call.alive():
            self._guard(call, lambda: self._route(call, served))

    def _route(self, call: Call, served: Served) -> None:
        if call.endpoint in GENERATING:
            self._generate(call, served)
        elif render := BODIES.get(call.endpoint):
            call.reply(render(call.raw, served.model))
        elif call.endpoint == EMBEDDINGS:
            self._embed(call, served)
        elif call.endpoint == "models":
            call.reply(listing.listing(served.models))
        elif call.endpoint.startswith(ONE_MODEL):
            call.reply(listing.single(served.models, call.endpoint[len(ONE_MODEL) :]))
        else:
            raise OpenAIError(Kind.NOT_FOUND, "There is no such endpoint.")

    def _generate(self, call: Call, served: Served) -> None:
        generation = prepare(call.endpoint, call.raw, served.model, seed=secrets.randbits(63))
        name = identity(generation, served.fingerprint)
        call.answer = Answer(generation, served.model.tokenizer, served.vocabulary, name)
        asked = submissions(generation, served.model.tokenizer.vocab_size)
        if generation.guide is not None and served.transport.concurrent:
            self._guided_pool.submit(self._guard, call, lambda: served.transport.submit(asked, call))
        else:
            served.transport.submit(asked, call)

    def _embed(self, call: Call, served: Served) -> None:
        """Has the first batches computed; each makes room for the next one, so that requests take turns."""
        if served.embedder is None:
            raise NO_EMBEDDINGS
        asked = embeddings.prepare(call.raw, served.embedder.model, served.embedder.size)
        job = Job(asked, served.embedder)
        if not served.transport.concurrent:
            while job.waits and call.alive():
                self._advance(call, job)
            return
        for _ in range(job.parallel):
            self._embed_pool.submit(self._take_turn, call, job)

    def _take_turn(self, call: Call, job: Job) -> None:
        if call.alive():
            self._guard(call, lambda: self._advance(call, job))
            if job.waits:
                self._embed_pool.submit(self._take_turn, call, job)

    def _advance(self, call: Call, job: Job) -> None:
        vectors = job.step()
        if vectors is None:
            call.begin()
        else:
            call.reply(embeddings.answer(job.asked, vectors))


def identity(generation: Generation, fingerprint: str) -> Identity:
    prefix = shapes.shape_of(chat=generation.chat).id_prefix
    return Identity(prefix + uuid.uuid4().hex, int(time.time()), generation.model, fingerprint)


def fingerprint(model: Model) -> str:
    """Names what answers depend on besides the request."""
    told = f"{model.name} {model.max_model_len} {model.tokenizer.vocab_size}"
    return "fp_" + hashlib.sha256(told.encode()).hexdigest()[:10]
