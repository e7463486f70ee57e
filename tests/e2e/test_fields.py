"""Fields that the engine has a part in, end to end, over both forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Server
from tests.e2e.wire import events, text


def choices(server: Server, prompt: Any = "Once", **options: Any) -> list[Any]:
    found: list[Any] = server.complete(prompt, **({"seed": 3, "max_tokens": 12} | options))["choices"]
    return found


def test_n_gives_different_answers_that_repeat(server: Server) -> None:
    found = choices(server, n=3)
    assert [choice["index"] for choice in found] == [0, 1, 2]
    assert len({choice["text"] for choice in found}) == 3
    assert choices(server, n=3) == found
    # The first of several is the one that is drawn alone.
    assert choices(server)[0]["text"] == found[0]["text"]


def test_n_streams_what_it_answers_whole(server: Server) -> None:
    body = {"model": server.model, "prompt": ["Once", "the"], "n": 2, "seed": 3, "max_tokens": 12, "stream": True}
    found = events(server.post("/v1/completions", body).content)
    joined = {
        index: "".join(c["text"] for each in found for c in each["choices"] if c["index"] == index)
        for index in range(4)
    }
    whole = choices(server, ["Once", "the"], n=2)
    assert joined == {choice["index"]: choice["text"] for choice in whole}


def test_best_of_is_the_best_of_n(server: Server) -> None:
    candidates = choices(server, n=4, logprobs=0)
    means = [sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"]) for c in candidates]
    best = candidates[means.index(max(means))]["text"]
    assert choices(server, best_of=4)[0]["text"] == best


def test_log_probs_are_those_of_the_model(server: Server) -> None:
    found = choices(server, temperature=0, logprobs=3)[0]["logprobs"]
    for chosen, top in zip(found["token_logprobs"], found["top_logprobs"], strict=True):
        # Greedy: the chosen token is the likeliest; together they are no more than certain.
        assert math.isclose(chosen, max(top.values()), abs_tol=1e-5)
        assert len(top) == 3
        assert sum(map(math.exp, top.values())) <= 1.0001


def test_echo_scores_a_prompt_as_it_would_be_generated(server: Server) -> None:
    written = choices(server, [5, 6, 7], temperature=0, logprobs=2, max_tokens=6, return_tokens_as_token_ids=True)[0]
    ids = [int(name.removeprefix("token_id:")) for name in written["logprobs"]["tokens"]]
    echoed = choices(server, [5, 6, 7, *ids], echo=True, logprobs=2, max_tokens=0)[0]["logprobs"]
    assert echoed["token_logprobs"][0] is None
    for scored, generated in zip(echoed["token_logprobs"][3:], written["logprobs"]["token_logprobs"], strict=True):
        assert math.isclose(scored, generated, abs_tol=1e-3)


def test_a_bias_decides(server: Server) -> None:
    plain = choices(server, temperature=0, logprobs=0, return_tokens_as_token_ids=True)[0]
    first = int(plain["logprobs"]["tokens"][0].removeprefix("token_id:"))
    options = {"logprobs": 0, "return_tokens_as_token_ids": True, "temperature": 0}
    banned = choices(server, logit_bias={str(first): -100}, **options)[0]
    assert f"token_id:{first}" not in banned["logprobs"]["tokens"]
    forced = choices(server, logit_bias={str(first): 100}, ignore_eos=True, **options)[0]
    assert set(forced["logprobs"]["tokens"]) == {f"token_id:{first}"}


def test_penalties_change_the_answer(server: Server) -> None:
    def many(**options: Any) -> str:
        return str(choices(server, temperature=0, max_tokens=200, ignore_eos=True, **options)[0]["text"])

    plain = many()
    for name, value in {"repetition_penalty": 5.0, "presence_penalty": 2.0, "frequency_penalty": 2.0}.items():
        assert many(**{name: value}) != plain, name


def test_min_tokens_and_ignore_eos(server: Server) -> None:
    assert server.complete("a", seed=1, max_tokens=300, ignore_eos=True)["usage"]["completion_tokens"] == 300
    assert server.complete("a", seed=1, max_tokens=300, min_tokens=290)["usage"]["completion_tokens"] >= 290


def test_stop_token_ids_and_bad_words(server: Server) -> None:
    options = {"temperature": 0, "logprobs": 0, "return_tokens_as_token_ids": True}
    plain = choices(server, **options)[0]
    fifth = int(plain["logprobs"]["tokens"][4].removeprefix("token_id:"))
    stopped = choices(server, stop_token_ids=[fifth], **options)[0]
    assert stopped["finish_reason"] == "stop"
    assert plain["text"].startswith(stopped["text"])
    word = plain["text"].split()[0]
    if word.isascii():
        assert not choices(server, temperature=0, bad_words=[word])[0]["text"].startswith(word)


def test_chat_log_probs_stream_as_they_are_whole(server: Server) -> None:
    body = {"model": server.model, "messages": [{"role": "user", "content": "a"}], "seed": 2, "max_tokens": 12}
    body |= {"logprobs": True, "top_logprobs": 2}
    whole = server.post("/v1/chat/completions", body).json()["choices"][0]
    found = events(server.post("/v1/chat/completions", body | {"stream": True}).content)
    joined = [entry for each in found for c in each["choices"] for entry in (c["logprobs"] or {}).get("content", [])]
    assert joined == whole["logprobs"]["content"]
    assert text(found) == whole["message"]["content"]


def test_shared_prefixes_are_told(session_server: Server) -> None:
    long = " ".join(f"word {number}" for number in range(60))
    session_server.complete(long, max_tokens=2)
    again = session_server.complete(long, max_tokens=2)["usage"]
    assert 0 < again["prompt_tokens_details"]["cached_tokens"] < again["prompt_tokens"]


def test_tokenize_counts_what_a_chat_costs(server: Server) -> None:
    messages = [{"role": "user", "content": "hello"}]
    counted = server.post("/v1/tokenize", {"model": server.model, "messages": messages}).json()
    chatted = server.post("/v1/chat/completions", {"model": server.model, "messages": messages, "max_tokens": 1}).json()
    assert counted["count"] == chatted["usage"]["prompt_tokens"]
    back = server.post("/detokenize", {"model": server.model, "tokens": counted["tokens"]}).json()
    assert "hello" in back["prompt"]


@pytest.mark.parametrize("path", ["/models", "/v1/models"])
def test_models_by_post(server: Server, path: str) -> None:
    assert requests.post(server.url + path, timeout=10).json()["data"][0]["id"] == server.model
