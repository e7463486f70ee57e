"""Bodies that nobody means well by: none may give a 5xx, tell what is inside, or end a process."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from preprocessing import fields
from tests.e2e.conftest import Server
from tests.hostile import fault_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOKENIZE, DETOKENIZE = "/v1/tokenize", "/v1/detokenize"
MESSAGES = [{"role": "user", "content": "a"}]
AT_A_TIME = 4

# For every field of every route; what is a good value for one is a bad one for the others.
VALUES: list[Any] = [
    True, 0, -1, 1.5, 2**31, 2**63, -(2**63) - 1, 10**300, 1e308, "", "a", "1", "true", "null", "\0", "\u202e\ufeff",
    "../../etc/passwd", "${jndi:ldap://x}", "{{7*7}}", "'; DROP TABLE x; --", "x" * 100_000, [], [[]], [None], [1.5],
    ["a"] * 2000, [-1], [2**31], {}, {"a": None}, {"": {"": {}}}, [{}], {"type": "json_schema"},
    {"type": "regex", "regex": "(((((a+)+)+)+)+)+$"}, {"type": "json_schema", "json_schema": {"name": "a",
    "schema": 1}},
]  # fmt: skip

# As they travel, in each route's body.
RAW: list[bytes] = [
    b"", b" ", b"\0", b"{", b"}", b"[]", b"[{}]", b"null", b"nul", b"true", b"1", b'"a"', b"{}", b"{}{}", b"{} x",
    b"{'a':1}", b'{"a":1,}', b'{,"a":1}', b'{"a"}', b'{"a":}', b'{"a" 1}', b"{a:1}", b'{"a":01}', b'{"a":+1}',
    b'{"a":.5}', b'{"a":1.}', b'{"a":1e}', b'{"a":0x1}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}',
    b'{"a":undefined}', b'{"a":1e999999}', b'{"a":' + b"9" * 5000 + b"}", b'{"a":-' + b"9" * 400 + b".5}", b'{"a":"',
    b'{"a":"\n"}', b'{"a":"\t"}', b'{"a":"\0"}', b'{"a":"\\x41"}', b'{"a":"\\u12"}', b'{"a":"\\ud800"}',
    b'{"a":"\\udc00\\ud800"}', b'{"a":"\\u0000"}', b'{"\\ud800":1}', b'{"a":"\xff"}', b'{"a":"\xc0\x80"}',
    b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xe2\x82"}', b'\xef\xbb\xbf{"a":1}',
    '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-32"), b"/* a */ {}", b"// a\n{}", b"\x1f\x8b\x08",
    b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b'{"a":[' * 2000,
    b'{"stream":true,"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b"{" + b'"a":1,' * 50_000 + b'"b":1}',
    b'{"' + b"k" * 1_000_000 + b'":1}', b"a=1&b=2", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
    b"<xml/>", b'{"__proto__":{"stream":true}}', b'{"constructor":1}', b'{"model":"m","model":"n"}',
]  # fmt: skip

# Whole bodies: (route, members beside the model).
BODIES: list[tuple[str, dict[str, Any]]] = [
    *((CHAT, {"messages": messages}) for messages in (
        None, [], {}, "a", [None], [1], ["a"], [[]], [{}], [{"role": "user"}], [{"role": "x", "content": "a"}],
        [{"role": ["user"], "content": "a"}], [{"role": "user", "content": 1}], [{"role": "user", "content": [1]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:8000/v2"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
        [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"type": "text",
        "text": 1}]}],
        [{"role": "tool", "content": "a"}], [{"role": "user", "content": "a", "tool_calls": [{}]}],
        [{"role": "assistant", "tool_calls": [{"id": 1}]}], MESSAGES * 5000, [{"role": "user", "content": "a",
        "x": 1}],
        [{"role": "user", "content": "\0\u0001\u202e"}], [{"role": "user", "content": "{{ 7*7 }}{% for x in y %}"}],
        [{"role": "user", "content": "a" * 500_000}], [{"role": "user", "content": "a", "name": "../.."}],
    )),
    *((COMPLETIONS, {"prompt": prompt}) for prompt in (
        None, [], {}, 1, True, [None], [""], [[]], [[-1]], [[2**31]], [[2**64]], [1.5], [True], ["a", 1], [1, "a"],
        [[1], "a"], [[[1]]], ["a"] * 100, [0] * 100_000, [[0]] * 2000, "a" * 500_000, "\0", "\ufffe", [2**31],
    )),
    *((CHAT, {"messages": MESSAGES, "model": model}) for model in (
        None, 1, "", "x", "../openai_bls", "tensorrt_llm", "openai_bls", "a\0b", "a\r\nX: b", "a" * 100_000, "$(id)",
        ["m"],
    )),
    *((CHAT, {"messages": MESSAGES, "chat_template_kwargs": given}) for given in (
        {"messages": []}, {"tokenize": True}, {"chat_template": "{{ ''.__class__ }}"},
        {"enable_thinking": {"a": [1]}},
    )),
    (CHAT, {"messages": MESSAGES, "n": 128, "max_tokens": 100_000}),
    (CHAT, {"messages": MESSAGES, "chat_template": "{{ ''.__class__.__mro__ }}"}),
    (COMPLETIONS, {"prompt": "a", "n": 4, "best_of": 2}),
    (COMPLETIONS, {"prompt": ["a"] * 60, "n": 60}),
    *((TOKENIZE, body) for body in ({}, {"prompt": 1}, {"prompt": "a", "messages": MESSAGES}, {"messages": [{}]})),
    *((DETOKENIZE, body) for body in ({}, {"tokens": "a"}, {"tokens": [-1]}, {"tokens": [2**40]}, {"tokens": [[1]]})),
]  # fmt: skip


def table(model: str) -> Iterator[tuple[str, bytes]]:
    """(route, body)"""
    good = {CHAT: {"messages": MESSAGES}, COMPLETIONS: {"prompt": "a"}}
    for route, known in ((CHAT, fields.CHAT), (COMPLETIONS, fields.COMPLETIONS)):
        for name, value in itertools.product(known, VALUES):
            yield route, json.dumps({"model": model, "max_tokens": 1, **good[route], name: value}).encode()
    for route, raw in itertools.product((CHAT, COMPLETIONS, TOKENIZE, DETOKENIZE), RAW):
        yield route, raw
    for route, members in BODIES:
        yield route, json.dumps({"model": model, "max_tokens": 1} | members).encode()


def test_hostile_bodies(session_server: Server) -> None:
    server = session_server
    before = server.processes()
    found = list(table(server.model))
    assert len(found) >= 300
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        faults = [fault for fault in pool.map(lambda row: fault_in_answer(server, *row), found) if fault]
    assert not faults, f"{len(faults)} of {len(found)}:\n" + "\n".join(faults[:40])
    assert server.processes() == before
    assert server.complete("a", max_tokens=2)["usage"]["completion_tokens"] == 2
    logs = [file.read_text(errors="replace") for file in server.stack.settings.run_dir.rglob("*.log")]
    assert not any(re.search(r"Traceback|Segmentation|core dumped", log) for log in logs)


def fault_in_answer(server: Server, route: str, body: bytes) -> str | None:
    told = f"{route} {body[:160]!r}"
    try:
        answer = requests.post(server.url + route, body, timeout=30)
    except requests.RequestException as error:
        return f"{told}: {error!r}"
    fault = fault_of(answer.status_code, answer.content, sent=body.decode("latin-1"))
    return fault and f"{told}: {fault}"
