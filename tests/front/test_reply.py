"""Responses of an HTTP server, cut at every place, and what is no such response."""

from __future__ import annotations

import random
from typing import Any

import pytest

from transports.reply import MAX_BODY, MAX_HEAD, Reply, UnreadableError

EVENTS = [b'{"output_ids":1}', '{"text":"\N{PARTY POPPER}é"}'.encode(), b"{}"]
STREAM = b"".join(b"data: %s\n\n" % event for event in EVENTS)
ERROR = b'{"error":"no"}'


def chunked(content: bytes, size: int, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(each), extension, each) for each in pieces) + b"0\r\n" + trailer + b"\r\n"


def response(content: bytes, *headers: str, status: str = "200 OK", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join((f"{version} {status}", *headers, "", "")).encode() + content


SSE = "Content-Type: text/event-stream; charset=utf-8"
CHUNKED = "Transfer-Encoding: chunked"
ONE_EACH = b"".join(chunked(b"data: %s\n\n" % event, 999)[: -len(b"0\r\n\r\n")] for event in EVENTS) + b"0\r\n\r\n"
SHOUTED = ("cOnTent-type: TEXT/event-stream", "TRANSFER-encoding: Chunked")
OTHERS = b": hello\nevent: x\nid: 4\n" + STREAM + b": bye\n\n"
STREAMS = {
    "an event in each chunk": response(ONE_EACH, SSE, CHUNKED),
    "chunks of one byte": response(chunked(STREAM, 1), SSE, CHUNKED),
    "chunks of seven bytes": response(chunked(STREAM, 7), SSE, CHUNKED),
    "extensions and trailers": response(chunked(STREAM, 50, b' ; a="b"', b"X-Sum: 1\r\nY: 2\r\n"), SSE, CHUNKED),
    "names in other cases": response(chunked(STREAM, 50), *SHOUTED),
    "a size": response(STREAM, SSE, f"Content-Length: {len(STREAM)}"),
    "an interim response": response(b"", status="100 Continue") + response(chunked(STREAM, 9), SSE, CHUNKED),
    "lines that end in CRLF": response(chunked(STREAM.replace(b"\n", b"\r\n"), 9), SSE, CHUNKED),
    "comments and other fields": response(chunked(OTHERS, 9), SSE, CHUNKED),
    "no space": response(chunked(STREAM.replace(b"data: ", b"data:"), 9), SSE, CHUNKED),
}


def read(pieces: list[bytes]) -> tuple[Reply, list[bytes]]:
    reply = Reply()
    return reply, [found.strip() for piece in pieces for found in reply.push(piece)]


@pytest.mark.parametrize("whole", STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_cut_at_any_byte(whole: bytes) -> None:
    for at in range(1, len(whole)):
        reply, found = read([whole[:at], whole[at:]])
        assert (reply.status, reply.streams, reply.done, reply.lasts) == (200, True, True, True)
        assert found == EVENTS


@pytest.mark.parametrize("whole", STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_in_pieces_of_any_size(whole: bytes) -> None:
    chance = random.Random(1)
    for most in (1, 2, 3, 5, 20):
        pieces, rest = [], whole
        while rest:
            size = chance.randint(1, most)
            pieces.append(rest[:size])
            rest = rest[size:]
        assert read(pieces)[1] == EVENTS


def test_an_event_is_told_when_it_is_whole() -> None:
    reply, found = read([response(b"2c\r\ndata: {}\n", SSE, CHUNKED)])
    assert found == []
    assert reply.push(b"\n") == [b" {}"]
    assert not reply.done


def test_data_of_several_lines_is_one_event() -> None:
    assert read([response(chunked(b"data: a\ndata: b\n\n", 99), SSE, CHUNKED)])[1] == [b"a\n b"]


def test_an_unfinished_event_is_none() -> None:
    reply, found = read([response(chunked(b"data: {}\n\ndata: {", 99), SSE, CHUNKED)])
    assert (found, reply.done) == ([b"{}"], True)


@pytest.mark.parametrize(
    ("whole", "status", "lasts"),
    [
        (response(ERROR, f"Content-Length: {len(ERROR)}", status="400 Bad Request"), 400, True),
        (response(chunked(ERROR, 3), CHUNKED, status="503 Service Unavailable"), 503, True),
        (response(ERROR, f"Content-Length: {len(ERROR)}", "Connection: close", status="404"), 404, False),
        (response(ERROR, f"Content-Length: {len(ERROR)}", status="502 Bad", version="HTTP/1.0"), 502, False),
    ],
)
def test_a_body_that_is_no_stream_comes_as_a_whole(whole: bytes, status: int, lasts: bool) -> None:
    for size in (1, 5, 999):
        reply, found = read([whole[at : at + size] for at in range(0, len(whole), size)])
        assert (reply.status, reply.streams, reply.done, reply.lasts) == (status, False, True, lasts)
        assert found == [ERROR]


def test_no_content() -> None:
    reply, found = read([response(b"", status="204 No Content")])
    assert (reply.status, reply.done, found) == (204, True, [b""])


def test_a_body_that_ends_with_the_connection() -> None:
    reply, found = read([response(ERROR[:4], status="500 x"), ERROR[4:]])
    assert not reply.done and found == []
    assert (reply.end(), reply.done, reply.lasts) == ([ERROR], True, False)


@pytest.mark.parametrize("cut", [0, 1, 20, 90, -3])
def test_a_connection_that_is_lost(cut: int) -> None:
    whole = STREAMS["chunks of seven bytes"]
    reply = Reply()
    reply.push(whole[:cut])
    assert reply.begun == bool(cut)
    with pytest.raises(UnreadableError):
        reply.end()


def test_the_end_after_the_end() -> None:
    reply, _ = read([STREAMS["a size"]])
    assert reply.end() == [] and reply.lasts


WRONG: dict[str, Any] = {
    "no HTTP": [b"\x16\x03\x01\x02"],
    "another protocol": [b"SSH-2.0-OpenSSH_9\r\n"],
    "a version that is none": [b"HTTP/2.0 200 OK\r\n\r\n"],
    "a status that is none": [b"HTTP/1.1 abc\r\n\r\n"],
    "a header without a colon": [b"HTTP/1.1 200 OK\r\nfoo\r\n\r\n"],
    "a head without an end": [b"HTTP/1.1 200 OK\r\n", *[b"x: " + b"y" * 1000 + b"\r\n"] * (MAX_HEAD // 1000 + 1)],
    "an encoding": [response(b"", "Transfer-Encoding: gzip, chunked")],
    "a size that is none": [response(b"", "Content-Length: -1")],
    "more than its size": [response(b"12", "Content-Length: 1")],
    "a chunk without a size": [response(b"\r\n", CHUNKED)],
    "a chunk's size that is none": [response(b"0x3\r\nabc", CHUNKED)],
    "a chunk's size that is huge": [response(b"fffffffff\r\n", CHUNKED)],
    "a chunk that is longer": [response(b"1\r\nab\r\n", CHUNKED)],
    "a size line without an end": [response(b"1;" + b"x" * 5000, CHUNKED)],
    "bytes after the end": [response(b"0\r\n\r\nHTTP/1.1", CHUNKED)],
    "bytes after the end, later": [response(b"0\r\n\r\n", CHUNKED), b"x"],
    "a body that is too long": [response(b"x" * (MAX_BODY + 1), status="500 x")],
}


@pytest.mark.parametrize("pieces", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_response(pieces: list[bytes]) -> None:
    with pytest.raises(UnreadableError):
        read(pieces)


def test_a_line_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transports.reply.MAX_LINE", 1000)
    reply, _ = read([response(b"", SSE)])
    with pytest.raises(UnreadableError):
        for _ in range(1001):
            reply.push(b"d")


def test_a_long_line_costs_no_more_than_its_length() -> None:
    """Joined once, not with each piece: two megabytes in pieces of a hundred bytes."""
    reply, _ = read([response(b"data: ", SSE)])
    for _ in range(20_000):
        assert reply.push(b"x" * 100) == []
    assert len(reply.push(b"\n\n")[0]) == 2_000_001
