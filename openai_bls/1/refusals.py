"""Refusals, kept for a moment so that the gateway can ask for them.

Triton's generate_stream fixes the HTTP status by the first response, and Triton 2.51 knows one status for all errors:
400. nginx passes a status on before it sees the body. So the gateway, on any 400, asks back with the ticket it gave
the request ("endpoint": "refusal"), and the true status and error object come from here. The question may reach
another instance of the model, that is another process: the memory is a file that all instances of one server map.
"""

from __future__ import annotations

import mmap
import os
import stat
import tempfile
import zlib
from pathlib import Path

import orjson

SLOTS = 4096
WAYS = 4  # slots in which a ticket's record may be; if all are taken, the first gives way
SLOT_BYTES = 4096


class Refusals:
    """A fixed table of slots by ticket.

    Args:
        path: the file; made if need be.

    Raises:
        OSError: the path belongs to somebody else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid() or not stat.S_ISREG(found.st_mode):
                raise OSError(f"{path} is not ours")
            os.ftruncate(descriptor, SLOTS * SLOT_BYTES)
            self._table = mmap.mmap(descriptor, SLOTS * SLOT_BYTES)
        finally:
            os.close(descriptor)

    @classmethod
    def of_this_server(cls) -> Refusals:
        """The table that all instances under one tritonserver share: it is their parent process."""
        return cls(Path(tempfile.gettempdir()) / f"openai_bls.{os.getppid()}.refusals")

    def put(self, ticket: str, status: int, body: bytes, report: bytes = b"") -> None:
        """Keeps an error object, and what is reported of the call, until it is taken or its slot is needed."""
        fitting = [
            record
            for text in (body + report, body)
            if len(record := orjson.dumps({"ticket": ticket, "status": status, "body": text.decode()})) < SLOT_BYTES
        ]
        if not ticket or not fitting:
            return
        places = slots(ticket)
        free = next((start for start in places if self._table[start] == 0), places[0])
        self._table[free : free + SLOT_BYTES] = fitting[0].ljust(SLOT_BYTES, b"\0")

    def take(self, ticket: str) -> bytes | None:
        """The kept `{"ticket", "status", "body"}` as JSON, if there is one; `body` is the error object as a string and
        the call's report."""
        for start in slots(ticket):
            record = self._table[start : start + SLOT_BYTES].rstrip(b"\0")
            if ticket and is_of(ticket, record):
                self._table[start : start + SLOT_BYTES] = bytes(SLOT_BYTES)
                return record
        return None

    def close(self) -> None:
        self._table.close()
        self._path.unlink(missing_ok=True)


def slots(ticket: str) -> list[int]:
    """Where a ticket's record may begin."""
    first = zlib.crc32(ticket.encode())
    return [(first + way) % SLOTS * SLOT_BYTES for way in range(WAYS)]


def is_of(ticket: str, record: bytes) -> bool:
    """Whether a record belongs to a ticket. Another process may be writing it just now."""
    try:
        return bool(orjson.loads(record)["ticket"] == ticket)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False
