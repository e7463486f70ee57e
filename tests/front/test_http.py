"""The way to an engine over HTTP, against a server that does what it is told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme

from postprocessing.events import Event, Status
from preprocessing.errors import OpenAIError
from preprocessing.generation import LogProbs
from preprocessing.tensors import Submission
from tests.front.test_reply import CHUNKED, SSE, chunked, response
from transports import http
from transports.address import Address
from transports.bls import EngineError
from transports.http import Declared, HttpTransport, body, carried, describe

SOON = 10.0
SCALAR = (-1, 1)
INPUTS = {
    "input_ids": Declared("INT32", (-1, -1)),
    "input_lengths": Declared("INT32", SCALAR),
    "request_output_len": Declared("INT32", SCALAR),
    "end_id": Declared("INT32", SCALAR),
    "stop_words_list": Declared("INT32", (-1, 2, -1)),
    "embedding_bias": Declared("FP32", (-1, -1)),
    "seed": Declared("UINT64", SCALAR),
    "guided_decoding_guide": Declared("BYTES", SCALAR),
    "num_return_sequences": Declared("INT32", SCALAR),
    "return_log_probs": Declared("BOOL", SCALAR),
    "return_generation_logits": Declared("BOOL", SCALAR),
    "return_context_logits": Declared("BOOL", SCALAR),
    "lora_weights": Declared("FP16", (-1, -1, -1)),
    "draft_logits": Declared("FP32", (-1, -1, -1)),
    "lora_config": Declared("INT32", (-1, -1, 3)),
}
Script = Callable[[socket.socket], None]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


class Far:
    """A server. Each request takes the next script, the last one again and again.

    Attributes:
        requests: JSON bodies, with the path under "path" and the headers under "head".
        connections: how many were opened.
        closed: how many were closed by the client.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts = list(scripts)
        self._tls = tls
        self.requests: list[dict[str, Any]] = []
        self.connections = self.closed = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def address(self) -> Address:
        scheme = "http" if self._tls is None else "https"
        return Address.parse(f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}")

    def close(self) -> None:
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return  # the client does not trust it
        with connection, connection.makefile("rb") as lines:
            try:
                while first := lines.readline():
                    head = [first, *iter(lines.readline, b"\r\n")]
                    size = next(int(line[15:]) for line in head if line.lower().startswith(b"content-length:"))
                    given = json.loads(lines.read(size) or b"{}")
                    self.requests.append(given | {"path": first.split()[1].decode(), "head": b"".join(head)})
                    script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                    script(connection)
            except OSError:
                pass
            self.closed += 1


def says(*pieces: bytes, close: bool = False) -> Script:
    def script(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.01)
        if close:
            connection.shutdown(socket.SHUT_RDWR)

    return script


def waits(hold: threading.Event) -> Script:
    def script(connection: socket.socket) -> None:
        hold.wait(SOON)

    return script


def event(**values: Any) -> bytes:
    content = b"data: %s\n\n" % json.dumps({"model_name": "tensorrt_llm", "model_version": "1"} | values).encode()
    return b"%x\r\n%s\r\n" % (len(content), content)


def token(number: int, **values: Any) -> bytes:
    return event(output_ids=number, sequence_length=1, **values)


HEAD = response(b"", SSE, CHUNKED)
LAST = b"0\r\n\r\n"
GOOD = says(HEAD + token(5), token(6) + LAST)


def refuses(status: str, text: str) -> Script:
    content = json.dumps({"error": text}).encode()
    return says(response(content, "Content-Type: application/json", f"Content-Length: {len(content)}", status=status))


class Ear:
    """A sink. Attributes: wants: how many events it takes. here: its client waits."""

    id = "r1"
    traceparent = ""

    def __init__(self, wants: int = 1000) -> None:
        self.events: list[Event] = []
        self.is_accepted = False
        self.wants = wants
        self.here = True

    def accepted(self) -> None:
        assert not self.events
        self.is_accepted = True

    def push(self, event: Event) -> bool:
        self.events.append(event)
        return len(self.events) < self.wants

    def alive(self) -> bool:
        return self.here

    look = alive

    @property
    def tokens(self) -> list[int]:
        return [each for event in self.events if event.status is Status.RUNNING for each in event.tokens]

    @property
    def statuses(self) -> list[Status]:
        return [event.status for event in self.events if event.status > Status.RUNNING]

    @property
    def error(self) -> str:
        return next(event.error for event in self.events if event.status is Status.ERROR)

    def heard(self, *statuses: Status) -> bool:
        return eventually(lambda: self.statuses == list(statuses))


def submission(
    *ids: int, max_tokens: int = 2, sequences: int = 1, log_probs: LogProbs | None = None, **further: Any
) -> Submission:
    prompt = list(ids) or [7, 8, 9]
    tensors = {"input_ids": [prompt], "input_lengths": [[len(prompt)]], "request_output_len": [[max_tokens]]}
    arrays = {name: np.array(value, np.int32) for name, value in tensors.items()}
    return Submission(arrays | further, max_tokens, sequences, len(prompt), log_probs)


Start = Callable[..., tuple[Far, HttpTransport]]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Any] = []

    def begin(*scripts: Script) -> tuple[Far, HttpTransport]:
        far = Far(*scripts)
        transport = HttpTransport(far.address, "tensorrt_llm", INPUTS, vocab_size=100)
        made.extend((far, transport))
        return far, transport

    yield begin
    for each in reversed(made):
        each.close()


def asked(transport: HttpTransport, *submissions: Submission, ear: Ear | None = None) -> Ear:
    ear = ear or Ear()
    transport.submit(submissions or [submission()], ear)
    return ear


def test_tokens_come_and_the_end_is_found_out(start: Start) -> None:
    far, transport = start(GOOD)
    ear = asked(transport)
    assert ear.heard(Status.LENGTH)
    assert ear.is_accepted and ear.tokens == [5, 6]
    assert far.requests[0]["path"] == "/v2/models/tensorrt_llm/generate_stream"
    assert {name: far.requests[0][name] for name in ("input_ids", "request_output_len")} == {
        "input_ids": [7, 8, 9],
        "request_output_len": [2],
    }
    assert time.monotonic() - transport.heard_at < SOON


def test_an_empty_last_response_is_the_end_token(start: Start) -> None:
    _, transport = start(says(HEAD + token(5) + event(output_ids=[], sequence_length=0) + LAST))
    ear = asked(transport, submission(max_tokens=9))
    assert ear.heard(Status.END_ID) and ear.tokens == [5]


def test_rows_are_cut_to_their_length(start: Start) -> None:
    _, transport = start(says(HEAD + event(output_ids=[5, 6, -1], sequence_length=2) + LAST))
    ear = asked(transport)
    assert ear.heard(Status.LENGTH) and ear.tokens == [5, 6]


def test_what_has_piled_up_goes_out_as_one_event(start: Start) -> None:
    _, transport = start(says(HEAD + b"".join(map(token, range(20))) + LAST))
    ear = asked(transport, submission(max_tokens=20))
    assert ear.heard(Status.LENGTH)
    assert [list(event.tokens) for event in ear.events] == [list(range(20)), []]


def test_connections_are_used_again(start: Start) -> None:
    far, transport = start(GOOD)
    for _ in range(5):
        assert asked(transport).heard(Status.LENGTH)
    assert (far.connections, len(far.requests)) == (1, 5)


def test_an_engine_is_told_of_the_trace(start: Start) -> None:
    far, transport = start(GOOD)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for traceparent in ("", trace):
        ear = Ear()
        ear.traceparent = traceparent
        assert asked(transport, ear=ear).heard(Status.LENGTH)
    without, with_it = (request["head"].split(b"\r\n") for request in far.requests)
    assert set(with_it) - set(without) == {f"traceparent: {trace}".encode()}


def test_many_requests_at_a_time(start: Start) -> None:
    gate = threading.Barrier(100, timeout=SOON)  # nobody is answered before all have asked

    def late(connection: socket.socket) -> None:
        gate.wait()
        GOOD(connection)

    _, transport = start(late)
    ears = [asked(transport) for _ in range(100)]
    assert all(ear.heard(Status.LENGTH) for ear in ears)


def test_an_unused_connection_is_closed_after_a_while(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    far, transport = start(GOOD)
    assert asked(transport).heard(Status.LENGTH)
    transport.sweep()
    monkeypatch.setattr("transports.connections.IDLE_SECONDS", 0.0)
    transport.sweep()
    assert eventually(lambda: far.closed == 1)
    assert asked(transport).heard(Status.LENGTH)


def test_a_connection_that_was_closed_over_there_is_no_error(start: Start) -> None:
    """The server closes it when the next request comes, as one does whose patience has just ended."""
    far, transport = start(GOOD, says(close=True), GOOD)
    assert asked(transport).heard(Status.LENGTH)
    ear = asked(transport)
    assert ear.heard(Status.LENGTH) and ear.tokens == [5, 6]
    assert (far.connections, len(far.requests)) == (2, 3)


def test_a_fresh_connection_that_is_closed_is_an_error(start: Start) -> None:
    far, transport = start(says(close=True))
    ear = asked(transport)
    assert ear.heard(Status.ERROR) and not ear.is_accepted
    assert "connection to the engine was lost" in ear.error
    assert len(far.requests) == 1


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (refuses("400 Bad Request", "Prompt length (9) exceeds maximum input length (5)"), "^Prompt length"),
        (says(response(chunked(b'data: {"error":"why"}\n\n', 99), SSE, CHUNKED, status="400 Bad Request")), "^why$"),
        (refuses("404 Not Found", "Request for unknown model: 'x' is not found"), "unknown model"),
        (refuses("503 Service Unavailable", "busy"), "engine is not ready: busy"),
        (says(response(b"<html>", "Content-Length: 6", status="502 Bad Gateway")), "is not ready: HTTP status 502"),
        (says(response(b"<html>", "Content-Length: 6", "Content-Type: text/html")), "no stream of events"),
        (says(response(LAST, SSE, CHUNKED)), "without a response"),
        (says(HEAD, event(error="why")), "^why$"),
        (says(b"\x15\x03\x01\x00"), "cannot be read: no HTTP response"),
        (says(HEAD + b"zz\r\n"), "cannot be read"),
        (says(HEAD + b"5\r\ndata:", close=True), "lost"),
    ],
)
def test_what_fails_before_a_token_is_a_refusal(start: Start, script: Script, told: str) -> None:
    _, transport = start(script, GOOD)
    ear = asked(transport)
    assert ear.heard(Status.ERROR)
    assert not ear.is_accepted and ear.tokens == []
    with pytest.raises(EngineError, match=told):
        raise EngineError(ear.error)
    assert asked(transport).heard(Status.LENGTH)  # the next request finds its way


@pytest.mark.parametrize(
    "rest",
    [
        says(close=True),
        says(event(error="it broke") + LAST),
        says(event(output_ids="five", sequence_length=1)),
        says(b"4\r\n\xff\xfe\n\n\r\n" + b"9\r\ndata: {\n\n\r\n"),
        says(b"not a size\r\n"),
    ],
)
def test_what_fails_later_is_told_once(start: Start, rest: Script) -> None:
    def script(connection: socket.socket) -> None:
        says(HEAD + token(5))(connection)
        rest(connection)

    _, transport = start(script, GOOD)
    ear = asked(transport, submission(max_tokens=9))
    assert ear.heard(Status.ERROR)
    assert ear.is_accepted and ear.tokens == [5]
    assert asked(transport).heard(Status.LENGTH)
    assert ear.statuses == [Status.ERROR]


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = Address.parse(f"http://user:secret@127.0.0.1:{gone.getsockname()[1]}")
    for where in (address, Address.parse("http://no.such.host.invalid:1"), Address.parse("http://a..b:1")):
        transport = HttpTransport(where, "m", INPUTS, vocab_size=100)
        ear = asked(transport)
        assert ear.heard(Status.ERROR) and not ear.is_accepted
        assert f"engine is not ready: no connection to {where}" in ear.error and "secret" not in ear.error
        with pytest.raises(EngineError, match="engine is not ready: no answer") as failure:
            describe(where, "m")
        assert "secret" not in str(failure.value)
        transport.close()


def test_slow_heads_are_waited_for(start: Start) -> None:
    _, transport = start(says(*(HEAD[at : at + 9] for at in range(0, len(HEAD), 9)), token(5) + token(6) + LAST))
    assert asked(transport).heard(Status.LENGTH)


def test_who_has_heard_enough_closes_the_connection(start: Start) -> None:
    far, transport = start(says(HEAD + token(5), *[token(6)] * 100, LAST), GOOD)
    ear = asked(transport, ear=Ear(wants=1))
    assert eventually(lambda: far.closed == 1)
    assert ear.tokens == [5]
    assert asked(transport).heard(Status.LENGTH)
    assert len(far.requests) == 2  # closing is enough: Triton writes, so it notices


def test_who_leaves_before_the_first_token_is_stopped_by_id(start: Start) -> None:
    hold = threading.Event()
    far, transport = start(waits(hold), says(HEAD + event() + LAST))
    ear = asked(transport)
    assert eventually(lambda: len(far.requests) == 1)
    transport.sweep()
    assert far.closed == 0
    ear.here = False
    transport.sweep()
    assert eventually(lambda: len(far.requests) == 2)
    assert far.requests[1]["stop"] == [True] and far.requests[1]["id"] == far.requests[0]["id"]
    assert {"input_ids", "input_lengths", "request_output_len"} <= set(far.requests[1])
    hold.set()
    assert eventually(lambda: far.closed >= 1) and ear.events == []


def test_a_stop_request_that_hangs_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    far, transport = start(waits(hold))
    ear = asked(transport)
    assert eventually(lambda: len(far.requests) == 1)
    ear.here = False
    transport.sweep()
    assert eventually(lambda: len(far.requests) == 2)
    monkeypatch.setattr(http, "STOP_SECONDS", 0.0)
    transport.sweep()
    hold.set()
    assert eventually(lambda: far.closed == 2)


def test_prompts_of_a_request_run_side_by_side(start: Start) -> None:
    far, transport = start(says(HEAD + token(5) + LAST))
    ear = asked(transport, *(submission(number, max_tokens=1) for number in range(1, 4)))
    assert ear.heard(*[Status.LENGTH] * 3)
    assert sorted(event.prompt for event in ear.events if event.tokens) == [0, 1, 2]
    assert sorted(request["input_ids"][0] for request in far.requests) == [1, 2, 3]


def test_one_prompt_that_fails_ends_the_request(start: Start) -> None:
    hold = threading.Event()
    far, transport = start(waits(hold), refuses("400 Bad Request", "why"), GOOD)
    ear = asked(transport, submission(1), submission(2))
    assert ear.heard(Status.ERROR) and not ear.is_accepted
    assert eventually(lambda: len(far.requests) == 3 and "stop" in far.requests[2])
    hold.set()
    assert eventually(lambda: far.closed >= 1) and ear.statuses == [Status.ERROR]


def test_sequences_and_log_probs(start: Start) -> None:
    """The engine repeats the log probs of all tokens; logits are of the new ones."""
    logits = [0.0] * 99 + [1.0]
    script = says(
        HEAD
        + token(5, sequence_index=0, output_log_probs=-0.5, generation_logits=logits, context_logits=[0.0] * 300)
        + token(6, sequence_index=1, output_log_probs=-0.25, generation_logits=logits)
        + token(7, sequence_index=0, output_log_probs=[-0.5, -0.75], generation_logits=logits)
        + LAST
    )
    far, transport = start(script)
    ear = asked(transport, submission(sequences=2, log_probs=LogProbs(top=1, prompt=True, as_ids=False)))
    assert ear.heard(Status.LENGTH, Status.LENGTH)
    prompt, first, second = ear.events[:3]
    assert prompt.status is Status.PROMPT and prompt.log_probs == pytest.approx([-np.log(100)] * 2)
    assert (first.tokens, first.log_probs) == ([5, 7], [-0.5, -0.75])
    assert (second.sequence, second.tokens, second.log_probs) == (1, [6], [-0.25])
    assert [top[0][0] for top in first.top] == [99, 99]
    assert all(far.requests[0][name] == [True] for name in ("return_log_probs", "return_generation_logits"))


def test_prompts_whose_logits_are_too_long_are_refused(start: Start) -> None:
    far, transport = start(GOOD)
    echo = LogProbs(top=0, prompt=True, as_ids=False)
    with pytest.raises(OpenAIError, match="at most 27962 tokens") as refused:
        asked(transport, submission(*range(30_000), log_probs=echo))
    assert (refused.value.status, refused.value.param) == (400, "logprobs")
    assert far.requests == []


@pytest.mark.parametrize(
    ("tensor", "array", "param"),
    [
        ("bad_words_list", np.ones((1, 2, 3), np.int32), "bad_words"),  # not declared
        ("repetition_penalty", np.ones((1, 1), np.float32), "repetition_penalty"),
        ("min_tokens", np.ones((1, 1), np.int32), "min_tokens"),
        ("embedding_bias", np.ones((2, 3), np.float32), "logit_bias"),  # two dynamic dimensions
    ],
)
def test_what_cannot_be_carried_is_refused_by_the_name_of_its_field(
    start: Start, tensor: str, array: Any, param: str
) -> None:
    far, transport = start(GOOD)
    with pytest.raises(OpenAIError) as refused:
        asked(transport, submission(**{tensor: array}))
    assert (refused.value.status, refused.value.param) == (400, param)
    assert far.requests == []


def test_what_means_nothing_is_left_out(start: Start) -> None:
    far, transport = start(GOOD)
    assert asked(transport, submission(min_tokens=np.zeros((1, 1), np.int32))).heard(Status.LENGTH)
    assert "min_tokens" not in far.requests[0]


@pytest.mark.parametrize(
    ("tensor", "shape", "arrives"),
    [
        ("input_ids", (1, 9), True),
        ("input_ids", (2, 9), False),
        ("input_ids", (1, 0), False),
        ("end_id", (1, 1), True),
        ("end_id", (4, 1), True),
        ("stop_words_list", (1, 2, 5), True),
        ("stop_words_list", (2, 2, 5), False),
        ("lora_config", (1, 4, 3), True),
        ("lora_weights", (1, 1, 3), False),
        ("draft_logits", (1, 1, 9), True),
        ("draft_logits", (1, 2, 9), False),
    ],
)
def test_shapes_that_triton_finds_again(tensor: str, shape: tuple[int, ...], arrives: bool) -> None:
    assert carried(INPUTS[tensor], np.zeros(shape)) == arrives


def test_the_body_keeps_numbers_and_texts() -> None:
    tensors = {
        "seed": np.array([[2**64 - 1]], np.uint64),
        "guide": np.array([['{"é":"\n"}'.encode()]], np.object_),
        "flag": np.array([[True]]),
        "bias": np.array([[0.1, -100]], np.float32),
        "words": np.array([[[1, 2], [1, 2]]], np.int32).transpose(0, 2, 1),
    }
    found = json.loads(body(tensors, "r1"))
    assert found == {
        "id": "r1",
        "seed": [2**64 - 1],
        "guide": ['{"é":"\n"}'],
        "flag": [True],
        "bias": [pytest.approx(0.1), -100],
        "words": [1, 1, 2, 2],
    }
    assert np.float32(found["bias"][0]) == np.float32(0.1)


def metadata(*names: str) -> Script:
    inputs = [{"name": name, "datatype": "INT32", "shape": [-1, 1]} for name in names]
    content = json.dumps({"name": "tensorrt_llm", "inputs": inputs}).encode()
    return says(response(content, "Content-Type: application/json", f"Content-Length: {len(content)}"))


def test_an_engine_is_described_by_its_triton(start: Start) -> None:
    far, _ = start(metadata("input_ids", "end_id"))
    assert describe(far.address, "my model/1").inputs["end_id"] == Declared("INT32", (-1, 1))
    assert far.requests[0]["path"] == "/v2/models/my%20model%2F1"


def test_an_engine_with_sessions_says_more(start: Start) -> None:
    told = {"version": 1, "max_seq_len": 64, "checkpoint": "/there"}
    far, _ = start(metadata("input_ids", "session_command"), says(HEAD + event(session_texts=json.dumps(told)) + LAST))
    assert describe(far.address, "tensorrt_llm").about == told
    assert far.requests[1]["session_command"] == [0]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (refuses("404 Not Found", "Request for unknown model: 'x' is not found"), "unknown model"),
        (says(response(b"<html>", "Content-Length: 6")), "is no Triton server"),
        (says(response(b"[1]", "Content-Length: 3")), "not that of a Triton server"),
        (says(b"\x15\x03\x01\x00", close=True), "no answer"),
    ],
)
def test_a_wrong_address_is_told(start: Start, script: Script, told: str) -> None:
    far, _ = start(script)
    with pytest.raises(EngineError, match=told):
        describe(far.address, "tensorrt_llm")


def test_an_address_that_hangs_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.1)
    hold = threading.Event()
    far, _ = start(waits(hold))
    with pytest.raises(EngineError, match="no answer"):
        describe(far.address, "tensorrt_llm")
    hold.set()


def test_an_engine_that_takes_text_is_no_engine_for_this(start: Start) -> None:
    far, _ = start(metadata("text_input", "sampling_param_max_tokens"))
    with pytest.raises(OpenAIError, match="takes text") as refused:
        describe(far.address, "tensorrt_llm")
    assert refused.value.status == 503


@pytest.mark.parametrize(
    ("url", "netloc", "path"),
    [
        ("http://host", "host:80", ""),
        ("https://host/", "host:443", ""),
        ("http://10.0.0.5:8000", "10.0.0.5:8000", ""),
        ("http://[::1]:8000/a/b/", "[::1]:8000", "/a/b"),
    ],
)
def test_addresses(url: str, netloc: str, path: str) -> None:
    address = Address.parse(url)
    assert (address.netloc, address.path, address.headers()["Host"]) == (netloc, path, netloc)
    assert (address.tls() is not None) == url.startswith("https")
    assert "Authorization" not in address.headers()


@pytest.mark.parametrize(
    "url",
    ["", "h:8000", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://h?x", "http://h#x", "http://h\nX: 1",
     "http://a b", "http://é"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="no address|wanted http"):
        Address.parse(url)


def test_a_password_is_sent_and_never_shown(start: Start) -> None:
    far, _ = start(metadata("input_ids"))
    netloc = far.address.netloc
    address = Address.parse(f"http://us%3Aer:p%40ss@{netloc}")
    describe(address, "m")
    assert b"Authorization: Basic dXM6ZXI6cEBzcw==" in far.requests[0]["head"]
    assert str(address) == repr(address) == f"http://{netloc}"


def test_a_setting_with_a_password_is_not_shown_either() -> None:
    from model_settings import ModelSettings

    assert ModelSettings.read({"engine_url": "http://h:1"}).engine_url == Address("http", "h", 1)
    with pytest.raises(ValueError, match="parameter engine_url: wanted") as refused:
        ModelSettings.read({"engine_url": "ftp://me:secret@host"})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("trusted", [True, False])
def test_tls(trusted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    far = Far(metadata("input_ids"), GOOD, tls=server)
    transport = HttpTransport(far.address, "m", INPUTS, vocab_size=100)
    if trusted:
        assert "input_ids" in describe(far.address, "m").inputs
        ear = asked(transport)
        assert ear.heard(Status.LENGTH) and ear.tokens == [5, 6]
    else:
        with pytest.raises(EngineError, match="engine is not ready: .*CERTIFICATE_VERIFY_FAILED"):
            describe(far.address, "m")
        ear = asked(transport)
        assert ear.heard(Status.ERROR) and "engine is not ready" in ear.error
    transport.close()
    far.close()
