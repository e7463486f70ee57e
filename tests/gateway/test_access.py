"""Who may ask what: API keys, groups with a header of their own, browsers, metrics, prefixes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from launcher import gateway
from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import CHAT, TIMEOUT, error_of, post, settled


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_keys(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    url = start(api_keys=["first-key", "second-key"])
    upstream.events("{}")
    for bad in ({}, bearer("first-ke"), {"Authorization": "Basic first-key"}, {"x-api-key": "nope"}, bearer("")):
        answer = post(url, headers=bad)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for good in (bearer("first-key"), {"authorization": "bearer second-key"}, {"x-api-key": "second-key"}):
        assert post(url, headers=good).status_code == 200
    assert len(upstream.received) == 3
    assert all("first-key" not in file.read_text() for file in (tmp_path / "gateway").glob("*.*"))


def test_a_file_of_keys(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\nalice:sk-alice\n\nbob:sha256:{hashlib.sha256(b'sk-bob').hexdigest()}\nbob:sk-new:er\n")
    url = start(api_keys=["sk-first"], api_keys_file=file)
    upstream.events("{}")
    sent = ["sk-first", "sk-alice", "sk-bob", "sk-new:er", "bob", "sha256:" + hashlib.sha256(b"sk-bob").hexdigest()]
    assert [post(url, headers=bearer(key)).status_code for key in sent] == [200, 200, 200, 200, 401, 401]


def test_many_keys(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("".join(f"name{number}:key{number}\n" for number in range(5000)))
    url = start(api_keys_file=file)
    upstream.events("{}")
    assert [post(url, headers=bearer(key)).status_code for key in ("key0", "key4999", "key5000")] == [200, 200, 401]


def test_keys_change_while_a_stream_runs(
    start: Start,
    upstream: Upstream,
    make_upstream: Callable[[], Upstream],
    tmp_path: Path,
    gateways: list[gateway.Gateway],
) -> None:
    file = tmp_path / "keys"
    file.write_text("alice:old\n")
    url = start(api_keys_file=file, metrics="key", metrics_of=make_upstream())

    def entered(key: str) -> bool:
        return requests.get(f"{url}/metrics", headers=bearer(key), timeout=TIMEOUT).status_code == 200

    changed = threading.Event()

    def held() -> Iterator[bytes]:
        yield event('data: {"n":1}\n\n')
        changed.wait(TIMEOUT)
        yield event("data: [DONE]\n\n")

    upstream.pieces = held()
    stream = requests.post(url + CHAT, b'{"stream":true}', headers=bearer("old"), stream=True, timeout=TIMEOUT)
    received = stream.iter_content(None)
    assert next(received) == b'data: {"n":1}\n\n'

    assert not gateways[0].reload_if_changed()
    file.write_text("alice:new\n")
    assert gateways[0].reload_if_changed()
    assert settled(lambda: entered("new") and not entered("old"))

    file.write_text("nonsense\n")
    with pytest.raises(gateway.LaunchError, match="line 1 is not name:key"):
        gateways[0].reload_if_changed()

    changed.set()
    assert b"".join(received) == b"data: [DONE]\n\n"
    assert entered("new")


def test_keys_that_nginx_did_not_take_are_tried_again(
    start: Start, upstream: Upstream, tmp_path: Path, gateways: list[gateway.Gateway], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was, a key that was taken back must not stay valid because of it."""
    file = tmp_path / "keys"
    file.write_text("alice:old\n")
    url = start(api_keys_file=file)
    upstream.events("{}")

    def fails(command: object) -> None:
        raise gateway.LaunchError("nginx refuses its configuration: host not found.")

    file.write_text("alice:new\n")
    with monkeypatch.context() as while_it_lasts:
        while_it_lasts.setattr(gateway, "_check", fails)
        for _ in range(2):
            with pytest.raises(gateway.LaunchError):
                gateways[0].reload_if_changed()
    assert gateways[0].reload_if_changed()
    assert settled(lambda: post(url, headers=bearer("old")).status_code == 401)
    assert not gateways[0].reload_if_changed()


GROUPS = [
    ("POST", CHAT, "inference"),
    ("POST", "/v1/tokenize", "inference"),
    ("POST", "/v1/embeddings", "embedding"),
    ("GET", "/v1/models", "model-repository"),
    ("POST", "/v1/models/a/load", "model-repository"),
    ("POST", "/v1/models/a/unload", "model-repository"),
    ("GET", "/metrics", "metrics"),
    ("GET", "/health/ready", "health"),
    ("GET", "/health/live", "health"),
]


@pytest.mark.parametrize(("method", "path", "group"), GROUPS)
def test_each_group_wants_its_own_header(start: Start, upstream: Upstream, method: str, path: str, group: str) -> None:
    rows = ["inference,embedding X-Ask one", "model-repository X-List two", "metrics X-See three", "health X-Live four"]
    url = start(restricted_api=";".join(rows), metrics="open")
    upstream.events("{}")
    right = dict(row.split()[1:] for row in rows if group in row.split()[0].split(","))
    wrong = [{}, dict.fromkeys(right, "other"), {"X-Other": "one"}]
    wrong += [dict([row.split()[1:]]) for row in rows if group not in row.split()[0].split(",")]
    for headers in wrong:
        answer = requests.request(method, url + path, headers=headers, timeout=TIMEOUT)
        assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_auth")
    assert upstream.received == []
    assert requests.request(method, url + path, headers=right, timeout=TIMEOUT).status_code == 200


def test_a_group_that_is_not_named_stays_open(start: Start, upstream: Upstream) -> None:
    upstream.events("{}")
    url = start(restricted_api="model-repository x-admin secret", api_keys=["k"])
    assert requests.get(f"{url}/health", timeout=TIMEOUT).status_code == 200
    assert post(url, headers=bearer("k")).status_code == 200
    assert requests.get(f"{url}/v1/models", headers=bearer("k"), timeout=TIMEOUT).status_code == 401
    both = {**bearer("k"), "X-Admin": "secret"}
    assert requests.get(f"{url}/v1/models", headers=both, timeout=TIMEOUT).status_code == 200
    without_key = {"X-Admin": "secret"}
    assert requests.get(f"{url}/v1/models", headers=without_key, timeout=TIMEOUT).status_code == 401


def test_the_launcher_itself_may_enter(
    start: Start, upstream: Upstream, gateways: list[gateway.Gateway], tmp_path: Path
) -> None:
    rows = f"inference x-a sha256:{hashlib.sha256(b'a').hexdigest()}; model-repository Authorization b"
    upstream.events("{}")
    url = start(restricted_api=rows, api_keys=["k"])
    assert post(url, headers=gateways[0].own_headers()).status_code == 200
    assert requests.get(f"{url}/v1/models", headers=gateways[0].own_headers(), timeout=TIMEOUT).status_code == 200


@pytest.mark.parametrize(
    ("metrics", "headers", "status"),
    [("off", bearer("k"), 404), ("open", {}, 200), ("key", {}, 401), ("key", bearer("k"), 200)],
)
def test_metrics(
    start: Start, make_upstream: Callable[[], Upstream], metrics: str, headers: dict[str, str], status: int
) -> None:
    other = make_upstream()
    other.headers, other.pieces = "Content-Type: text/plain\r\n", [b"nv_inference_count 1\n"]
    url = start(metrics=metrics, api_keys=["k"], metrics_of=other)
    answer = requests.get(f"{url}/metrics", headers=headers, timeout=TIMEOUT)
    assert answer.status_code == status


def test_metrics_are_tritons(start: Start, make_upstream: Callable[[], Upstream]) -> None:
    triton = make_upstream()
    triton.headers, triton.pieces = "Content-Type: text/plain; charset=utf-8\r\n", [b"nv_inference_count 1\n"]
    answer = requests.get(start(metrics_of=triton, metrics="open") + "/metrics", timeout=TIMEOUT)
    assert (answer.text, answer.headers["Content-Type"]) == ("nv_inference_count 1\n", "text/plain; charset=utf-8")
    assert triton.received[0][0] == "GET /metrics HTTP/1.1"


PAGE = "https://chat.example.org"
NODE_HEADERS = "authorization,content-type,openai-organization,x-stainless-arch,x-stainless-retry-count,x-request-id"


def preflight(url: str, origin: str = PAGE, **more: str) -> requests.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": NODE_HEADERS}
    return requests.options(url + CHAT, headers={**asked, **more}, timeout=TIMEOUT)


def test_browsers_are_not_served_by_default(url: str, upstream: Upstream) -> None:
    upstream.events("{}")
    answers = [preflight(url), post(url, headers={"Origin": PAGE})]
    assert [answer.status_code for answer in answers] == [405, 200]
    assert not any(name.startswith("Access-Control") for answer in answers for name in answer.headers)


@pytest.mark.parametrize(("allowed", "said"), [(["*"], "*"), (["https://a.org", PAGE], PAGE)])
def test_a_page_may_ask_where_it_is_allowed(start: Start, upstream: Upstream, allowed: list[str], said: str) -> None:
    url = start(cors_origins=allowed, api_keys=["k"])
    asked = preflight(url)
    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (204, said)
    assert asked.headers["Access-Control-Allow-Headers"] == NODE_HEADERS
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert int(asked.headers["Access-Control-Max-Age"]) > 0
    assert ("Origin" in asked.headers.get("Vary", "")) == (said == PAGE)
    upstream.events("{}")
    for answer in (post(url, headers={"Origin": PAGE, **bearer("k")}), post(url, headers={"Origin": PAGE})):
        assert answer.headers["Access-Control-Allow-Origin"] == said
        assert "X-Request-ID" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Methods" not in answer.headers
    assert len(upstream.received) == 1


def test_a_page_may_not_ask_where_it_is_not_allowed(start: Start) -> None:
    url = start(cors_origins=["https://a.org"])
    for origin in (PAGE, "https://a.org.evil.org", "null", "https://A.org:1"):
        asked = preflight(url, origin)
        assert asked.status_code == 405
        assert "Access-Control-Allow-Origin" not in asked.headers
    odd = preflight(url, "https://a.org", **{"Access-Control-Request-Headers": 'a"b'})
    assert "Access-Control-Allow-Headers" not in odd.headers


@pytest.mark.parametrize(
    ("prefixes", "found", "missing"),
    [
        (["/v1", "/openai/v1"], ["/v1", "/openai/v1"], ["", "/openai"]),
        (["/openai/v1", ""], ["/openai/v1", ""], ["/v1"]),
    ],
)
def test_route_prefixes(
    start: Start, upstream: Upstream, prefixes: list[str], found: list[str], missing: list[str]
) -> None:
    upstream.events("{}")
    url = start(route_prefixes=prefixes)
    for prefix, status in [*((each, 200) for each in found), *((each, 404) for each in missing)]:
        assert requests.post(f"{url}{prefix}/chat/completions", b"{}", timeout=TIMEOUT).status_code == status
        assert requests.get(f"{url}{prefix}/models/a/b", timeout=TIMEOUT).status_code == status
    assert requests.get(f"{url}{prefixes[0]}/health", timeout=TIMEOUT).status_code == 200
    servers = requests.get(f"{url}/openapi.json", timeout=TIMEOUT).json()["servers"]
    assert servers == [{"url": prefix or "/"} for prefix in prefixes]


def test_the_description_is_served_to_everybody(start: Start) -> None:
    answer = requests.get(start(api_keys=["k"]) + "/openapi.json", timeout=TIMEOUT)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    shipped = json.loads((Path(__file__).parents[2] / "gateway" / "openapi.json").read_text())
    assert answer.json()["paths"] == shipped["paths"]
