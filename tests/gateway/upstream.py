"""An upstream whose every byte the test decides: what Triton might send, cut where Triton would not."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass, field


@dataclass
class Upstream:
    """Answers each connection's request with `pieces`, one send each; remembers what came.

    Attributes:
        refusal: what it says when it is asked why it refused a request.
    """

    status: str = "200 OK"
    pieces: list[bytes] = field(default_factory=list)
    refusal: str = "{}"
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._socket.shutdown(socket.SHUT_RDWR)  # also ends a waiting accept
            self._socket.close()

    def events(self, *responses: str) -> None:
        """Sets the pieces: generate_stream events, one per piece."""
        self.pieces = [event(response) for response in responses]

    @property
    def body(self) -> dict[str, str]:
        """The last request's body."""
        found: dict[str, str] = json.loads(self.received[-1][2])
        return found

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = connection.makefile("rb")
        line = reader.readline().decode()
        if not line:
            return
        headers = {}
        while (header := reader.readline().decode().strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        self.received.append((line.strip(), headers, reader.read(int(headers.get("content-length", "0")))))
        asked_back = b'"endpoint":"refusal"' in self.received[-1][2]
        status, pieces = ("200 OK", [event(self.refusal)]) if asked_back else (self.status, self.pieces)
        connection.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode())
        for piece in pieces:
            connection.sendall(piece)


def event(response: str) -> bytes:
    answer = {"model_name": "openai_bls", "model_version": "1", "response": response}
    return b"data: " + json.dumps(answer, separators=(",", ":")).encode() + b"\n\n"  # compact, as Triton writes it
