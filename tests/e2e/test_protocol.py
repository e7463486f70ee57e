"""What clients get, over all forms of the transport."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import requests
import tritonclient.http

from tests.e2e.conftest import Server
from tests.e2e.wire import events, text

USER = [{"role": "user", "content": "hello"}]


def chat(server: Server, **options: Any) -> dict[str, Any]:
    return {"model": server.model, "messages": USER, "max_tokens": 12, "seed": 1} | options


def test_a_chat_answer(server: Server) -> None:
    answer = server.post("/v1/chat/completions", chat(server))
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{32}", body["id"])
    assert (body["object"], body["model"]) == ("chat.completion", server.model)
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 12
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 12


def test_a_stream_says_the_same_as_the_whole_answer(server: Server) -> None:
    whole = server.post("/v1/chat/completions", chat(server)).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = server.post("/v1/chat/completions", chat(server, **options))
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    found = events(answer.content)
    assert text(found) == whole["choices"][0]["message"]["content"]
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert found[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == whole["usage"]
    assert len({(each["id"], each["created"], each["system_fingerprint"]) for each in found}) == 1
    assert [each for each in found if "role" in (each["choices"] or [{"delta": {}}])[0]["delta"]] == found[:1]


def test_a_paced_engines_tokens_come_one_by_one(server: Server) -> None:
    asked = {"model": server.model, "prompt": "a", "min_tokens": 40, "max_tokens": 40, "stream": True}
    assert len(events(server.post("/v1/completions", asked).content)) > 15


def test_greedy_answers_repeat_and_unseeded_ones_differ(server: Server) -> None:
    greedy = [server.complete("Once", temperature=0)["choices"][0]["text"] for _ in range(2)]
    assert greedy[0] == greedy[1]
    seeded = [server.complete("Once", seed=5)["choices"][0]["text"] for _ in range(2)]
    assert seeded[0] == seeded[1]
    free = {server.complete("Once")["choices"][0]["text"] for _ in range(4)}
    assert len(free) > 1


def test_stop_strings(server: Server) -> None:
    whole = server.complete("Once", temperature=0, max_tokens=30)["choices"][0]["text"]
    stop = whole[len(whole) // 2 :][:3]
    cut = server.complete("Once", temperature=0, max_tokens=30, stop=[stop, "never there"])["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert cut["text"] == whole[: whole.index(stop)]


def test_prompts_of_token_ids(server: Server) -> None:
    assert server.complete([5, 6, 7], temperature=0)["usage"]["prompt_tokens"] == 3  # type: ignore[arg-type]


def test_models(server: Server) -> None:
    listed = requests.get(server.url + "/v1/models", timeout=10).json()
    assert listed["object"] == "list"
    one = requests.get(f"{server.url}/v1/models/{server.model}", timeout=10)
    assert (one.status_code, one.json()) == (200, listed["data"][0])
    none = requests.get(server.url + "/v1/models/gpt-4", timeout=10)
    assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")


ERRORS: list[tuple[Any, int, str | None, str | None]] = [
    (b"{", 400, None, None),
    (b'{"model": "\xff"}', 400, None, None),
    (b"", 400, None, None),
    ({}, 400, "model", None),
    ({"model": "gpt-4"}, 404, "model", "model_not_found"),
    ({"temperature": "hot"}, 400, "temperature", None),
    ({"nonsense": 1}, 400, "nonsense", None),
    ({"tools": [{}]}, 400, "tools[0].type", None),
    ({"max_tokens": 2**70}, 400, None, None),
    ({"max_tokens": 5000}, 400, "messages", "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "messages", "context_length_exceeded"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("wrong", "status", "param", "code"), ERRORS)
def test_errors(server: Server, wrong: Any, status: int, param: str | None, code: str | None, stream: bool) -> None:
    body = (
        wrong if isinstance(wrong, bytes) else json.dumps(chat(server, stream=stream) | wrong if wrong else {}).encode()
    )
    answer = requests.post(server.chat_url, data=body, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json")
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    if param is not None:
        assert error["param"] == param
    if code == "context_length_exceeded":
        assert "2048" in error["message"]
    assert server.complete("and on it goes", max_tokens=1, temperature=0)["usage"]["completion_tokens"] == 1


def test_curl_without_a_content_type(server: Server) -> None:
    command = ["curl", "-sN", server.chat_url, "-d", json.dumps(chat(server, stream=True))]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert text(events(done.stdout))


def test_tritons_own_endpoints_stay(server: Server) -> None:
    client = tritonclient.http.InferenceServerClient(server.stack.triton_url.removeprefix("http://"))
    assert client.is_server_ready() and client.is_model_ready("openai_bls")
    assert client.is_model_ready("tensorrt_llm") == (server.engine is server.stack)
    if server.engine is server.stack:
        names = {tensor["name"] for tensor in client.get_model_metadata("tensorrt_llm")["inputs"]}
        assert {"input_ids", "request_output_len", "stop_words_list"} <= names
        assert ("session_command" in names) == (server.form == "session")
    server.complete("a", max_tokens=1)
    statistics = client.get_inference_statistics("openai_bls")["model_stats"][0]
    assert int(statistics["inference_count"]) > 0


def test_all_forms_say_the_same(session_server: Server, single_server: Server, http_server: Server) -> None:
    def answers(server: Server) -> list[Any]:
        found = []
        for prompt in ("Once upon", "日本", "a b c"):
            for options in ({"temperature": 0}, {"seed": 3}, {"seed": -3, "top_p": 0.5, "stop": "e"}):
                body = server.complete(prompt, max_tokens=40, **options)
                body["usage"].pop("prompt_tokens_details", None)  # only sessions tell what was cached
                found.append((body["choices"], body["usage"], sorted(body)))
        return found

    assert answers(session_server) == answers(single_server) == answers(http_server)
