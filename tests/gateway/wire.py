"""How the tests of the gateway speak HTTP: as usual, to the letter, and byte by byte."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests

CHAT = "/v1/chat/completions"
TIMEOUT = 10


def post(url: str, body: bytes = b"{}", **options: Any) -> requests.Response:
    return requests.post(url + CHAT, data=body, timeout=TIMEOUT, **options)


def exactly(method: str, url: str, path: str, **options: Any) -> requests.Response:
    """The path as it stands: `requests` itself would tidy it up."""
    request = requests.Request(method, url, **options).prepare()
    request.url = url + path
    with requests.Session() as session:
        return session.send(request, timeout=TIMEOUT)


def connect(url: str, receive_buffer: int | None = None) -> socket.socket:
    host, port = url.split("//")[1].split(":")
    connection = socket.socket()
    connection.settimeout(TIMEOUT)
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.connect((host, int(port)))
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    answer = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            answer += piece
    return answer


def raw(url: str, request: bytes) -> bytes:
    """What comes back for these bytes until the other side closes."""
    with connect(url) as connection:
        connection.sendall(request)
        return rest_of(connection)


def eventually(condition: Callable[[], bool], seconds: float = TIMEOUT) -> bool:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def settled(condition: Callable[[], bool]) -> bool:
    """Waits until something stays so: after a reload old and new workers both take connections for a moment."""
    return eventually(lambda: all(condition() for _ in range(10) if not time.sleep(0.03)))


def error_of(answer: requests.Response) -> dict[str, Any]:
    """The error object, which has to be one of OpenAI's."""
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
