"""An upstream whose every byte the test decides: what Triton might send, cut where Triton would not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass
class Upstream:
    """Answers each connection's request with `pieces`, one send each; remembers what came.

    Attributes:
        status: the status line's end; without one the connection is closed instead of an answer.
        headers: further header lines.
        refusal: what it says when it is asked why it refused a request.
        go: as long as this is not set, requests are read and not answered.
        broken_off: set once the gateway has not waited for the end of an answer.
    """

    status: str = "200 OK"
    headers: str = ""
    pieces: Iterable[bytes] = field(default_factory=list)
    refusal: str = "{}"
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    broken_off: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go.set()
        self._connections: set[socket.socket] = set()
        self.port = 0
        self.listen()

    def listen(self) -> None:
        """Anew after `kill`, on the same port."""
        self._killed = False
        self._socket = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._socket,), daemon=True).start()

    def close(self) -> None:
        self._stop_listening()
        self.go.set()

    def kill(self) -> None:
        """As a process that is killed: whatever is under way is broken off."""
        self._stop_listening()
        self._killed = True
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.go.set()

    def _stop_listening(self) -> None:
        if self._socket.fileno() >= 0:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # also ends a waiting accept
            self._socket.close()

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def events(self, *responses: str) -> None:
        """Sets the pieces: generate_stream events, one per piece."""
        self.pieces = [event(response) for response in responses]

    @property
    def body(self) -> dict[str, str]:
        """The last request's body."""
        found: dict[str, str] = json.loads(self.received[-1][2])
        return found

    @property
    def asked_back(self) -> list[str]:
        """The tickets of the refusals it was asked for."""
        bodies = [json.loads(body) for _, _, body in self.received if body]
        return [body["request"] for body in bodies if body["endpoint"] == "refusal"]

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        self._connections.add(connection)
        try:
            self._converse(connection)
        except OSError:
            self.broken_off.set()
        finally:
            self._connections.discard(connection)
            connection.close()

    def _converse(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection.makefile("rb") as reader:
            line = reader.readline().decode()
            if not line:
                return
            headers = {}
            while (header := reader.readline().decode().strip()) != "":
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
            body = reader.read(int(headers.get("content-length", "0")))
        self.received.append((line.strip(), headers, body))
        asked_back = b'"endpoint":"refusal"' in body
        status, pieces = ("200 OK", [event(self.refusal)]) if asked_back else (self.status, self.pieces)
        self.go.wait()
        if not status or self._killed:
            return
        connection.sendall(f"HTTP/1.1 {status}\r\n{self.headers}Connection: close\r\n\r\n".encode())
        for piece in pieces:
            connection.sendall(piece)


def event(response: str) -> bytes:
    answer = {"model_name": "openai_bls", "model_version": "1", "response": response}
    return b"data: " + json.dumps(answer, separators=(",", ":")).encode() + b"\n\n"  # compact, as Triton writes it
