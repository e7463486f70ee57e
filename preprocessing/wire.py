"""JSON as it leaves the server: compact and ASCII.

On the way to the client the bytes are wrapped in JSON, cut anywhere and unwrapped again; ASCII (other characters as \\u
escapes) cannot be cut in the middle of a character.
"""

from __future__ import annotations

import json
from json.encoder import encode_basestring_ascii
from typing import Any


def dumps(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def escape(text: str) -> bytes:
    """A string as JSON: the part of `dumps` that is needed once per chunk."""
    return encode_basestring_ascii(text).encode()
