"""What a process has used: CPU seconds of all its threads, resident memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time on all threads of ``pids`` so far, from the scheduler's nanosecond counters."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident(pids: Sequence[int]) -> int:
    """Resident bytes of ``pids`` now."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in pids)


def pin(pids: Sequence[int], cpu: int) -> None:
    """Keeps every thread of ``pids`` on one processor."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), {cpu})


@dataclass(frozen=True)
class Figure:
    """One line of the result: what, for whom, how much, in which unit."""

    what: str
    subject: str
    value: float
    unit: str
    note: str = ""
