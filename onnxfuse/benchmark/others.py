"""Whether something else kept the machine busy while models were timed."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")
LIMIT = 0.1
"""Cores that others may take without being mentioned."""


class Others:
    """Counts, from its creation on, what processors did for anybody but this process; on Linux."""

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.monotonic(), busy_seconds(), _own_seconds()

    def note(self) -> str:
        """What to say of the others; empty where they did little, or nobody knows."""
        wall, busy = time.monotonic() - self._wall, busy_seconds()
        if busy is None or self._busy is None or wall <= 0:
            return ""
        cores = (busy - self._busy - (_own_seconds() - self._own)) / wall
        if cores < LIMIT:
            return ""
        return (
            f"the machine was not idle: others took {cores:.1f} of {os.cpu_count()} cores meanwhile"
        )


def busy_seconds(stat: Path = _STAT) -> float | None:
    """Seconds that all processors together have worked since the system started, or None."""
    try:
        fields = stat.read_text(encoding="ascii").splitlines()[0].split()
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def _own_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system
