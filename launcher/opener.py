"""HTTP to this very machine: past any proxy that the environment names for the rest of the world."""

from __future__ import annotations

import ssl
import urllib.request


def direct(tls: ssl.SSLContext | None = None) -> urllib.request.OpenerDirector:
    """Opens URLs of this machine; `tls` is what certificates are checked with."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
