"""Keep-alive HTTP connections to the engine's Triton, hundreds at a time, on one thread.

An HTTP client for one purpose: POST, one exchange at a time on a connection, no redirects, no pipelining. A general
client costs more per event than all the rest of the transport.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from transports.address import Address
from transports.reply import Reply, UnreadableError

CONNECT_SECONDS = 5.0
IDLE_SECONDS = 30.0  # for which a connection is kept that nobody uses
LOST = "the connection to the engine was lost"
# A machine that is gone without a word is noticed after 15 + 3 * 5 seconds of silence.
KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Exchange(Protocol):
    """A request and who hears the response. All on the thread of the connections."""

    @property
    def body(self) -> bytes:
        """JSON."""

    @property
    def headers(self) -> bytes:
        """Lines of its own, each with its end."""

    def received(self, reply: Reply, found: list[bytes]) -> None:
        """More of the response: the data of its next events, or its whole body; `reply.done` if that is all."""

    def failed(self, reason: str) -> None:
        """There will be no (further) response."""


class Connections:
    """Sends exchanges to one path of one address.

    Exchanges begin with `send` and are given up with `drop`, both on the connections' own thread: see `run`.
    """

    def __init__(self, address: Address, path: str) -> None:
        self._address = address
        self._tls = address.tls()
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in address.headers().items())]
        self._head = "\r\n".join((*lines, "Content-Length: ")).encode()
        self._loop = asyncio.new_event_loop()
        self._opening: dict[Exchange, asyncio.Task[None]] = {}
        self._idle: dict[Connection, float] = {}
        self._busy: dict[Exchange, Connection] = {}
        threading.Thread(target=self._run, name="http", daemon=True).start()

    def run(self, work: Callable[[], None]) -> None:
        """Has it done on the connections' thread, soon."""
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:  # the loop is closed
            pass

    def send(self, exchange: Exchange) -> None:
        if self._idle:
            connection, _ = self._idle.popitem()  # the one used last is the least likely to be closed over there
            self._give(connection, exchange)
        else:
            self._open_for(exchange)

    def drop(self, exchange: Exchange) -> bool:
        """Closes the exchange's connection: so Triton learns that the response is not wanted any more.

        False: it was not sent yet, or is over.
        """
        if opening := self._opening.get(exchange):
            opening.cancel()
        connection = self._busy.pop(exchange, None)
        if connection is not None:
            connection.close()
        return connection is not None

    def sweep(self) -> None:
        """Closes connections that nobody has used for long."""
        limit = time.monotonic() - IDLE_SECONDS
        for connection in [each for each, since in self._idle.items() if since < limit]:
            del self._idle[connection]
            connection.close()

    def close(self) -> None:
        """Ends the thread; exchanges hear no more."""
        self.run(self._loop.stop)

    def retry(self, exchange: Exchange) -> None:
        """The connection had been closed over there before the request came: another one, and a new one."""
        self._busy.pop(exchange, None)
        self._open_for(exchange)

    def over(self, connection: Connection, exchange: Exchange | None, *, lasts: bool) -> None:
        """The connection is free again, or of no more use."""
        if exchange is not None:
            self._busy.pop(exchange, None)
        if lasts:
            self._idle[connection] = time.monotonic()
        else:
            self._idle.pop(connection, None)
            connection.close()

    def _give(self, connection: Connection, exchange: Exchange) -> None:
        self._busy[exchange] = connection
        body = exchange.body
        connection.send(exchange, b"%s%d\r\n%s\r\n%s" % (self._head, len(body), exchange.headers, body))

    def _open_for(self, exchange: Exchange) -> None:
        task = self._loop.create_task(self._open(exchange))
        self._opening[exchange] = task  # the loop itself keeps no reference
        task.add_done_callback(lambda _: self._opening.pop(exchange, None))

    async def _open(self, exchange: Exchange) -> None:
        where = self._address
        opening = self._loop.create_connection(lambda: Connection(self), where.host, where.port, ssl=self._tls)
        try:
            _, connection = await asyncio.wait_for(opening, CONNECT_SECONDS)
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # ValueError: a host name that cannot be one
            exchange.failed(f"the engine is not ready: no connection to {where}: {error or 'no answer'}")
        else:
            self._give(connection, exchange)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._close())
        self._loop.close()

    async def _close(self) -> None:
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        for connection in (*self._idle, *self._busy.values()):
            connection.close()
        await asyncio.gather(*opening, return_exceptions=True)
        await asyncio.sleep(0)  # connections are closed with the next round of the loop


class Connection(asyncio.Protocol):
    """One connection; it carries one exchange after the other."""

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._transport: asyncio.WriteTransport | None = None
        self._exchange: Exchange | None = None
        self._reply = Reply()
        self._used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        line: socket.socket = transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, exchange: Exchange, request: bytes) -> None:
        assert self._transport is not None
        self._exchange, self._reply = exchange, Reply()
        self._transport.write(request)

    def close(self) -> None:
        """At once; the exchange hears nothing of it."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # nobody has asked
            self._owner.over(self, None, lasts=False)
            return
        try:
            found = self._reply.push(data)
        except UnreadableError as error:
            self._fail(f"the engine's answer cannot be read: {error}")
            return
        self._tell(exchange, found)

    def connection_lost(self, error: Exception | None) -> None:
        exchange, reply = self._exchange, self._reply
        if exchange is None:
            self._owner.over(self, None, lasts=False)
        elif self._used and not reply.begun:
            self._exchange = None
            self._owner.retry(exchange)
        else:
            try:
                found = reply.end()
            except UnreadableError:
                self._fail(f"{LOST}: {error or 'it was closed'}")
            else:
                self._tell(exchange, found)

    def _tell(self, exchange: Exchange, found: list[bytes]) -> None:
        reply = self._reply
        if reply.done:  # free before anybody hears of it: what is over need not be dropped
            self._exchange, self._used = None, True
            self._owner.over(self, exchange, lasts=reply.lasts)
        if found or reply.done:
            exchange.received(reply, found)

    def _fail(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        self._owner.over(self, exchange, lasts=False)
        if exchange is not None:
            exchange.failed(reason)
