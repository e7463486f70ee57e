"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for each in threads for child in (each / "children").read_text().split()]
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in family(child))]


def name_of(pid: int) -> str:
    """The program, as far as the kernel keeps its name."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time so far, by process; without those that have ended."""
    found = {}
    for pid in pids:
        try:
            # The name, in parentheses, may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


@dataclass(frozen=True)
class Memory:
    """Megabytes (10^6 bytes) in main memory.

    Attributes:
        pss: each shared page divided by the number of processes that share it: sums of it are right.
        private: pages of no other process: what would be free without it.
    """

    pss: float
    private: float


def memory(pid: int) -> Memory:
    """Raises OSError if the process has ended or is somebody else's."""
    kilobytes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        kilobytes[name.rstrip(":")] = int(value)
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return Memory(kilobytes["Pss"] * 1.024e-3, private * 1.024e-3)


def by_program(values: Mapping[int, float]) -> dict[str, float]:
    """Sums of processes with the same name."""
    sums: dict[str, float] = {}
    for pid, value in values.items():
        try:
            name = name_of(pid)
        except OSError:
            continue
        sums[name] = sums.get(name, 0.0) + value
    return sums


def pss(pids: Iterable[int]) -> dict[int, float]:
    """Megabytes, by process."""
    found = {}
    for pid in pids:
        try:
            found[pid] = memory(pid).pss
        except OSError:
            continue
    return found
