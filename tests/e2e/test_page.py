"""The page with the real server and the model that ships with it: a newcomer's first minutes.

`python -m tests.e2e.test_page` takes the picture of docs/page.md anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import requests

from launcher.gateway import Rules
from launcher.stack import Settings, Stack
from tests.browser import Browser
from tests.e2e.test_serve import free_ports

ROOT = Path(__file__).resolve().parents[2]


def visit(browser: Browser, stack: Stack) -> None:
    browser.open(f"{stack.url}/")
    browser.wait("document.querySelector('#model').value === 'tiny-chat'")
    browser.ask("document.querySelectorAll('aside > form details').forEach(each => each.open = true)")
    browser.type("0", "[name=temperature]")


def say(browser: Browser, text: str) -> None:
    browser.type(text, "#text")
    browser.press("Enter")


def wait_for_answers(browser: Browser, count: int) -> None:
    browser.wait(f"document.querySelectorAll('[aria-busy=false]').length === {count}")


def think(browser: Browser, effort: str) -> None:
    browser.ask(f"document.querySelector('[name=reasoning_effort]').value = '{effort}'")


def ask_about_the_weather(browser: Browser, answers: int = 0) -> None:
    """A call, its result, an answer, after so many others."""
    browser.click("#example")
    say(browser, "What is the weather in Paris?")
    wait_for_answers(browser, answers + 1)
    browser.type('{"temperature": 14, "condition": "sunny"}', ".result")
    browser.click(".call button")
    wait_for_answers(browser, answers + 2)


def test_an_answer_with_its_figures_and_its_code(browser: Browser, tiny_chat: Stack) -> None:
    visit(browser, tiny_chat)
    say(browser, "What is the capital of France?")
    wait_for_answers(browser, 1)
    answer = browser.text(".content")
    assert "Paris" in answer
    note = (
        r"finished: stop · first token after \d+ ms(?: · [\d.]+ tokens/s)? · \d+ tokens in(?: \(\d+ cached\))?, \d+ out"
    )
    assert re.fullmatch(note, browser.text(".note"))
    browser.wait("/Running\\s+\\d/.test(document.querySelector('#counters').innerText)")
    codes = {"bash": "#curl", sys.executable: "#python"}
    for program, place in codes.items():
        code = browser.ask(f"document.querySelector('{place}').textContent")
        done = subprocess.run([program], input=code, capture_output=True, encoding="utf-8", timeout=60, check=True)
        said = "".join(re.findall(r'"content":"([^"]*)"', done.stdout)) if program == "bash" else done.stdout
        assert said == answer
    assert browser.complaints == []


def test_a_call_and_its_result(browser: Browser, tiny_chat: Stack) -> None:
    visit(browser, tiny_chat)
    ask_about_the_weather(browser)
    assert (browser.text(".call code"), browser.text(".call pre")) == ("get_weather", '{"city": "Paris"}')
    assert "14" in browser.text(".content") and "sunny" in browser.text(".content")
    assert browser.complaints == []


def test_a_thought(browser: Browser, tiny_chat: Stack) -> None:
    visit(browser, tiny_chat)
    think(browser, "low")
    say(browser, "What is the capital of France?")
    wait_for_answers(browser, 1)
    thought = browser.ask("document.querySelector('.reasoning .text').textContent")
    assert thought and "Paris" in browser.text(".content") and thought not in browser.text(".content")


def test_the_servers_own_words(browser: Browser, tiny_chat: Stack) -> None:
    visit(browser, tiny_chat)
    browser.type("99999999", "[name=max_tokens]")
    say(browser, "Hi!")
    wait_for_answers(browser, 1)
    assert re.fullmatch(r".*maximum context length.* \(400\)", browser.text(".note.error"))


def take_picture(file: Path) -> None:
    """A thought, a call and its result; what was sent as code; the counters."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(Path(folder, "run"), "127.0.0.1", *free_ports(3), rules=Rules(metrics="open"))
        browser = Browser(Path(folder, "profile"))
        with Stack(settings) as stack:
            requests.get(f"{stack.base_url}/models", timeout=300).raise_for_status()
            visit(browser, stack)
            browser.resize(1100, 900)
            think(browser, "low")
            say(browser, "What is the capital of France?")
            wait_for_answers(browser, 1)
            think(browser, "")
            ask_about_the_weather(browser, answers=1)
            browser.ask("document.querySelector('.reasoning').open = true")
            browser.ask("document.querySelectorAll('aside details').forEach(e => e.open = e.id === 'snippets')")
            browser.ask("document.querySelector('aside').scrollTop = 0")
            browser.ask("new Promise(done => setTimeout(done, 2500))")  # the counters' next look
            file.write_bytes(browser.picture())
        browser.close()


if __name__ == "__main__":
    take_picture(ROOT / "docs" / "page.png")
