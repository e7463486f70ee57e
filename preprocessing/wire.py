"""JSON as it leaves the server: compact and ASCII.

On the way to the client the bytes are wrapped in JSON, cut anywhere and unwrapped again; ASCII (other characters as \\u
escapes) cannot be cut in the middle of a character.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import Any

import orjson

MAX_SHOWN = 64  # characters of somebody's own value in a message


def dumps(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def escape(text: str) -> bytes:
    """A string as JSON: the part of `dumps` that is needed once per chunk."""
    return encode_basestring_ascii(text).encode()


def shown(value: Any) -> str:
    """What a client or an operator wrote, cut short, as JSON for a message."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # nested deeper than can be written
        text = "…"
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
