"""Several Tritons behind one gateway: who is asked, what is asked again, who is left alone and comes back."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from launcher import gateway
from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import CHAT, TIMEOUT, connect, error_of, eventually, post

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


TICK = event("")
UNFINISHED = "Content-Length: 100000\r\n"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("ticks", [1, 200])
def test_what_has_shown_nothing_is_answered_by_another(start: Start, pair: Pair, stream: bool, ticks: int) -> None:
    """The status was sent by the one that died, and only ticks came after it."""
    first, second = pair
    first.headers, first.pieces = UNFINISHED, [TICK] * ticks
    second.pieces = [TICK, event('{"from"'), TICK, event(":2}"), TICK]
    url = start(upstreams=pair, upstream_retry=1)
    for each in pair:
        each.go.clear()
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(post, url, b'{"stream":%s}' % str(stream).lower().encode()) for _ in range(20)]
        assert eventually(lambda: len(first.received) == len(second.received) == 10)
        for each in pair:
            each.go.set()
        answers = [each.result() for each in asked]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, '{"from":2}')}
    assert (len(first.received), len(second.received)) == (10, 20)


@pytest.mark.parametrize("shown", ["data: {}\n\n", ": keep-alive\n\n", " ", "\u0018"])
def test_what_has_shown_something_is_not_answered_by_another(start: Start, pair: Pair, shown: str) -> None:
    for each in pair:
        each.headers, each.pieces = UNFINISHED, [TICK, TICK, event(shown)]
    url = start(upstreams=pair)
    with pytest.raises(requests.exceptions.RequestException):
        assert post(url, b'{"stream":true}').text == ""
    assert len(first_of(pair).received) == 1


def first_of(pair: Pair) -> Upstream:
    """The one that was asked; the other one was not."""
    asked = [each for each in pair if each.received]
    assert len(asked) == 1
    return asked[0]


def test_an_event_may_be_cut_anywhere(start: Start, pair: Pair) -> None:
    whole = TICK + event("a") + TICK + event("b")
    for each in pair:
        each.pieces = [whole[at : at + 1] for at in range(len(whole))]
    assert post(start(upstreams=pair)).text == "ab"


@pytest.mark.parametrize("pieces", [[], [TICK, TICK]])
def test_an_answer_without_anything(start: Start, pair: Pair, pieces: list[bytes]) -> None:
    for each in pair:
        each.pieces = pieces
    answer = post(start(upstreams=pair))
    assert (answer.status_code, answer.text) == (200, "")
    assert first_of(pair)


def test_what_dies_of_a_request_does_not_take_all_with_it(start: Start, make_upstream: Callable[[], Upstream]) -> None:
    three = [make_upstream() for _ in range(3)]
    for each in three:
        each.headers, each.pieces = UNFINISHED, [TICK]
    answer = post(start(upstreams=three))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert sum(len(each.received) for each in three) == 2


def endless_ticks() -> Iterator[bytes]:
    while True:
        yield TICK
        time.sleep(0.05)


def test_who_leaves_before_anything_was_shown_is_missed(start: Start, pair: Pair) -> None:
    for each in pair:
        each.pieces = endless_ticks()
    with connect(start(upstreams=pair)) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert eventually(lambda: any(each.received for each in pair))
        time.sleep(0.2)
    assert first_of(pair).broken_off.wait(TIMEOUT)
    assert eventually(lambda: first_of(pair).open_connections == 0)


def test_one_that_is_silent_for_too_long_counts_as_dead(start: Start, pair: Pair) -> None:
    first, second = pair
    first.go.clear()
    second.pieces = Slowly([TICK] * 5 + [event('{"from":2}')])
    url = start(upstreams=pair, upstream_timeout=1)
    assert ask(url) == 2, "which takes longer than a second, but is not silent"
    assert ask(url) == 2
    assert len(first.received) == 1


class Slowly(list[bytes]):
    """A piece each quarter of a second."""

    def __iter__(self) -> Iterator[bytes]:
        for piece in super().__iter__():
            time.sleep(0.25)
            yield piece


def test_ready_in_spite_of_one_that_is_silent(start: Start, pair: Pair) -> None:
    first, _ = pair
    first.go.clear()
    url = start(upstreams=pair)
    assert [requests.get(f"{url}/health", timeout=TIMEOUT).status_code for _ in range(2)] == [200, 200]
    assert len(first.received) == 1
    assert [ask(url) for _ in range(10)] == [2] * 10


def test_many_at_once(start: Start, pair: Pair) -> None:
    """The hops' connections wait in the kernel meanwhile: the worker that makes them takes them, too."""
    url = start(upstreams=pair)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    for each in pair:
        each.go.clear()
    clients = [connect(url) for _ in range(800)]
    for client in clients:
        client.sendall(head)
    assert eventually(lambda: [len(each.received) for each in pair] == [400, 400], 30)
    for each in pair:
        each.go.set()
    assert {client.recv(15) for client in clients} == {b"HTTP/1.1 200 OK"}
    for client in clients:
        client.close()


def test_a_killed_gateway_is_started_again(start: Start, pair: Pair, gateways: list[gateway.Gateway]) -> None:
    url = start(upstreams=pair)
    os.killpg(gateways[0].child.pid, signal.SIGKILL)
    assert eventually(lambda: gateways[0].death is not None)
    gateways[0].restart()
    gateways[0].wait_until_listening()
    assert {ask(url) for _ in range(4)} == {1, 2}


def test_a_gateway_that_is_drained_lets_answers_come_to_their_end(
    start: Start, pair: Pair, gateways: list[gateway.Gateway]
) -> None:
    url = start(upstreams=pair)
    for each in pair:
        each.go.clear()
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(ask, url) for _ in range(6)]
        assert eventually(lambda: sum(len(each.received) for each in pair) == 6)
        os.kill(gateways[0].child.pid, signal.SIGQUIT)
        assert eventually(lambda: not reachable(url))
        for each in pair:
            each.go.set()
        assert sorted(str(each.result()) for each in waiting) == ["1"] * 3 + ["2"] * 3
    assert eventually(lambda: gateways[0].child.exit_code == 0)


def reachable(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/live", timeout=TIMEOUT).status_code == 200
    except requests.exceptions.ConnectionError:
        return False


def test_new_keys_are_read_while_answers_wait(
    start: Start, pair: Pair, gateways: list[gateway.Gateway], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a:one\n")
    url = start(upstreams=pair, api_keys_file=keys)
    for each in pair:
        each.go.clear()
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(post, url, headers={"x-api-key": "one"}) for _ in range(2)]
        assert eventually(lambda: all(each.received for each in pair))
        keys.write_text("a:two\n")
        assert gateways[0].reload_if_changed()
        for each in pair:
            each.go.set()
        assert eventually(lambda: post(url, headers={"x-api-key": "two"}).status_code == 200)
        assert {each.result().status_code for each in waiting} == {200}


def test_only_nginx_itself_reaches_the_hops(start: Start, pair: Pair, tmp_path: Path) -> None:
    start(upstreams=pair)
    folder = Path((tmp_path / "gateway" / gateway.TEMPORARY_RECORD).read_text()) / gateway.HOPS
    assert {file.name for file in folder.iterdir()} == {"1", "2", gateway.RUNNING}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


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
