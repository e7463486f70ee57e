"""Several models in one server, without Triton: which request reaches which engine, and what the list says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from postprocessing.events import Event, Status
from tests.core import vocabularies
from tests.front.conftest import Request, TritonError

SOON = 60.0


class Triton:
    """Engines by name: what they say of themselves (None: they know no sessions), or why they do not answer.

    Attributes:
        loaded: those that are there; `load` and `unload` change it.
        held: while it is set, engines take requests but do not answer them.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.loaded = set(about)
        self.held = threading.Event()
        self.asked: list[str] = []

    def hello(self, engine: Any) -> Any:
        from transports.bls import EngineError

        name = engine._model
        if name not in self.loaded or isinstance(self.about[name], Exception):
            raise EngineError(f"the engine is not ready: {name}")
        return self.about[name]

    def transport(self, engine: Any) -> Any:
        return Transport(self, engine._model)

    def load_model(self, model_name: str) -> None:
        if model_name == "broken":
            raise RuntimeError("failed to poll from model repository /secret")
        self.loaded.add(model_name)

    def unload_model(self, model_name: str) -> None:
        self.loaded.remove(model_name)

    def is_model_ready(self, model_name: str) -> bool:
        return model_name in self.loaded


class Transport:
    form = "scripted"
    concurrent = True

    ready = True
    heard_at = float("-inf")
    silent_until_token = False
    form = "sessions"

    def __init__(self, triton: Triton, name: str) -> None:
        self.triton, self.name, self.closed = triton, name, False

    def submit(self, submissions: Sequence[Any], sink: Any) -> None:
        assert not self.closed and self.name in self.triton.loaded
        self.triton.asked.append(self.name)
        sink.accepted()
        if not self.triton.held.is_set():
            sink.push(Event((5,), Status.LENGTH))

    def sweep(self) -> None: ...

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "byte-level"
    fast = PreTrainedTokenizerFast(
        tokenizer_object=vocabularies.tokenizer("byte-level"),
        eos_token="<|end|>",
        chat_template=vocabularies.CHAT_TEMPLATE,
    )
    fast.save_pretrained(path)
    return path


Start = Callable[..., Any]


@pytest.fixture
def start(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a server for the entries of a models file; its Triton has the engines that are named."""
    import triton_python_backend_utils as pb_utils

    import backend
    from server import Server
    from settings import Settings

    made: list[Any] = []

    def begin(*entries: dict[str, Any], engines: dict[str, Any] | None = None, **parameters: str) -> Any:
        about = {"checkpoint": str(folder), "max_seq_len": 100}
        triton = Triton(engines or {entry["engine"]: about for entry in entries if "engine" in entry})
        monkeypatch.setattr(backend, "hello", triton.hello)
        monkeypatch.setattr(backend, "SessionTransport", triton.transport)
        monkeypatch.setattr(backend, "recognised", lambda engine: False)
        for name in ("load_model", "unload_model", "is_model_ready"):
            monkeypatch.setattr(pb_utils, name, getattr(triton, name), raising=False)
        file = tmp_path / "models.json"
        file.write_text(json.dumps({"models": entries}))
        config = {name: {"string_value": value} for name, value in {"models_file": str(file), **parameters}.items()}
        args = {"model_config": json.dumps({"parameters": config}), "model_repository": str(tmp_path)}
        made.append(Server(Settings.read({**args, "model_name": "openai_bls"}), "openai_bls_0_0"))
        return Client(made[-1], triton)

    yield begin
    for each in made:
        each.close()


class Client:
    """Asks a server as Triton does; statuses are those that the model means."""

    def __init__(self, server: Any, triton: Triton) -> None:
        self.server, self.triton = server, triton

    def begin(self, endpoint: str, body: Any = None) -> Request:
        request = Request(
            {"endpoint": endpoint.encode(), "request": b"" if body is None else json.dumps(body).encode()}
        )
        self.server.accept(request)
        return request

    def ask(self, endpoint: str, body: Any = None) -> tuple[str, Any]:
        return answer_of(self.begin(endpoint, body))

    def complete(self, model: str) -> tuple[str, Any]:
        return self.ask("completions", {"model": model, "prompt": "hello", "max_tokens": 1})

    def names(self) -> list[str]:
        return [entry["id"] for entry in self.ask("models")[1]["data"]]

    def ready(self) -> bool:
        return self.ask("health")[0] == "OK"


def answer_of(request: Request) -> tuple[str, Any]:
    """Triton's code and the JSON of the answer."""
    assert eventually(lambda: request.sender.ended)
    last = next(each for each in reversed(request.sender.sent) if each)
    if isinstance(last, TritonError):
        return last.code, json.loads(str(last))
    return "OK", json.loads(last)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


A, B = {"id": "a", "engine": "one", "aliases": ["gpt", "default"]}, {"id": "b", "engine": "two"}


@pytest.mark.parametrize("log_requests", ["on", "off"])
def test_requests_are_in_tritons_log_if_that_is_wanted(
    start: Start, monkeypatch: pytest.MonkeyPatch, log_requests: str
) -> None:
    import triton_python_backend_utils as pb_utils

    written: list[str] = []
    monkeypatch.setattr(pb_utils.Logger, "log_info", written.append)
    client = start(A, log_requests=log_requests)
    client.ask("models")
    client.complete("none")
    client.ready()
    expected = {("r1", "models", 200, None, None), ("r1", "completions", 404, "model_not_found", "none")}

    def told() -> set[tuple[Any, ...]]:
        lines = [json.loads(line) for line in written if line.startswith("{")]
        return {tuple(line[name] for name in ("request_id", "endpoint", "status", "error", "model")) for line in lines}

    assert eventually(lambda: told() == (expected if log_requests == "on" else set()))


def test_each_name_reaches_its_engine_and_is_the_answers(start: Start) -> None:
    client = start(A, B)
    for name, engine in (("a", "one"), ("b", "two"), ("gpt", "one"), ("default", "one")):
        code, body = client.complete(name)
        assert (code, body["model"], client.triton.asked[-1]) == ("OK", name, engine)


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "tokenize", "detokenize"])
def test_a_name_that_nobody_has_is_404(start: Start, endpoint: str) -> None:
    client = start(A, B)
    code, body = client.ask(endpoint, {"model": "c"})
    assert (code, body["error"]["code"], body["error"]["param"]) == ("NOT_FOUND", "model_not_found", "model")
    assert client.ask("models/c")[0] == "NOT_FOUND"


def test_the_list_has_every_name(start: Start, folder: Path) -> None:
    client = start(A, {**B, "max_model_len": 50})
    first, alias, _, other = client.ask("models")[1]["data"]
    created = int(folder.stat().st_mtime)
    assert first == {"id": "a", "object": "model", "created": created, "owned_by": "openai_bls", "max_model_len": 100}
    assert alias == {**first, "id": "gpt", "root": "a"}
    assert (other["id"], other["max_model_len"]) == ("b", 50)
    assert client.ask("models/gpt")[1] == alias


def test_tokens_are_those_of_the_model_that_is_named(start: Start) -> None:
    client = start(A, {**B, "max_model_len": 50})
    assert client.ask("tokenize", {"model": "b", "prompt": "hello"})[1]["max_model_len"] == 50
    code, body = client.ask("tokenize", {"prompt": "hello"})
    assert code == "INVALID_ARG" and body["error"]["message"] == "Missing required field 'model'."
    assert client.ask("completions", {"model": 5, "prompt": "a"})[1]["error"]["param"] == "model"


@pytest.mark.parametrize("longer_first", [False, True])
def test_an_adapter_belongs_to_the_longest_name_before_it(start: Start, folder: Path, longer_first: bool) -> None:
    about = {"checkpoint": str(folder), "max_seq_len": 100}
    engines = {"one": {**about, "lora_adapters": {"x": 1}}, "two": {**about, "lora_adapters": {"y": 2}}}
    entries = [{"id": "a", "engine": "one"}, {"id": "a_lora_b", "engine": "two", "max_model_len": 50}]
    client = start(*(reversed(entries) if longer_first else entries), engines=engines)
    for name, length in (("a_lora_x", 100), ("a_lora_b", 50), ("a_lora_b_lora_y", 50)):
        assert client.ask("tokenize", {"model": name, "prompt": "hello"})[1]["max_model_len"] == length
    assert client.ask("tokenize", {"model": "a_lora_b_lora_x", "prompt": "hello"})[0] == "NOT_FOUND"


def test_of_one_model_the_name_may_be_left_out_where_it_is_optional(start: Start) -> None:
    assert start(A).ask("tokenize", {"prompt": "hello"})[1]["max_model_len"] == 100


def test_an_engine_that_is_away_stops_no_other_model(start: Start, folder: Path) -> None:
    about = {"checkpoint": str(folder), "max_seq_len": 100}
    client = start(A, B, engines={"one": RuntimeError(), "two": about})
    assert (client.complete("a")[0], client.complete("b")[0]) == ("UNAVAILABLE", "OK")
    assert client.names() == ["a", "gpt", "default", "b"]
    assert not client.ready()
    client.triton.about["one"] = about
    assert client.complete("a")[0] == "OK"
    assert eventually(client.ready)


def test_an_engine_that_never_answers_stops_no_other_model(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start(A, B)
    hanging = threading.Event()
    hello = client.triton.hello
    import backend

    monkeypatch.setattr(backend, "hello", lambda engine: hanging.wait() if engine._model == "one" else hello(engine))
    waiting = [client.begin("completions", {"model": "a", "prompt": "x", "max_tokens": 1}) for _ in range(20)]
    assert client.complete("b")[0] == "OK"
    assert client.names() == ["a", "gpt", "default", "b"]
    assert not client.ready()
    begun = time.monotonic()
    for _ in range(20):  # only the first ones that ask for the list wait
        client.names()
    assert time.monotonic() - begun < 15  # not a second each
    monkeypatch.setattr(backend, "hello", hello)
    hanging.set()  # its answer makes no sense, and says so to everybody who waited
    assert {answer_of(request)[0] for request in waiting} == {"INTERNAL"}
    assert client.complete("a")[0] == "OK"


def test_an_engine_without_sessions_is_not_served_beside_others(start: Start, folder: Path) -> None:
    about = {"checkpoint": str(folder), "max_seq_len": 100}
    entry = {**A, "tokenizer_dir": str(folder), "max_model_len": 100}
    client = start(entry, B, engines={"one": None, "two": about})
    code, body = client.complete("a")
    assert (code, body["error"]["message"]) == ("UNAVAILABLE", "The server has no usable engine configured.")
    assert client.complete("b")[0] == "OK"


def test_ready_means_all_of_them(start: Start, folder: Path) -> None:
    client = start(A, B)
    assert eventually(client.ready)
    client.triton.held.set()
    assert not client.ready()


def test_loading_and_unloading_are_off_unless_asked_for(start: Start) -> None:
    client = start(A, B)
    for verb in ("load", "unload"):
        code, body = client.ask(f"models/b/{verb}")
        assert code == "INVALID_ARG" and "--model-control-mode=explicit" in body["error"]["message"]
    assert client.triton.loaded == {"one", "two"}


def test_a_model_comes_and_goes(start: Start) -> None:
    client = start(A, B, model_control="on")
    assert client.complete("b")[0] == "OK"
    assert client.ask("models/b/unload") == ("OK", {"status": "success", "model": "b"})
    assert client.triton.loaded == {"one"} and "b" not in client.names()
    assert client.complete("b")[1]["error"]["code"] == "model_not_found"
    assert client.ask("models/b")[0] == "NOT_FOUND"
    assert eventually(client.ready)
    code, body = client.ask("models/b/unload")
    assert code == "INVALID_ARG" and "already unloaded" in body["error"]["message"]
    code, body = client.ask("models/b/load")
    assert (code, body["id"], body["max_model_len"]) == ("OK", "b", 100)
    assert client.complete("b")[0] == "OK"
    assert "already loaded" in client.ask("models/b/load")[1]["error"]["message"]
    assert client.ask("models/c/load")[0] == client.ask("models/c/unload")[0] == "NOT_FOUND"


def test_what_runs_is_waited_for_and_what_comes_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import control

    client = start(A, B, model_control="on")
    client.triton.held.set()
    running = client.begin("completions", {"model": "gpt", "prompt": "x", "max_tokens": 1})
    assert eventually(lambda: client.triton.asked == ["one"])
    unloading = client.begin("models/a/unload")
    assert eventually(lambda: client.complete("a")[0] == "NOT_FOUND")
    assert not unloading.sender.ended and "one" in client.triton.loaded
    monkeypatch.setattr(control, "DRAIN_SECONDS", 0.0)
    other = client.begin("models/b/unload")  # nothing runs there
    assert answer_of(other)[0] == "OK"
    (call,) = [each for each in client.server._admission.calls if each.backend is not None]
    call.push(Event((5,), Status.LENGTH))
    assert answer_of(running)[0] == "OK" and answer_of(unloading)[0] == "OK"
    assert client.triton.loaded == set()


def test_what_takes_too_long_ends(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import control

    monkeypatch.setattr(control, "DRAIN_SECONDS", 0.2)
    client = start(A, B, model_control="on")
    client.triton.held.set()
    running = client.begin("completions", {"model": "a", "prompt": "x", "max_tokens": 1, "stream": True})
    assert eventually(lambda: client.triton.asked == ["one"])
    assert client.ask("models/a/unload")[0] == "OK"
    assert eventually(lambda: running.sender.ended) and b"was unloaded" in running.sender.sent[-1]


def test_an_engine_of_two_models_stays_for_the_other(start: Start) -> None:
    client = start(A, {**B, "engine": "one"}, model_control="on")
    assert client.ask("models/a/unload")[0] == "OK"
    assert client.triton.loaded == {"one"} and client.complete("b")[0] == "OK"
    assert client.ask("models/b/unload")[0] == "OK"
    assert client.triton.loaded == set()


def test_a_model_may_wait_for_being_loaded(start: Start) -> None:
    client = start(A, {**B, "loaded": False}, model_control="on")
    assert client.names() == ["a", "gpt", "default"]
    assert client.complete("b")[0] == "NOT_FOUND"
    assert client.ask("models/b/load")[0] == "OK"
    assert client.complete("b")[0] == "OK"


def test_a_model_that_cannot_be_loaded_is_not_there_and_its_secrets_stay(start: Start) -> None:
    client = start(A, {**B, "engine": "broken", "loaded": False}, model_control="on")
    client.triton.loaded.discard("broken")
    client.triton.unload_model = lambda model_name: None
    code, body = client.ask("models/b/load")
    assert code == "INTERNAL" and "secret" not in json.dumps(body)
    assert "b" not in client.names() and client.complete("a")[0] == "OK"


def test_of_many_that_load_one_does(start: Start) -> None:
    client = start(A, {**B, "loaded": False}, model_control="on")
    asked = [client.begin("models/b/load") for _ in range(5)]
    assert sorted(answer_of(each)[0] for each in asked) == ["INVALID_ARG"] * 4 + ["OK"]


def test_an_engine_elsewhere_is_left_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import backend

    client = start(A, {**B, "engine_url": "http://127.0.0.1:1"}, model_control="on")
    monkeypatch.setattr(backend.Backend, "_remote", lambda self, name: self._local(name))
    assert client.complete("b")[0] == "OK"
    assert client.ask("models/b/unload")[0] == "OK"
    assert client.complete("b")[0] == "NOT_FOUND" and client.triton.loaded == {"one", "two"}
    assert client.ask("models/b/load")[0] == "OK"
    assert client.complete("b")[0] == "OK"


def test_a_triton_that_does_not_unload_keeps_the_model(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton_python_backend_utils as pb_utils

    client = start(A, B, model_control="on")

    def refuse(model_name: str) -> None:
        raise RuntimeError("Failed: explicit model load / unload is not allowed if polling is enabled")

    monkeypatch.setattr(pb_utils, "unload_model", refuse)
    code, body = client.ask("models/b/unload")
    assert code == "INVALID_ARG" and "--model-control-mode=explicit" in body["error"]["message"]
    assert "b" in client.names() and client.complete("b")[0] == "OK"
