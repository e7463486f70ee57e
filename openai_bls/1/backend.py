"""A served model: what clients call it, and the way to its engine, which is found out when it is first needed."""

from __future__ import annotations

import gc
import hashlib
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

import adapters
from embedder import Embedder, own_embedding, shared_embedding
from health import Health
from model_settings import AUTO, ModelSettings
from postprocessing import reasoning
from postprocessing.reasoning import STYLES, Style
from postprocessing.tool_calls import families
from postprocessing.tool_calls.families import FAMILIES, Family
from postprocessing.vocabulary import Vocabulary
from preprocessing import tokenizer
from preprocessing.errors import Kind, OpenAIError, model_not_found
from preprocessing.listing import Listed
from preprocessing.lora import Adapter
from preprocessing.model import GUIDE_TYPES, Model
from preprocessing.sentences import Recipe
from preprocessing.tokenizer import Tokenizer
from transports import Transport
from transports.bls import Engine
from transports.http import HttpTransport, describe
from transports.llmapi import LlmapiTransport, recognised
from transports.session import SessionTransport, hello
from transports.single import SingleTransport

# Threads that prepare and submit requests side by side; tokenizing runs outside Python's lock.
SUBMITTERS = 4
# Threads that submit requests with a constraint: the engine answers when it has compiled it, which may take seconds.
GUIDED_SUBMITTERS = 8
# Threads that wait for embeddings; batches of all requests take turns.
EMBEDDERS = 16


class State(Enum):
    """Whether clients can have a model."""

    LOADED = "loaded"
    LOADING = "loading"
    UNLOADING = "unloading"
    UNLOADED = "unloaded"


@dataclass(frozen=True)
class Writer:
    """A model that generates text and the way to its engine.

    Attributes:
        stream_interval: tokens in a chunk of a stream.
    """

    model: Model
    vocabulary: Vocabulary
    transport: Transport
    health: Health
    fingerprint: str
    stream_interval: int


class Pools:
    """A model's own threads, so that an engine that hangs keeps no other model's requests from running."""

    def __init__(self) -> None:
        self.submit = ThreadPoolExecutor(SUBMITTERS, thread_name_prefix="submit")
        self.guided = ThreadPoolExecutor(GUIDED_SUBMITTERS, thread_name_prefix="guided")
        self.embed = ThreadPoolExecutor(EMBEDDERS, thread_name_prefix="embed")

    def close(self) -> None:
        for pool in (self.submit, self.guided, self.embed):
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Served:
    """What a model can do: generate, make embeddings, or both."""

    pools: Pools
    writer: Writer | None = None
    embedder: Embedder | None = None


class Backend:
    """One model of the configuration.

    Args:
        health_seconds: for which a token proves that the engine works.
        alone: no other model is served.

    Attributes:
        state: changed by whoever loads and unloads.
        names: what clients may call the model that generates, its own name first; empty until the engine has said it.
        embedding_names: the same for the model that makes embeddings.
        asked_at: when the engine was first asked what it is, on the monotonic clock; before that 0.

    Raises:
        ValueError, OSError: the settings cannot work.
    """

    def __init__(self, settings: ModelSettings, health_seconds: float, *, alone: bool) -> None:
        self.settings = settings
        self.state = State.LOADED if settings.loaded else State.UNLOADED
        self.asked_at = 0.0
        self.pools = Pools()
        self._health_seconds = health_seconds
        self._alone = alone
        self._created = int(time.time())
        self._lock = threading.Lock()
        self._connection: Future[Served] | None = None
        self.names, self.embedding_names = settings.names if self.writes else (), settings.embedding_names
        # A tokenizer that is named is loaded now, so that a wrong one shows when the model loads.
        folder = settings.tokenizer_dir
        self._tokenizer = tokenizer.load(folder, settings.chat_template) if folder else None
        self._embedding = own_embedding(settings.embedding, settings.limits.ignore_unknown)
        self._adapters = {} if settings.lora is None else adapters.load(settings.lora)

    @property
    def served(self) -> Served | None:
        """None: the engine has not been asked, or has not answered yet."""
        found = self._connection
        return found.result() if found is not None and found.done() and found.exception() is None else None

    @property
    def writer(self) -> Writer | None:
        return None if self.served is None else self.served.writer

    @property
    def writes(self) -> bool:
        return self.settings.engine is not None

    @property
    def engines(self) -> tuple[str, ...]:
        """The models of this Triton that it needs."""
        own = self.settings.engine if self.settings.engine_url is None else None
        embedding = None if self.settings.embedding is None else self.settings.embedding.engine
        return tuple(name for name in (own, embedding) if name is not None)

    @property
    def adapter_names(self) -> list[str]:
        """What clients may call its LoRA adapters, as far as they are known."""
        known = self.writer.model.adapters if self.writer else self._adapters
        return [f"{name}{self.settings.lora_separator}{adapter}" for name in self.names[:1] for adapter in known]

    @property
    def may_take_turns(self) -> bool:
        """Whether the engine may be one that takes a request at a time, on the thread that brings it."""
        return self._alone and self.settings.engine_url is None

    @property
    def named(self) -> bool:
        """Whether its names are known."""
        return bool(self.names or not self.writes)

    def engine(self, *, embeds: bool) -> str:
        """The Triton model that makes embeddings, or the one that writes."""
        embedding = self.settings.embedding
        return embedding.engine if embeds and embedding is not None else self.settings.engine or ""

    def check(self) -> None:
        """Raises OpenAIError if clients cannot have the model now."""
        name = (*self.names, *self.embedding_names)[0]
        if self.state is State.LOADING:
            raise OpenAIError(Kind.UNAVAILABLE, f"The model '{name}' is being loaded. Try again later.")
        if self.state is not State.LOADED:
            raise model_not_found(name)

    def listed(self) -> list[Listed]:
        """An entry for each name."""
        served = self.served or Served(self.pools)
        model = served.writer.model if served.writer else None
        embedding = served.embedder.model if served.embedder else None
        entries = [
            Listed(name, known.created if known else self._created, None if name == names[0] else names[0],
                   known.max_model_len if known else None)
            for names, known in ((self.names, model), (self.embedding_names, embedding))
            for name in names
        ]  # fmt: skip
        return entries + [
            replace(entries[0], name=adapter, root=entries[0].name, parent=entries[0].name)
            for adapter in self.adapter_names
        ]

    def connect(self) -> Future[Served]:
        """The way to the engine, as soon as it is known; never waits. What was tried in vain is tried again.

        The result raises OpenAIError or EngineError if there is no way.
        """
        with self._lock:
            found = self._connection
            if found is None or (found.done() and found.exception() is not None):
                found = self._connection = Future()
                self.asked_at = self.asked_at or time.monotonic()
                # On a thread of its own: an engine whose process has died never answers.
                threading.Thread(target=self._connect, args=(found,), name="connect", daemon=True).start()
            return found

    def disconnect(self) -> None:
        """Forgets the engine; what still runs there gets no more news."""
        with self._lock:
            found, self._connection = self._connection, None
        if found is not None:
            found.add_done_callback(close)

    def close(self) -> None:
        self.pools.close()
        self.disconnect()

    def _connect(self, connection: Future[Served]) -> None:
        try:
            writer = None if self.settings.engine is None else self._writer(self.settings.engine)
            embedder = self._embedder(writer)
            if writer is not None:
                self.names = (writer.model.name, *self.settings.aliases)
            if embedder is not None and writer is not None:
                self.embedding_names = (embedder.model.name,)
            # What has been imported and read stays: looking through all of it for garbage would stop every stream for
            # 50 ms and more.
            gc.collect()
            gc.freeze()
            connection.set_result(Served(self.pools, writer, embedder))
        except BaseException as error:
            connection.set_exception(error)

    def _writer(self, name: str) -> Writer:
        """Asks the engine what it is."""
        model, transport = self._local(name) if self.settings.engine_url is None else self._remote(name)
        health = Health(transport, model, self._health_seconds)
        pb_utils.Logger.log_info(
            f"openai_bls: serving '{model.name}' from '{name}', {transport.form}, context {model.max_model_len} tokens"
        )
        vocabulary = Vocabulary(model.tokenizer.backend)
        return Writer(model, vocabulary, transport, health, fingerprint(model), self.settings.stream_interval)

    def _local(self, name: str) -> tuple[Model, Transport]:
        engine = Engine(name)
        about = hello(engine)
        model = self._model(about or {})
        return model, self._transport(engine, model, sessions=about is not None)

    def _remote(self, name: str) -> tuple[Model, Transport]:
        address = self.settings.engine_url
        assert address is not None
        remote = describe(address, name)
        # The folder that a remote engine names may not exist here.
        here = Path(remote.about.get("checkpoint") or "").is_dir()
        model = self._model(remote.about if here else remote.about | {"checkpoint": None})
        return model, HttpTransport(address, name, remote.inputs, model.tokenizer.vocab_size)

    def _transport(self, engine: Engine, model: Model, *, sessions: bool) -> Transport:
        if sessions:
            return SessionTransport(engine)
        if not self._alone:
            # It would have to wait in a response iterator beside the threads of other models: Triton deadlocks then.
            raise self._unusable(
                "it does not know sessions, so openai_bls can serve it over BLS as the only model only"
            )
        if recognised(engine):
            return LlmapiTransport(engine, model.tokenizer)
        return SingleTransport(engine)

    def _model(self, about: dict[str, Any]) -> Model:
        """What is configured, else what the engine says, else what the model's folder says."""
        settings = self.settings
        folder = settings.tokenizer_dir or Path(about.get("checkpoint") or "")
        if self._tokenizer is None and not about.get("checkpoint"):
            raise self._unusable("it does not say where its tokenizer is, so tokenizer_dir must be set", "tokenizer")
        max_model_len = settings.max_model_len or about.get("max_seq_len") or tokenizer.max_positions(folder)
        if max_model_len is None:
            raise self._unusable("neither it nor config.json says max_model_len, so that must be set", "context length")
        loaded = self._tokenizer or tokenizer.load(folder, settings.chat_template)
        return Model(
            settings.served_model_name or folder.name,
            loaded,
            max_model_len,
            # The folder's age, not the process's: the same for all instances and after a restart.
            int(folder.stat().st_mtime),
            settings.limits,
            guide_types=tuple(about.get("guide_types", GUIDE_TYPES)),
            tools=tools_of(settings, loaded),
            reasoning=reasoning_of(settings, loaded),
            reasoning_fields=settings.reasoning_fields,
            adapters=self._adapters | engines_own(about),
        )

    def _embedder(self, writer: Writer | None) -> Embedder | None:
        """The way to the embeddings; without a model folder of their own they have the generating model's tokenizer."""
        settings = self.settings.embedding
        if settings is None:
            return None
        if self._embedding is not None:
            return Embedder(settings, *self._embedding)
        assert writer is not None
        return Embedder(settings, shared_embedding(settings, writer.model), Recipe(Path()))

    def _unusable(self, why: str, lacks: str = "usable engine") -> OpenAIError:
        pb_utils.Logger.log_error(f"openai_bls: the engine '{self.settings.engine}' cannot be used: {why}")
        return OpenAIError(Kind.UNAVAILABLE, f"The server has no {lacks} configured.")


def close(connection: Future[Served]) -> None:
    """Stops the threads that a connection has, if it came about."""
    writer = None if connection.exception() else connection.result().writer
    if writer is not None:
        writer.health.close()
        writer.transport.close()


def engines_own(about: dict[str, Any]) -> dict[str, Adapter]:
    """The LoRA adapters that the engine has by itself."""
    return {name: Adapter(name, task_id) for name, task_id in about.get("lora_adapters", {}).items()}


def tools_of(settings: ModelSettings, loaded: Tokenizer) -> Family | None:
    """How the model writes calls: as configured, else as its template shows, else as the server asks for them."""
    if settings.tool_parser != AUTO:
        return FAMILIES.get(settings.tool_parser)
    template = loaded.template
    knows = template.takes_tools or template.takes_calls
    return (families.recognise(template.source) if knows else None) or FAMILIES["json"]


def reasoning_of(settings: ModelSettings, loaded: Tokenizer) -> Style | None:
    if settings.reasoning_parser != AUTO:
        return STYLES.get(settings.reasoning_parser)
    return reasoning.recognise(loaded.template.source)


def fingerprint(model: Model) -> str:
    """Names what answers depend on besides the request."""
    told = f"{model.name} {model.max_model_len} {model.tokenizer.vocab_size}"
    return "fp_" + hashlib.sha256(told.encode()).hexdigest()[:10]
