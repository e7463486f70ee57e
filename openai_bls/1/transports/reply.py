"""One HTTP/1.1 response, read piece by piece: bytes → the data of its server-sent events.

No IO. Made for what Triton's generate_stream sends: a short head, then chunks that are events. It is on the way of
every token, so it does no more than that: no compression, no trailers that mean something, no `event:` or `id:` lines.
Source: RFC 9112; the HTML standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

MAX_HEAD = 64 * 1024  # bytes
MAX_LINE = 64 * 1024 * 1024  # bytes: logits of some positions, as text, are the longest
MAX_BODY = 64 * 1024  # bytes of an answer that is no stream: an error object
MAX_SIZE_LINE = 4096  # bytes of a chunk's size and extensions, or of a trailer
MAX_SIZE_DIGITS = 8
HEX = b"0123456789abcdefABCDEF"
EVENTS = b"text/event-stream"
BODILESS = (204, 304)
VERSIONS = b"HTTP/1."


class UnreadableError(ValueError):
    """What came is no HTTP response, or larger than any that was asked for."""


class Reply:
    """Takes a response as it comes.

    Attributes:
        status: HTTP status; 0 until the head is there.
        streams: whether the body is server-sent events; if not, it comes out as one piece when it is whole.
        done: the response is over.
        lasts: whether the connection can carry another one then.
    """

    def __init__(self) -> None:
        self.status = 0
        self.streams = False
        self.done = False
        self.lasts = False
        self._head = b""
        self._framing: Framing = UntilClosed()
        self._lines = Lines()
        self._data: list[bytes] = []
        self._body: list[bytes] = []
        self._body_size = 0

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self.status or self._head)

    def push(self, piece: bytes) -> list[bytes]:
        """Takes the next bytes; returns the data of the events that are whole, or the whole body.

        Raises:
            UnreadableError
        """
        if self.done:
            raise UnreadableError("bytes behind the end of the response")
        if not self.status:
            piece = self._read_head(piece)
            if not self.status:
                return []
        content = self._framing.push(piece) if piece else []
        found = self._events(content) if self.streams else self._collect(content)
        if self._framing.over:
            self.done = True
            found += self._rest()
        return found

    def end(self) -> list[bytes]:
        """The connection was closed.

        Raises:
            UnreadableError: in the middle of the response.
        """
        if self.done:
            return []
        if not self.status or not isinstance(self._framing, UntilClosed):
            raise UnreadableError("the connection was closed in the middle of the response")
        self.done, self.lasts = True, False
        return self._rest()

    def _read_head(self, piece: bytes) -> bytes:
        """Returns what lies behind the head. Interim responses (1xx) are passed over."""
        self._head += piece
        while not self.status:
            if not self._head.startswith(VERSIONS[: len(self._head)]):
                raise UnreadableError("no HTTP response")
            end = self._head.find(b"\r\n\r\n")
            if (len(self._head) if end < 0 else end) > MAX_HEAD:
                raise UnreadableError("the head of the response is too long")
            if end < 0:
                return b""
            head, self._head = self._head[:end], self._head[end + 4 :]
            self._understand(*parsed(head))
        return self._head

    def _understand(self, status: int, version: bytes, headers: dict[bytes, bytes]) -> None:
        if status < 200:
            return
        self.status = status
        self._framing = framing(status, headers)
        self.streams = headers.get(b"content-type", b"").lower().startswith(EVENTS)
        closes = b"close" in headers.get(b"connection", b"").lower() or version != b"HTTP/1.1"
        self.lasts = not closes and not isinstance(self._framing, UntilClosed)

    def _events(self, content: list[bytes]) -> list[bytes]:
        found = []
        for piece in content:
            for line in self._lines.push(piece):
                if line.startswith(b"data:"):
                    self._data.append(line[5:])
                elif self._data and line in (b"", b"\r"):
                    found.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data = []
        return found

    def _collect(self, content: list[bytes]) -> list[bytes]:
        self._body += content
        self._body_size += sum(map(len, content))
        if self._body_size > MAX_BODY:
            raise UnreadableError("the answer is no stream and too long")
        return []

    def _rest(self) -> list[bytes]:
        """A body that is no stream. An event that lacks its empty line is none."""
        return [] if self.streams else [b"".join(self._body)]


class Lines:
    """Pieces → whole lines, without their LF."""

    def __init__(self) -> None:
        self._open: list[bytes] = []
        self._size = 0

    def push(self, piece: bytes) -> list[bytes]:
        """Raises UnreadableError for a line of more than MAX_LINE bytes."""
        *whole, rest = piece.split(b"\n")
        if whole and self._open:
            whole[0] = b"".join((*self._open, whole[0]))
            self._open, self._size = [], 0
        if rest:
            self._open.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE:
                raise UnreadableError("a line of the response is too long")
        return whole


class Framing(Protocol):
    """Where a body ends.

    Attributes:
        over: it has ended.
    """

    over: bool

    def push(self, piece: bytes) -> list[bytes]:
        """The content in a piece of the body."""


class UntilClosed:
    """With the connection."""

    over = False

    def push(self, piece: bytes) -> list[bytes]:
        return [piece]


class Sized:
    """After so many bytes (Content-Length)."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.over = size == 0

    def push(self, piece: bytes) -> list[bytes]:
        if len(piece) > self._left:
            raise UnreadableError("bytes behind the end of the response")
        self._left -= len(piece)
        self.over = self._left == 0
        return [piece]


class Part(Enum):
    """What comes next in a body of chunks."""

    SIZE = "size"
    CONTENT = "content"
    END = "the end of a chunk"
    TRAILER = "trailer"


class Chunked:
    """After a chunk without content."""

    def __init__(self) -> None:
        self.over = False
        self._next = Part.SIZE
        self._line = b""  # the beginning of a line that is not whole
        self._left = 0  # bytes of the open chunk's content

    def push(self, piece: bytes) -> list[bytes]:
        if self._line:
            piece, self._line = self._line + piece, b""
        found, at = [], 0
        while at < len(piece):
            if self.over:
                raise UnreadableError("bytes behind the end of the response")
            if self._next is Part.CONTENT:
                content = piece[at : at + self._left]
                found.append(content)
                at += len(content)
                self._left -= len(content)
                self._next = Part.CONTENT if self._left else Part.END
            elif (end := piece.find(b"\r\n", at)) >= 0:
                self._next = self._read_line(piece[at:end])
                at = end + 2
            elif len(piece) - at > MAX_SIZE_LINE:
                raise UnreadableError("a line between chunks is too long")
            else:
                self._line, at = piece[at:], len(piece)
        return found

    def _read_line(self, line: bytes) -> Part:
        """Returns what comes next."""
        if self._next is Part.TRAILER:
            self.over = not line
            return Part.TRAILER
        if self._next is Part.END:
            if line:
                raise UnreadableError("a chunk is longer than it said")
            return Part.SIZE
        digits = line.partition(b";")[0].strip()
        if not digits or len(digits) > MAX_SIZE_DIGITS or digits.strip(HEX):
            raise UnreadableError("a chunk without a size")
        self._left = int(digits, 16)
        return Part.CONTENT if self._left else Part.TRAILER


def parsed(head: bytes) -> tuple[int, bytes, dict[bytes, bytes]]:
    """Status, version and headers (names in lower case).

    Raises:
        UnreadableError
    """
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    code = rest.partition(b" ")[0]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(code) != 3 or not code.isdigit():
        raise UnreadableError("no HTTP response")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise UnreadableError("a header without a colon")
        headers[name.strip().lower()] = value.strip()
    return int(code), version, headers


def framing(status: int, headers: dict[bytes, bytes]) -> Framing:
    if status in BODILESS:
        return Sized(0)
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        return Chunked()
    if b"transfer-encoding" in headers:
        raise UnreadableError("an encoding that was not asked for")
    length = headers.get(b"content-length")
    if length is None:
        return UntilClosed()
    if not length.isdigit() or len(length) > 18:
        raise UnreadableError("no size")
    return Sized(int(length))
