"""What happens to a call: understood by preprocessing, run by a transport, answered by postprocessing.

Which transport, which tokenizer and how long a context there is, is found out from the engine with the first call.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from call import INTERNAL_ERROR, Call
from postprocessing import engine_errors, reasoning, shapes
from postprocessing.answer import Answer
from postprocessing.reasoning import STYLES, Style
from postprocessing.shapes import Identity
from postprocessing.tool_calls import families
from postprocessing.tool_calls.families import FAMILIES, Family
from postprocessing.vocabulary import Vocabulary
from preprocessing import listing, tokenization, tokenizer
from preprocessing.errors import Kind, OpenAIError
from preprocessing.generation import Generation, prepare
from preprocessing.model import GUIDE_TYPES, Model
from preprocessing.tensors import submissions
from refusals import Refusals
from settings import Settings
from transports import Transport
from transports.bls import Engine, EngineError
from transports.session import SILENT, SessionTransport, hello
from transports.single import SingleTransport

# Threads that prepare and submit requests side by side; tokenizing runs outside Python's lock.
SUBMITTERS = 4
GENERATING = ("chat/completions", "completions")
ONE_MODEL = "models/"
GONE = OpenAIError(Kind.UNAVAILABLE, "The client has gone.")
# Endpoints whose answer needs no engine.
BODIES: dict[str, Callable[[bytes, Model], bytes]] = {
    "models": lambda raw, model: listing.listing(model),
    "tokenize": tokenization.tokenize,
    "detokenize": tokenization.detokenize,
}


@dataclass(frozen=True)
class Served:
    """A model and the way to its engine, once both are known."""

    model: Model
    vocabulary: Vocabulary
    transport: Transport
    fingerprint: str


class Server:
    """Takes calls for as long as the Triton model lives.

    Raises:
        ValueError: the settings cannot work (the model then does not load).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine = Engine(settings.engine)
        self._served: Served | None = None
        self._refusals = Refusals.of_this_server()
        self._pool = ThreadPoolExecutor(SUBMITTERS, thread_name_prefix="submit")
        # A tokenizer that is named is loaded now, so that a wrong one shows when the model loads.
        folder = settings.tokenizer_dir
        self._tokenizer = tokenizer.load(folder, settings.chat_template) if folder else None

    def accept(self, request: Any) -> None:
        """Serves a Triton request: at once and to its end if the transport takes one at a time, else on a thread."""
        call = Call(request, self._refusals)
        if call.endpoint == "refusal":
            call.reply(self._refusals.take(call.raw.decode(errors="replace")) or b"{}")
            return
        served = self._connected(call)
        if served is None:
            return
        if not served.transport.ready:
            call.fail(engine_errors.from_message(SILENT))
        elif served.transport.concurrent:
            self._pool.submit(self._serve, call, served)
        else:
            self._serve(call, served)

    def close(self) -> None:
        self._pool.shutdown(wait=False)
        if self._served is not None:
            self._served.transport.close()
        self._refusals.close()

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
        transport: Transport = SingleTransport(self._engine) if about is None else SessionTransport(self._engine)
        self._served = Served(model, Vocabulary(model.tokenizer.backend), transport, fingerprint(model))
        pb_utils.Logger.log_info(
            f"openai_bls: serving '{model.name}' from '{self._settings.engine}', "
            f"{'one request per instance' if about is None else 'sessions'}, context {model.max_model_len} tokens"
        )

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

    def _tools(self, loaded: tokenizer.Tokenizer) -> Family | None:
        """How the model writes calls: as configured, else as its template shows, else as the server asks for them."""
        named = self._settings.tool_parser
        if named is not None:
            return FAMILIES.get(named)
        return (loaded.template.takes_tools and families.recognise(loaded.template.source)) or FAMILIES["json"]

    def _reasoning(self, loaded: tokenizer.Tokenizer) -> Style | None:
        named = self._settings.reasoning_parser
        return reasoning.recognise(loaded.template.source) if named is None else STYLES.get(named)

    def _serve(self, call: Call, served: Served) -> None:
        if call.is_cancelled():
            call.fail(GONE)
        else:
            self._guard(call, lambda: self._route(call, served))

    def _route(self, call: Call, served: Served) -> None:
        if call.endpoint in GENERATING:
            self._generate(call, served)
        elif render := BODIES.get(call.endpoint):
            call.reply(render(call.raw, served.model))
        elif call.endpoint.startswith(ONE_MODEL):
            call.reply(listing.single(served.model, call.endpoint[len(ONE_MODEL) :]))
        else:
            raise OpenAIError(Kind.NOT_FOUND, "There is no such endpoint.")

    def _generate(self, call: Call, served: Served) -> None:
        generation = prepare(call.endpoint, call.raw, served.model, seed=secrets.randbits(63))
        name = identity(generation, served.fingerprint)
        call.answer = Answer(generation, served.model.tokenizer, served.vocabulary, name)
        served.transport.submit(submissions(generation, served.model.tokenizer.vocab_size), call)


def identity(generation: Generation, fingerprint: str) -> Identity:
    prefix = shapes.shape_of(chat=generation.chat).id_prefix
    return Identity(prefix + uuid.uuid4().hex, int(time.time()), generation.model, fingerprint)


def fingerprint(model: Model) -> str:
    """Names what answers depend on besides the request."""
    told = f"{model.name} {model.max_model_len} {model.tokenizer.vocab_size}"
    return "fp_" + hashlib.sha256(told.encode()).hexdigest()[:10]
