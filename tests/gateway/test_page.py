"""The page at the root, behind the real nginx, in a real browser; what it is answered is up to the test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.browser import Browser
from tests.gateway.conftest import ROOT, Start
from tests.gateway.upstream import Upstream, event
from tests.gateway.wire import TIMEOUT, error_of, eventually

FILES = sorted(file.name for file in (ROOT / "gateway" / "page").iterdir())
MODELS = '{"object":"list","data":[{"id":"first","object":"model"},{"id":"second","object":"model"}]}'
DONE = "data: [DONE]\n\n"
# Everything that means something to a shell, to Python, to JSON or to HTML.
HOSTILE = (
    'it\'s "quoted" `id` $(id) $HOME \\ \\n %s {0} !! é 😀 \u2028\u0085 \x7f <b onclick=x>&amp;\n'
    "JSON\n'''\n\"\"\"\n#{}\ttab\r\nEOF\n\\"
)


def chunk(finish: str | None = None, **delta: Any) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


def usage(prompt: int, completion: int) -> str:
    counted = {"prompt_tokens": prompt, "completion_tokens": completion}
    return f"data: {json.dumps({'choices': [], 'usage': counted})}\n\n"


ANSWER = [chunk(role="assistant", content=""), chunk(content="Hello."), chunk("stop"), usage(5, 3), DONE]


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_what_it_consists_of_is_served_as_it_is(url: str, upstream: Upstream, file: str) -> None:
    path = "/" if file == "index.html" else f"/page/{file}"
    answer = requests.get(url + path, timeout=TIMEOUT)
    kinds = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml",
             "js": "text/javascript; charset=utf-8"}  # fmt: skip
    assert answer.headers["Content-Type"] == kinds[file.rpartition(".")[2]]
    text = (ROOT / "gateway" / "page" / file).read_text(encoding="utf-8")
    assert answer.content.decode() == text.replace("@PREFIXES@", "/v1|").replace("@METRICS@", "off")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';") and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Referrer-Policy"] == "no-referrer"
    head = requests.head(url + path, timeout=TIMEOUT)
    assert (head.status_code, head.content) == (200, b"") and upstream.received == []


def test_it_can_be_switched_off(start: Start) -> None:
    url = start(page="off")
    for path in ("/", *(f"/page/{file}" for file in FILES)):
        answer = requests.get(url + path, timeout=TIMEOUT)
        assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


ELSE = ["/page/", "/page", "/page/index.html", "/page/none.js", "/page/page.js/", "/page/a/b.js"]


@pytest.mark.parametrize("path", ELSE)
def test_there_is_nothing_else(url: str, path: str) -> None:
    answer = requests.get(url + path, timeout=TIMEOUT)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "not_found")


def test_it_needs_no_key_and_has_none(start: Start) -> None:
    url = start(api_keys=["sk-first"])
    texts = [requests.get(url + path, timeout=TIMEOUT) for path in ("/", "/page/page.js", "/page/server.js")]
    assert all(each.status_code == 200 and "sk-first" not in each.text for each in texts)


# --- In a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser: Browser, url: str, upstream: Upstream) -> Iterator[Browser]:
    """At the page, with its models listed; nothing that happens may displease the browser."""
    visit(browser, url, upstream)
    yield browser
    assert browser.complaints == []
    assert all(each.startswith(f"{url}/") for each in browser.requested)


def visit(browser: Browser, url: str, upstream: Upstream) -> None:
    upstream.events(MODELS)
    browser.open(f"{url}/")
    browser.wait("document.querySelector('#model').value")


def send(page: Browser, text: str) -> None:
    page.type(text, "#text")
    page.press("Enter")


def ended(page: Browser, answers: int = 1) -> str:
    """Waits for so many answers to end; what stands below the last one."""
    page.wait(f"document.querySelectorAll('[aria-busy=false]').length === {answers}")
    return page.text("article:last-of-type .note")


def sent(upstream: Upstream) -> Any:
    """The last request, as the model gets it."""
    return json.loads(upstream.body["request"])


def test_a_conversation(page: Browser, upstream: Upstream) -> None:
    assert page.ask("[...document.querySelector('#model').options].map(o => o.value)") == ["first", "second"]
    page.ask("document.querySelector('#model').value = 'second'")
    upstream.events(*ANSWER)
    send(page, "Hi!")
    note = ended(page)
    assert (page.text(".user .text"), page.text(".assistant .content")) == ("Hi!", "Hello.")
    assert re.search(r"finished: stop · first token after \d+ ms.* · 5 tokens in, 3 out$", note)
    hi = {"role": "user", "content": "Hi!"}
    assert sent(upstream) == {
        "model": "second", "messages": [hi], "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    send(page, "And?")
    ended(page, 2)
    answer = {"role": "assistant", "content": "Hello."}
    assert sent(upstream)["messages"] == [hi, answer, {"role": "user", "content": "And?"}]
    page.click("#new")
    send(page, "Anew.")
    ended(page)
    assert sent(upstream)["messages"] == [{"role": "user", "content": "Anew."}]


def test_settings_become_members(page: Browser, upstream: Upstream) -> None:
    upstream.events(*ANSWER)
    values = {"system": "Be brief.", "temperature": "0.5", "top_p": "0.9", "max_tokens": "7", "seed": "-3",
              "stop": "\\n\nEND \n"}  # fmt: skip
    for name, value in values.items():
        page.type(value, f"[name={name}]")
    page.ask("document.querySelector('[name=reasoning_effort]').value = 'low'")
    send(page, "Hi!")
    ended(page)
    request = sent(upstream)
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: request[name] for name in [*values, "reasoning_effort"] if name != "system"} == {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "seed": -3, "stop": ["\n", "END "],
        "reasoning_effort": "low",
    }  # fmt: skip


WRONG = [("temperature", "3"), ("max_tokens", "0"), ("tools", "[{"), ("tools", "{}")]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_setting_is_shown_and_not_sent(page: Browser, upstream: Upstream, field: str, value: str) -> None:
    asked = len(upstream.received)
    page.ask("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.type(value, f"[name={field}]")
    page.ask("document.querySelectorAll('details').forEach(each => each.open = false)")
    send(page, "Hi!")
    assert page.ask(f"document.activeElement.matches('[name={field}]:invalid')")
    assert page.ask("document.activeElement.validationMessage && document.querySelector('#text').value") == "Hi!"
    assert len(upstream.received) == asked


@pytest.mark.parametrize("member", ["reasoning_content", "reasoning"])
def test_thoughts_are_apart(page: Browser, upstream: Upstream, member: str) -> None:
    upstream.events(chunk(**{member: "Hm, "}), chunk(**{member: "yes."}), chunk(content="Yes."), chunk("stop"), DONE)
    send(page, "Sure?")
    ended(page)
    assert page.text(".assistant .content") == "Yes."
    assert page.ask("document.querySelector('.reasoning').open") is False
    page.click(".reasoning summary")
    assert page.text(".reasoning .text") == "Hm, yes."


def test_calls_and_their_results(page: Browser, upstream: Upstream) -> None:
    page.click("aside details:nth-of-type(2) summary")
    page.click("#example")
    page.ask("document.querySelector('[name=tool_choice]').value = 'get_weather'")
    paris, rome = {"name": "get_weather", "arguments": ""}, {"name": "get_weather", "arguments": '{"city":"Rome"}'}
    first = {"index": 0, "id": "a1", "type": "function", "function": paris}
    second = {"index": 1, "id": "a2", "type": "function", "function": rome}
    upstream.events(
        chunk(tool_calls=[first]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"city": '}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '"Paris"}'}}, second]),
        chunk("tool_calls"),
        DONE,
    )
    send(page, "Weather?")
    ended(page)
    request = sent(upstream)
    assert request["tools"][0]["function"]["name"] == "get_weather"
    assert request["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert page.ask("[...document.querySelectorAll('.call pre')].map(each => each.innerText)") == [
        '{"city": "Paris"}', '{"city":"Rome"}',
    ]  # fmt: skip
    upstream.events(*ANSWER)
    page.type("14 degrees", ".call:nth-of-type(1) .result")
    page.type("20 degrees", ".call:nth-of-type(2) .result")
    page.click(".call button")
    ended(page, 2)
    asked, *results = sent(upstream)["messages"][1:]
    assert [call["function"]["arguments"] for call in asked["tool_calls"]] == ['{"city": "Paris"}', '{"city":"Rome"}']
    assert asked["content"] is None
    assert results == [
        {"role": "tool", "tool_call_id": "a1", "content": "14 degrees"},
        {"role": "tool", "tool_call_id": "a2", "content": "20 degrees"},
    ]
    assert page.ask("document.querySelectorAll('.call button').length") == 0


def test_an_answer_never_becomes_html(page: Browser, upstream: Upstream) -> None:
    text = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&lt;"
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": text, "arguments": text}}
    upstream.events(chunk(reasoning=text), chunk(content=text), chunk(tool_calls=[call]), chunk("tool_calls"), DONE)
    send(page, text)
    ended(page)
    assert page.ask("document.querySelectorAll('#log img, #log script').length") == 0
    assert [page.text(each) for each in (".user .text", ".content", ".call code", ".call pre")] == [text] * 4
    assert page.ask("document.title") == "openai_bls"


def test_an_error_in_midstream(page: Browser, upstream: Upstream) -> None:
    upstream.events(chunk(content="Half"), 'data: {"error":{"message":"The engine broke."}}\n\n')
    send(page, "Hi!")
    assert ended(page).startswith("The engine broke. · first token")
    assert page.text(".content") == "Half" and page.ask("document.querySelector('.note.error') !== null")


def test_an_answer_that_breaks_off(page: Browser, upstream: Upstream) -> None:
    upstream.events(chunk(content="Half"))
    send(page, "Hi!")
    assert "broke off" in ended(page)
    assert page.text("#text") == "" and page.text(".content") == "Half"


FULL = "The server has as many requests waiting as it accepts. Try again later. (429, try again in 1 s)"
REFUSALS = [
    ("501 Not Implemented", FULL),
    ("500 Internal Server Error", "The server had an error while processing the request. (500)"),
]


@pytest.mark.parametrize(("status", "note"), REFUSALS)
def test_a_refusal_gives_the_message_back(
    browser: Browser, url: str, upstream: Upstream, status: str, note: str
) -> None:
    visit(browser, url, upstream)
    upstream.status, upstream.pieces = status, []
    send(browser, "Hi!")
    assert ended(browser) == note
    assert browser.ask("document.querySelector('#text').value") == "Hi!"
    assert browser.ask("document.querySelector('.user').classList.contains('struck')")
    upstream.status = "200 OK"
    upstream.events(*ANSWER)
    browser.click("#send")
    ended(browser, 2)
    assert sent(upstream)["messages"] == [{"role": "user", "content": "Hi!"}]


@pytest.mark.parametrize("how", ["button", "key"])
def test_an_answer_is_stopped(page: Browser, upstream: Upstream, how: str) -> None:
    def endless() -> Iterator[bytes]:
        while not upstream.broken_off.wait(0.02):
            yield event(chunk(content="word "))

    upstream.pieces = endless()
    send(page, "Hi!")
    page.wait("document.querySelector('.content').innerText.includes('word word')")
    if how == "button":
        page.click("#stop")
    else:
        page.press("Escape")
    assert ended(page).startswith("Stopped.")
    assert eventually(upstream.broken_off.is_set)
    upstream.events(*ANSWER)
    send(page, "And?")
    ended(page, 2)
    assert sent(upstream)["messages"][1]["content"].startswith("word word")


def test_keys(browser: Browser, start: Start, upstream: Upstream) -> None:
    url = start(api_keys=["sk-first"], metrics="key")
    upstream.events(MODELS)
    browser.open(url)
    browser.wait("document.querySelector('#state').textContent.includes('Incorrect API key')")
    assert browser.ask("document.activeElement.id") == "key"
    browser.type("sk-first")
    browser.press("Tab")
    browser.wait("document.querySelector('#model').value")
    assert browser.text("#state") == ""
    upstream.events(*ANSWER)
    send(browser, "Hi!")
    ended(browser)
    assert browser.text(".content") == "Hello."
    code = browser.ask("document.querySelector('#snippets').textContent")
    assert code.count("OPENAI_API_KEY") == 2 and "sk-first" not in code
    stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    assert browser.ask(stored) == '[{},{},""]'


def test_the_prefix_is_the_gateways(browser: Browser, start: Start, upstream: Upstream) -> None:
    url = start(route_prefixes=["/llm/v9"])
    visit(browser, url, upstream)
    upstream.events(*ANSWER)
    send(browser, "Hi!")
    ended(browser)
    assert f"{url}/llm/v9/chat/completions" in browser.requested
    assert f"'{url}/llm/v9/chat/completions'" in browser.ask("document.querySelector('#curl').textContent")


def test_figures_of_an_answer(page: Browser) -> None:
    """Sent at 1000 ms, something to be seen at 1200 ms, three more tokens until the last chunk."""
    call = [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]
    told = {"choices": [], "usage": {"completion_tokens": 4}}
    text = {"content": "a"}
    for first, last, figures in (
        (text, 1700, [200, 6]),
        (text, 1215, [200, None]),
        ({"tool_calls": call}, 1700, [200, 3 / 0.7]),
        ({}, 1700, [None, None]),
    ):
        deltas = [{"role": "assistant", "content": ""}, first, {}]
        chunks = [{"choices": [{"delta": delta}]} for delta in deltas] + [told]
        found = page.ask(
            f"""import('/page/answer.js').then(({{Answer}}) => {{
                const answer = new Answer(1000);
                {json.dumps(chunks)}.forEach((chunk, i) => answer.take(chunk, [1100, 1200, {last}, 9000][i]));
                return [answer.firstAfter, answer.rate];
            }})"""
        )
        assert found == pytest.approx(figures)


METRICS = """# HELP x_generation_tokens_total Tokens.
x_generation_tokens_total{model_name="a b}",instance="1"} %d
x_generation_tokens_total{model_name="c",instance="2"} 500
x_num_requests_running 2.0
x_num_requests_waiting_for_tea 9
x_time_to_first_token_seconds_sum{m="a"} 0.5
x_time_to_first_token_seconds_count{m="a"} 10
nv_inference_request_success{model="openai_bls",version="1"} 3
nv_inference_request_success{model="tensorrt_llm",version="1"} 7
"""


def test_counters(page: Browser) -> None:
    rows = page.ask(
        f"""import('/page/counters.js').then(({{rows, sample}}) => {{
            const [a, b] = {json.dumps([METRICS % 1000, METRICS % 1100])}.map((text, i) => sample(text, i * 2000));
            return [rows(null, a), rows(a, b), rows(b, sample('', 1))];
        }})"""
    )
    before = [["Running", "2"], ["Requests", "3"], ["Tokens", "1,500"], ["First token, mean ms", "50"]]
    after = [*before[:2], ["Tokens", "1,600"], ["Tokens/s", "50"], before[-1]]
    assert rows == [before, after, []]


def test_counters_are_shown_where_they_can_be_read(browser: Browser, start: Start, upstream: Upstream) -> None:
    url = start(metrics="open")
    visit(browser, url, upstream)
    upstream.pieces = [(METRICS % 1000).encode()]
    upstream.headers = "Content-Type: text/plain\r\n"
    browser.wait("document.querySelector('#counters').innerText.includes('1,500')")


def test_without_metrics_nobody_asks_for_them(page: Browser) -> None:
    assert page.ask("document.querySelector('#counters').hidden")
    assert not [each for each in page.requested if "metrics" in each]


STREAM = (
    ': keep-alive\r\n\r\ndata: {"é": "😀"}\n\n:\n\nevent: x\rdata:a\rdata:  b\r\r\nid: 1\n\n'
    "data: one\r\ndata: two\r\n\r\ndata: last\n\ndata: unfinished"
)


def test_events_may_be_cut_anywhere(page: Browser) -> None:
    read = page.ask(
        f"""import('/page/events.js').then(({{EventReader}}) => {{
            const bytes = new TextEncoder().encode({json.dumps(STREAM)});
            const readings = [...bytes.keys()].map(cut => {{
                const reader = new EventReader();
                return [bytes.slice(0, cut), bytes.slice(cut)].flatMap(part => reader.push(part));
            }});
            const slow = new EventReader();
            return [...readings, [...bytes].flatMap(byte => slow.push(Uint8Array.of(byte)))];
        }})"""
    )
    assert len(read) == len(STREAM.encode()) + 1
    assert all(events == ['{"é": "😀"}', "a\n b", "one\ntwo", "last"] for events in read)


# --- Code to paste ---------------------------------------------------------------------------------------------------


def snippets(page: Browser, base: str, request: Any, with_key: bool) -> tuple[str, str]:
    arguments = ", ".join(json.dumps(each) for each in (base, request, with_key))
    both = page.ask(f"import('/page/snippets.js').then(({{curl, python}}) => [curl({arguments}), python({arguments})])")
    return both[0], both[1]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"enum": [None, True, False, 1e-7, HOSTILE]}}}
PASTED = {
    "model": "first",
    "messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": None}],
    "temperature": 0.1,
    "seed": -9007199254740991,
    "stop": ["\n", "'", "\\", "\x00\x1b"],
    "tools": [TOOL],
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.mark.parametrize("with_key", [True, False])
def test_pasted_code_sends_the_same_request(
    page: Browser, start: Start, upstream: Upstream, tmp_path: Path, with_key: bool
) -> None:
    url = start(api_keys=["sk-$it's"]) if with_key else start()
    curl, python = snippets(page, f"{url}/v1", PASTED, with_key)
    upstream.events(*ANSWER)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_PROXY")}
    environment |= {"OPENAI_API_KEY": "sk-$it's"} if with_key else {}
    for command, code, output in ((["bash"], curl, "".join(ANSWER)), ([sys.executable, "-"], python, "Hello.")):
        upstream.received.clear()
        done = subprocess.run(
            command, input=code, capture_output=True, encoding="utf-8", cwd=tmp_path, env=environment, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, output), done.stderr
        assert sent(upstream) == PASTED
    assert "sk-$it's" not in curl + python


@pytest.mark.parametrize("base", ["http://h/it's/$(id)/`id`/v1", "http://h/a b\\/v1"])
def test_no_address_breaks_out_of_pasted_code(page: Browser, base: str) -> None:
    curl, python = snippets(page, base, {"model": "first"}, False)
    shown = subprocess.run(
        ["bash"], input=f"curl() {{ printf '%s\\0' \"$@\"; }}\n{curl}", capture_output=True, text=True, check=True
    )
    assert shown.stdout.split("\0")[1] == f"{base}/chat/completions"
    found: dict[str, Any] = {}
    with suppress(LookupError):
        exec(python.replace("from openai import", "from tests.gateway.test_page import"), found)  # noqa: S102
    assert OpenAI.last == base


class OpenAI:
    """Stands for the client that pasted code makes."""

    last = ""

    def __init__(self, base_url: str, api_key: str) -> None:
        OpenAI.last = base_url
        raise LookupError


# --- Whoever uses it -------------------------------------------------------------------------------------------------


def test_a_keyboard_is_enough(page: Browser, upstream: Upstream) -> None:
    upstream.events(*ANSWER)
    assert page.ask("document.activeElement.id") == "text"
    page.type("one")
    page.press("Enter", shift=True)
    page.type("two")
    page.press("Enter")
    ended(page)
    assert sent(upstream)["messages"][0]["content"] == "one\ntwo"
    reached = []
    for _ in range(25):
        page.press("Tab")
        reached.append(page.ask("(e => e.id || e.name || e.innerText)(document.activeElement)"))
    for name in ("model", "new", "log", "text", "send", "key", "system", "seed", "Tools", "Last request as code"):
        assert name in reached, reached


def test_every_field_has_a_name(page: Browser) -> None:
    unnamed = "[...document.querySelectorAll('input, textarea, select')].filter(e => !e.labels.length && !e.ariaLabel)"
    assert page.ask(f"{unnamed}.length") == 0


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_phone(page: Browser, upstream: Upstream, width: int) -> None:
    page.resize(width, 700)
    upstream.events(chunk(content="a" * 500), chunk("stop"), DONE)
    send(page, "Hi!")
    ended(page)
    page.ask("document.querySelectorAll('aside details').forEach(each => each.open = true)")
    assert page.ask("document.documentElement.scrollWidth") <= width
    log = "document.querySelector('#log')"
    assert page.ask(f"{log}.scrollWidth === {log}.clientWidth && {log}.clientHeight > 80")
    assert page.ask("document.querySelector('#send').getBoundingClientRect().right") <= width


def test_dark_where_it_is_asked_for(page: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page.prefer("light")
    light = page.ask(ground)
    page.prefer("dark")
    assert page.ask(ground) != light
