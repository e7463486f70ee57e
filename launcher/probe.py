"""The first requests through the finished server: is it really answering, and what is its model called?

In: the address and what opens it. Out: what the examples printed for the user need. Plain HTTP, nothing of Triton.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher import opener
from launcher.errors import LaunchError

RETRY_STATUS = (429, 502, 503, 504)
"""Answers of a server that is still coming up, or asked to go slowly."""


@dataclass(frozen=True)
class Working:
    """A server that has answered a completion; `chat` tells whether its model can chat as well."""

    model: str
    chat: bool


@dataclass(frozen=True)
class Door:
    """Where the server is: `url` as clients' base URL, the headers that let one in, the certificate to trust."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None


def wait_until_working(door: Door, timeout_s: float, still_alive: Callable[[], None]) -> Working:
    """`still_alive` is called while waiting and may raise."""
    deadline = time.monotonic() + timeout_s
    model = _name_in(_insist(lambda: _call(door, "models", None), deadline, still_alive), door)
    prompt = {"model": model, "max_tokens": 1}
    _insist(lambda: _call(door, "completions", {**prompt, "prompt": "Hello"}), deadline, still_alive)
    messages = [{"role": "user", "content": "Hello"}]
    try:
        _call(door, "chat/completions", {**prompt, "messages": messages})
    except _Refused:
        return Working(model, chat=False)  # a base model without a chat template
    return Working(model, chat=True)


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


def _insist(call: Callable[[], dict[str, Any]], deadline: float, still_alive: Callable[[], None]) -> dict[str, Any]:
    while True:
        try:
            return call()
        except _Refused as refused:
            if refused.status not in RETRY_STATUS:
                raise LaunchError(f"The server started, but refuses a first completion: {refused}.") from None
            last = str(refused)
        except (OSError, http.client.HTTPException) as error:
            last = str(error) or type(error).__name__
        still_alive()
        if time.monotonic() > deadline:
            raise LaunchError(f"The server started, but a first completion did not succeed in time: {last}.")
        time.sleep(0.2)


def _name_in(models: dict[str, Any], door: Door) -> str:
    """The first model's name in an answer of /v1/models."""
    try:
        return str(models["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise _somebody_else(door) from None


def _somebody_else(door: Door) -> LaunchError:
    return LaunchError(f"Another program answers at {door.url}, not this server: choose another port with --port.")


def _call(door: Door, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **door.headers}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{door.url}/{path}", data, headers)
    try:
        with opener.direct(door.tls).open(request, timeout=60) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace").strip()
        raise _Refused(error.code, text[:300]) from None
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise _somebody_else(door) from None
