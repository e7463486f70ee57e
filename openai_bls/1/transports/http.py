"""The standard contract over HTTP: Triton's generate_stream, of the same Triton or of another one.

For engines without sessions: an instance has hundreds of requests in flight, where BLS allows it one. One thread
brings all of them their tokens; what has piled up for a request goes out as one event. JSON carries numbers and texts,
in shapes that Triton finds out from the model's own (`carried`).
"""

from __future__ import annotations

import http.client
import json
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson

from postprocessing.events import Event, Status
from preprocessing.errors import Kind, OpenAIError
from preprocessing.tensors import Submission
from transports import Inputs, Sink
from transports.address import Address
from transports.bls import EngineError
from transports.connections import CONNECT_SECONDS, Connections
from transports.contract import UNREADABLE, Answers, is_neutral, log_prob_tensors, stop_inputs, unique_id, unsupported
from transports.outbox import merged_events
from transports.reply import MAX_LINE, Reply
from transports.session import Command, command

STREAM = "generate_stream"
ANY = -1  # a dimension of any size
STOP_SECONDS = 5.0  # that a stop request may take
# Statuses that say more of the way to the engine than of the request.
AWAY = (429, 502, 503, 504)
FLOAT_TEXT = 24  # bytes of a number in Triton's JSON, with its comma, at most
NO_JSON = ("FP16", "BF16")
TAKES_TEXT = OpenAIError(
    Kind.UNAVAILABLE, "The server's engine takes text. Such an engine has to be in the same Triton, without engine_url."
)


@dataclass(frozen=True)
class Declared:
    """An input of a Triton model: its data type and its shape with the batch dimension, -1 for any size."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """What a remote engine says of itself.

    Attributes:
        about: its answer to hello; empty if it does not know sessions.
    """

    inputs: Mapping[str, Declared]
    about: dict[str, Any]


def describe(address: Address, model: str) -> Description:
    """Asks an engine what it takes; waits for the answer.

    Raises:
        EngineError: it does not answer.
        OpenAIError: it is no token engine.
    """
    inputs = declared(ask(address, "GET", address.model_path(model)))
    if "input_ids" not in inputs:
        raise TAKES_TEXT
    if "session_command" not in inputs:
        return Description(inputs, {})
    hello = ask(address, "POST", address.model_path(model, STREAM), body(command(Command.HELLO, 0)))
    return Description(inputs, dict(json.loads(hello["session_texts"])))


def ask(address: Address, method: str, path: str, content: bytes = b"") -> Any:
    """The JSON object in an answer, or in its last event.

    Raises:
        EngineError: there is none.
    """
    context = address.tls()
    made = http.client.HTTPConnection if context is None else partial(http.client.HTTPSConnection, context=context)
    try:
        with closing(made(address.host, address.port, timeout=CONNECT_SECONDS)) as connection:
            connection.request(method, path, content, address.headers())
            answer = connection.getresponse()
            text = answer.read(MAX_LINE)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise EngineError(f"the engine is not ready: no answer from {address}: {error!r}") from error
    if answer.status != http.client.OK:
        raise EngineError(complaint(answer.status, text))
    try:
        return orjson.loads(text.strip().rpartition(b"\n\n")[2].removeprefix(b"data:"))
    except orjson.JSONDecodeError:
        raise EngineError(f"the engine is not ready: {address} is no Triton server") from None


class HttpTransport:
    """Many generations at a time, each a request to generate_stream.

    Args:
        model: its name in that Triton.
        inputs: what it declares.
        vocab_size: of the tokenizer, to know how large log probs are on their way.
    """

    form = "over HTTP"
    concurrent = True
    silent_until_token = True
    ready = True

    def __init__(self, address: Address, model: str, inputs: Mapping[str, Declared], vocab_size: int) -> None:
        self._inputs = inputs
        self._vocab_size = vocab_size
        self._connections = Connections(address, address.model_path(model, STREAM))
        self._live: set[Generation] = set()
        self._stops: deque[Stop] = deque()
        self.heard_at = float("-inf")

    def submit(self, submissions: Sequence[Submission], sink: Sink) -> None:
        """Sends all prompts and returns at once. What the engine refuses the sink hears as an event.

        Raises:
            OpenAIError: the way to the engine cannot carry something; the message names the field.
        """
        contents = [self._content(submission) for submission in submissions]
        request = Request(self, sink)
        for prompt, (submission, tensors) in enumerate(zip(submissions, contents, strict=True)):
            request.generations.append(Generation(request, prompt, submission, tensors))
        self._connections.run(lambda: self._begin(request.generations))

    def sweep(self) -> None:
        """Closes the connections of clients that have gone, and those that nobody uses."""
        self._connections.run(self._look)

    def close(self) -> None:
        self._connections.close()

    def _content(self, submission: Submission) -> Inputs:
        wanted = submission.log_probs
        places = submission.prompt_len if wanted is not None and wanted.prompt else 1
        if wanted is not None and places * self._vocab_size * FLOAT_TEXT > MAX_LINE:
            raise OpenAIError(
                Kind.INVALID,
                f"'logprobs' with 'echo' takes prompts of at most {MAX_LINE // self._vocab_size // FLOAT_TEXT} tokens "
                f"with this server's engine, but the request has {submission.prompt_len}.",
                "logprobs",
            )
        tensors = submission.tensors | log_prob_tensors(submission)[0]
        return {name: array for name, array in tensors.items() if self._takes(name, array)}

    def _takes(self, name: str, array: Any) -> bool:
        """Whether to send it. An input that is not declared Triton would take for something else, without a word."""
        known = self._inputs.get(name)
        if known is not None and carried(known, array):
            return True
        if is_neutral(name, array):
            return False
        raise unsupported(name)

    def _begin(self, generations: Sequence[Generation]) -> None:
        for generation in generations:
            self._live.add(generation)
            self._connections.send(generation)

    def end(self, generation: Generation, *, stop: bool) -> None:
        """Nothing more is to come, or wanted, of it. For generations, on their thread."""
        self._live.discard(generation)
        # Triton notices that a connection was closed when it writes to it: not before the first token.
        if self._connections.drop(generation) and stop and not generation.begun:
            stopping = Stop(generation.id)
            self._stops.append(stopping)
            self._connections.send(stopping)

    def _look(self) -> None:
        for generation in list(self._live):
            if not generation.request.sink.alive():
                self.end(generation, stop=True)
        limit = time.monotonic() - STOP_SECONDS
        while self._stops and self._stops[0].since < limit:
            self._connections.drop(self._stops.popleft())
        self._connections.sweep()


class Request:
    """One client's request: the generations of its prompts, which share a sink."""

    def __init__(self, transport: HttpTransport, sink: Sink) -> None:
        self.transport = transport
        self.sink = sink
        self.generations: list[Generation] = []
        self._accepted = False

    def push(self, event: Event) -> bool:
        if not self._accepted:
            self._accepted = True
            self.sink.accepted()
        return self.sink.push(event)

    def fail(self, reason: str, prompt: int) -> None:
        """Ends all of it. Before anything was heard that is a refusal; the sink knows what to make of it."""
        for generation in self.generations:
            self.transport.end(generation, stop=True)
        self.sink.push(Event((), Status.ERROR, prompt, error=reason))


class Generation:
    """What is sent for one prompt, and what comes back.

    Attributes:
        begun: the engine has answered.
    """

    def __init__(self, request: Request, prompt: int, submission: Submission, tensors: Inputs) -> None:
        self.request = request
        self.id = unique_id(request.sink.id)
        self.body = body(tensors, self.id)
        trace = request.sink.traceparent
        self.headers = f"traceparent: {trace}\r\n".encode() if trace else b""
        self.begun = False
        self._prompt = prompt
        self._answers = Answers(prompt, submission)

    def received(self, reply: Reply, found: list[bytes]) -> None:
        if reply.status != http.client.OK:
            self.failed(complaint(reply.status, b"".join(found)))
        elif not reply.streams:
            self.failed("the engine's answer cannot be read: it is no stream of events")
        elif not found and not self.begun:
            self.failed("the engine ended the request without a response")
        else:
            self.begun = True
            self._read(found, done=reply.done)

    def failed(self, reason: str) -> None:
        self.request.transport.end(self, stop=False)
        self.request.fail(reason, self._prompt)

    def _read(self, found: list[bytes], *, done: bool) -> None:
        events: list[Event] = []
        failure = ""
        try:
            for data in found:
                response = orjson.loads(data)
                if failure := response.get("error", ""):
                    break
                events += self._answers.events(new_tokens(response), partial(flat, response))
        except UNREADABLE as error:
            failure = f"a response of the engine cannot be read: {error!r}"
        if any(event.tokens for event in events):
            self.request.transport.heard_at = time.monotonic()
        if done and not failure:
            events += self._answers.ends()
        wanted = self._pass_on(events)
        if failure and wanted:
            self.failed(failure)
        elif done or not wanted:
            self.request.transport.end(self, stop=True)

    def _pass_on(self, events: list[Event]) -> bool:
        return all(self.request.push(event) for event in merged_events(events))


class Stop:
    """The contract's stop request. What becomes of it nobody needs to know."""

    headers = b""

    def __init__(self, request_id: str) -> None:
        self.since = time.monotonic()
        self.body = body(stop_inputs(), request_id)

    def received(self, reply: Reply, found: list[bytes]) -> None:
        """It has."""

    def failed(self, reason: str) -> None:
        """The engine is away, and its requests with it."""


def declared(metadata: Any) -> dict[str, Declared]:
    """The inputs in a model's metadata (Triton's model metadata extension).

    Raises:
        EngineError: this is something else.
    """
    try:
        return {each["name"]: Declared(each["datatype"], tuple(each["shape"])) for each in metadata["inputs"]}
    except UNREADABLE:
        raise EngineError("the engine is not ready: its address is not that of a Triton server") from None


def carried(known: Declared, array: Any) -> bool:
    """Whether an array arrives as it is. JSON has no shapes; Triton makes one of what the model declares: fixed
    dimensions first, the rest goes into the last free one, other free ones are 1 (2.51; also the newest source).
    """
    fixed = math.prod(size for size in known.shape if size != ANY)
    rest = array.size // fixed
    shape = []
    for size in reversed(known.shape):
        shape.append(rest if size == ANY else size)
        rest = 1 if size == ANY else rest
    return known.datatype not in NO_JSON and array.size > 0 and tuple(reversed(shape)) == array.shape


def body(tensors: Inputs, request_id: str = "") -> bytes:
    """A request to generate_stream, as JSON: every tensor flat."""
    values: dict[str, Any] = {"id": request_id} if request_id else {}
    for name, array in tensors.items():
        flattened = np.ascontiguousarray(array).reshape(-1)
        values[name] = [text.decode() for text in flattened] if array.dtype == np.object_ else flattened
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)


def complaint(status: int, content: bytes) -> str:
    """What is said in an answer that is an error."""
    try:
        told = str(orjson.loads(content.strip().removeprefix(b"data:"))["error"])
    except UNREADABLE:
        told = f"HTTP status {status}"
    return f"the engine is not ready: {told}" if status in AWAY else told


def new_tokens(response: dict[str, Any]) -> list[int]:
    """Triton writes an array of one element as that element."""
    ids = response.get("output_ids", [])
    if isinstance(ids, int):
        return [ids]
    if not isinstance(ids, list):
        raise TypeError("output_ids")
    return ids[: response["sequence_length"]] if ids else []


def flat(response: dict[str, Any], name: str) -> Any:
    """A tensor of numbers; None if the response does not have it."""
    value = response.get(name)
    return None if value is None else np.array(value, np.float32).reshape(-1)
