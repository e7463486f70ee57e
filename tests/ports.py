"""Ports for servers that tests start."""

from __future__ import annotations

import secrets
import socket

FIRST, LAST = 10_000, 32_000
"""Below what Linux gives to connections that go out (net.ipv4.ip_local_port_range): one of those would now and then
have the port before the server does, because thousands are made while tests run."""


def free_port() -> int:
    while True:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
