"""What the gateway makes of a client's trace context, for Triton (headers) and for openai_bls (input "trace")."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import requests

from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream
from tests.gateway.wire import TIMEOUT, post

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
PLACE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")


@pytest.fixture
def traced(start: Start, upstream: Upstream) -> str:
    upstream.events("{}")
    return start(trace_ratio="1")


def sent(upstream: Upstream) -> tuple[dict[str, str], dict[str, Any]]:
    """Of the last request: the headers of traces, and what openai_bls is told."""
    headers = {name: text for name, text in upstream.received[-1][1].items() if name.startswith("trace")}
    return headers, json.loads(upstream.body["trace"])


def test_a_clients_trace_goes_on(traced: str, upstream: Upstream) -> None:
    before = time.time()
    assert post(traced, headers={"traceparent": SAMPLED, "tracestate": "a=b,c=d"}).status_code == 200
    headers, told = sent(upstream)
    place = PLACE.fullmatch(told["span"])
    assert place is not None and (place[1], place[3]) == (TRACE, "01") and place[2] != PARENT
    assert headers == {"traceparent": told["span"], "tracestate": "a=b,c=d"}
    assert (told["parent"], told["state"]) == (PARENT, "a=b,c=d")
    assert before - 1 < told["since"] < time.time() + 1


def test_without_one_a_trace_begins_that_is_called_as_the_request(traced: str, upstream: Upstream) -> None:
    answers = [post(traced) for _ in range(2)]
    for answer, (_, sent_headers, body) in zip(answers, upstream.received, strict=True):
        told = json.loads(json.loads(body)["trace"])
        place = PLACE.fullmatch(told["span"])
        assert place is not None and place[1] == answer.headers["X-Request-ID"]
        assert sent_headers["traceparent"] == told["span"] and "tracestate" not in sent_headers
        assert told["parent"] == ""
        assert not [name for name in answer.headers if name.lower().startswith("trace")]


def test_what_is_not_to_be_traced_goes_to_triton_without_a_word(traced: str, upstream: Upstream) -> None:
    post(traced, headers={"traceparent": NOT_SAMPLED, "tracestate": "a=b"})
    headers, told = sent(upstream)
    assert headers == {} and set(told) == {"span"} and told["span"].endswith("-00")


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x",
        SAMPLED + "-00",
        SAMPLED[:-1],
        SAMPLED.upper(),
        f"ff{SAMPLED[2:]}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{SAMPLED}, {SAMPLED}",
        "00-" + "é" * 20,
        SAMPLED + "\udcff",
    ],
)
def test_what_is_no_trace_context_is_as_good_as_none(traced: str, upstream: Upstream, wrong: str) -> None:
    headers = {"traceparent": wrong.encode(errors="surrogateescape"), "tracestate": b"a=b"}
    assert requests.post(traced + "/v1/completions", data="{}", headers=headers, timeout=TIMEOUT).status_code == 200
    found, told = sent(upstream)
    assert TRACE not in told["span"] and PARENT not in json.dumps(told)
    assert set(found) == {"traceparent"} and told["state"] == ""


@pytest.mark.parametrize("wrong", ["a" * 600, "=b", "a=\x7f", "é=1", "a=\udcff"])
def test_a_state_that_is_none_stays_behind(traced: str, upstream: Upstream, wrong: str) -> None:
    post(traced, headers={"traceparent": SAMPLED, "tracestate": wrong.encode(errors="surrogateescape")})
    headers, told = sent(upstream)
    assert told["span"].startswith(f"00-{TRACE}-") and "tracestate" not in headers and told["state"] == ""


def test_the_share_that_is_traced(start: Start, upstream: Upstream) -> None:
    upstream.events("{}")
    url = start(trace_ratio="0.5")
    with requests.Session() as session:
        for _ in range(120):
            session.post(url + "/v1/completions", data="{}", timeout=TIMEOUT)
        told = [json.loads(json.loads(body)["trace"])["span"][-2:] for _, _, body in upstream.received]
        assert 30 < told.count("01") < 90  # 1 of 10 million times it is not
        session.post(url + "/v1/completions", data="{}", headers={"traceparent": SAMPLED}, timeout=TIMEOUT)
    assert sent(upstream)[1]["parent"] == PARENT  # who has decided is followed


def test_none_is_traced_unless_the_client_says_so(start: Start, upstream: Upstream) -> None:
    upstream.events("{}")
    url = start(trace_ratio="0")
    post(url)
    assert sent(upstream)[0] == {}
    post(url, headers={"traceparent": SAMPLED})
    assert sent(upstream)[0].keys() == {"traceparent"}


def test_without_traces_nothing_goes_on(url: str, upstream: Upstream) -> None:
    upstream.events("{}")
    post(url, headers={"traceparent": SAMPLED, "tracestate": "a=b"})
    assert "trace" not in upstream.body and not [name for name in upstream.received[0][1] if "trace" in name]


def test_questions_of_the_gateways_own_are_not_traced(traced: str, upstream: Upstream) -> None:
    requests.get(traced + "/health", headers={"traceparent": SAMPLED}, timeout=TIMEOUT)
    upstream.status = "400 Bad Request"
    post(traced, headers={"traceparent": SAMPLED})
    health, refused, recall = upstream.received
    assert "traceparent" in refused[1]
    assert "traceparent" not in health[1] and "traceparent" not in recall[1]
    assert b'"trace"' not in health[2] + recall[2]


def test_what_a_request_is_sent_with_stays_the_same(traced: str, upstream: Upstream) -> None:
    post(traced, headers={"Cookie": "a=b", "Authorization": "Bearer secret"})
    headers = upstream.received[0][1]
    assert set(headers) <= {"host", "content-type", "content-length", "traceparent"}
    assert (headers["host"], headers["content-type"]) == ("triton", "application/json")


def test_several_tritons_are_sent_the_same(start: Start, upstream: Upstream, make_upstream: Any) -> None:
    other = make_upstream()
    for each in (upstream, other):
        each.events("{}")
    url = start([upstream, other], trace_ratio="1")
    post(url, headers={"traceparent": SAMPLED})
    asked = upstream if upstream.received else other
    headers, told = sent(asked)
    assert headers["traceparent"] == told["span"] and told["parent"] == PARENT
