"""A bare HTTP client for many streams at once: it sees every byte and costs little."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Reply:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    pieces: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def request(url: str, body: dict[str, Any]) -> AsyncIterator[tuple[Reply, asyncio.StreamReader]]:
    """POSTs JSON; gives the reply and the reader, placed before the chunked body. Leaving closes the connection."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    payload = json.dumps(body).encode()
    head = f"POST {parts.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n"
    writer.write(head.encode() + b"Connection: close\r\n\r\n" + payload)
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        yield Reply(int(lines[0].split()[1]), headers), reader
    finally:
        writer.transport.abort()


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body's HTTP chunks. Raises IncompleteReadError if the body is cut off."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]


async def post(url: str, body: dict[str, Any]) -> Reply:
    """A whole answer."""
    async with request(url, body) as (reply, reader):
        if "content-length" in reply.headers:
            reply.body = await reader.readexactly(int(reply.headers["content-length"]))
        else:
            reply.pieces = [piece async for piece in chunks(reader)]
            reply.body = b"".join(reply.pieces)
    return reply


def events(body: bytes) -> list[Any]:
    """The JSON of a stream's events; checks framing and end."""
    *parts, last = body.decode().split("\n\n")
    assert last == ""
    assert parts[-1] == "data: [DONE]", parts[-1]
    assert all(part.startswith("data: {") for part in parts[:-1]), parts
    return [json.loads(part[6:]) for part in parts[:-1]]


def text(found: list[Any]) -> str:
    """The text of a chat or completion stream."""
    choices = [choice for event in found for choice in event["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)
