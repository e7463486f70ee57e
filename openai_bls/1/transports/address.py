"""Where another Triton is, from what an operator writes."""

from __future__ import annotations

import base64
import ssl
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """Where a Triton listens.

    Attributes:
        path: in front of Triton's own paths, for one behind a proxy; without a slash at the end.
        authorization: value of that header; empty: none is sent. It must not be logged.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    authorization: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """From http[s]://[user:password@]host[:port][/path].

        Raises:
            ValueError: it is none; the message does not show it, because it may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            raise ValueError("no address") from None
        # urlsplit itself takes line breaks out of the middle of an address.
        plain = url.isascii() and url.isprintable() and " " not in url
        if not plain or not parts.hostname or parts.scheme not in PORTS or parts.query or parts.fragment:
            raise ValueError("wanted http://HOST:PORT or https://HOST:PORT, with a path behind it if need be")
        login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        authorization = "" if login == ":" else f"Basic {base64.b64encode(login.encode()).decode()}"
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"), authorization)

    def __str__(self) -> str:
        """For logs: without a password."""
        return f"{self.scheme}://{self.netloc}{self.path}"

    __repr__ = __str__

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def model_path(self, model: str, action: str = "") -> str:
        return f"{self.path}/v2/models/{quote(model, safe='')}" + (f"/{action}" if action else "")

    def headers(self) -> dict[str, str]:
        usual = {"Host": self.netloc, "Content-Type": "application/json"}
        return usual | ({"Authorization": self.authorization} if self.authorization else {})

    def tls(self) -> ssl.SSLContext | None:
        """Checks certificates as OpenSSL is set up; SSL_CERT_FILE names another authority."""
        return ssl.create_default_context() if self.scheme == "https" else None
