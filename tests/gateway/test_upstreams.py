"""Several Tritons behind one gateway: who is asked, what is asked again, who is left alone and comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import CHAT, TIMEOUT, error_of, eventually, post

Pair = tuple[Upstream, Upstream]


@pytest.fixture
def pair(make_upstream: Callable[[], Upstream]) -> Pair:
    """Two that answer with their names."""
    first, second = make_upstream(), make_upstream()
    first.events('{"from":1}')
    second.events('{"from":2}')
    return first, second


def ask(url: str) -> int | None:
    answer = post(url)
    return answer.json()["from"] if answer.status_code == 200 else None


def test_the_one_with_the_fewest_requests_is_asked(start: Start, pair: Pair) -> None:
    first, second = pair
    url = start(upstreams=pair)
    first.go.clear()
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(ask, url)]
        if not eventually(lambda: len(first.received) == 1, 1):
            held.append(pool.submit(ask, url))
            assert eventually(lambda: len(first.received) == 1)
        assert [ask(url) for _ in range(5)] == [2] * 5
        first.go.set()
        assert 1 in [each.result() for each in held]


def test_one_is_killed_under_load_and_comes_back(start: Start, pair: Pair) -> None:
    """No request is lost that had not begun to be answered."""
    first, second = pair
    url = start(upstreams=pair, upstream_retry=1)
    for each in pair:
        each.go.clear()
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(ask, url) for _ in range(40)]
        assert eventually(lambda: len(first.received) >= 10)
        later = [pool.submit(ask, url) for _ in range(100)]
        first.kill()
        second.go.set()
        assert {each.result() for each in waiting + later} == {2}
    assert [ask(url) for _ in range(20)] == [2] * 20

    first.go.set()
    first.listen()
    time.sleep(1.1)
    asked_before = len(first.received)
    assert eventually(lambda: ask(url) == 1), f"asked {len(first.received) - asked_before} times"
    second.kill()
    assert [ask(url) for _ in range(20)] == [1] * 20


def test_a_stream_that_has_begun_is_not_begun_again(start: Start, pair: Pair) -> None:
    first, second = pair
    for each in pair:
        each.headers = "Content-Length: 100000\r\n"
        each.pieces = [event('data: {"n":1}\n\n')]  # and then the connection ends
    url = start(upstreams=pair)
    pieces = requests.post(url + CHAT, b'{"stream":true}', stream=True, timeout=TIMEOUT).iter_content(None)
    assert next(pieces) == b'data: {"n":1}\n\n'
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        next(pieces)
    assert len(first.received) + len(second.received) == 1


@pytest.mark.parametrize("status", ["503 Unavailable", ""])
def test_one_that_cannot_answer_now_is_left_for_another(start: Start, pair: Pair, status: str) -> None:
    first, _ = pair
    first.status = status
    url = start(upstreams=pair)
    assert [ask(url) for _ in range(10)] == [2] * 10
    assert len(first.received) <= 2


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal"])
def test_other_errors_are_answers(start: Start, pair: Pair, status: str) -> None:
    for each in pair:
        each.status = status
    assert post(start(upstreams=pair)).status_code == int(status[:3])
    assert sum(len(each.received) for each in pair) == 1


def test_a_request_is_tried_twice_at_most(start: Start, make_upstream: Callable[[], Upstream]) -> None:
    """It may be what they die of."""
    three = [make_upstream() for _ in range(3)]
    for each in three:
        each.status = ""
    answer = post(start(upstreams=three))
    assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")
    assert sum(len(each.received) for each in three) == 2


def test_a_refusal_is_asked_for_where_it_was_made(start: Start, pair: Pair) -> None:
    for number, each in enumerate(pair, 1):
        error = {"message": str(number), "type": "t", "param": None, "code": None}
        each.status, each.pieces = "400 Bad Request", [b'{"error":"x"}']
        each.refusal = json.dumps({"status": 404, "body": json.dumps({"error": error})})
    url = start(upstreams=pair)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(url), range(40)))
    assert {answer.status_code for answer in answers} == {404}
    told = [error_of(answer)["message"] for answer in answers]
    for number, each in enumerate(pair, 1):
        tickets = [json.loads(body)["ticket"] for _, _, body in each.received if b'"ticket"' in body]
        assert sorted(each.asked_back) == sorted(tickets)
        assert told.count(str(number)) == len(tickets) > 0


@pytest.mark.parametrize("refusal", ['{"status":503,"body":"{}"}', "{}"])
def test_what_one_cannot_take_now_another_one_takes(start: Start, pair: Pair, refusal: str) -> None:
    """Triton 2.51 says 400 where openai_bls says 503, as it does while it drains."""
    first, second = pair
    first.status, first.pieces, first.refusal = "400 Bad Request", [b'{"error":"x"}'], refusal
    second.events('data: {"from":2}\n\n')
    url = start(upstreams=pair)
    for _ in range(6):
        answer = post(url, b'{"stream":true}')
        assert (answer.status_code, answer.text) == (200, 'data: {"from":2}\n\n')
        assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert first.asked_back
    assert second.body["request"] == '{"stream":true}'


def test_what_none_can_take_now_is_503(start: Start, pair: Pair) -> None:
    for each in pair:
        each.status, each.pieces = "400 Bad Request", [b'{"error":"x"}']
        each.refusal = '{"status":503,"body":"{\\"error\\":{}}"}'
    answer = post(start(upstreams=pair))
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (503, '{"error":{}}', "2")
    assert [len(each.asked_back) for each in pair] == [1, 1]


@pytest.mark.parametrize(("status", "told"), [(404, 404), (429, 429), (400, 400)])
def test_a_second_one_may_refuse_for_good(start: Start, pair: Pair, status: int, told: int) -> None:
    first, second = pair
    for each in pair:
        each.status, each.pieces = "400 Bad Request", [b'{"error":"x"}']
    first.refusal = '{"status":503,"body":"{}"}'
    second.refusal = json.dumps({"status": status, "body": '{"error":{}}'})
    url = start(upstreams=pair)
    assert {post(url).status_code for _ in range(4)} == {told}


def test_a_refusal_after_a_second_try_is_asked_for_at_the_second(start: Start, pair: Pair) -> None:
    first, second = pair
    first.status = "503 Unavailable"
    second.status, second.pieces = "400 Bad Request", [b'{"error":"x"}']
    second.refusal = '{"status":429,"body":"{\\"error\\":{}}"}'
    url = start(upstreams=pair)
    assert [post(url).status_code for _ in range(4)] == [429] * 4
    assert first.asked_back == []


def test_without_any_triton_clients_are_told_to_come_back(start: Start, pair: Pair) -> None:
    url = start(upstreams=pair)
    for each in pair:
        each.kill()
    for _ in range(3):
        answer = post(url)
        assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")
        assert 0 < int(answer.headers["Retry-After"]) <= 120
