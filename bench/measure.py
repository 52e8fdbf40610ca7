"""What a process has used: CPU of its threads, apart for Python's and the plane's; resident memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_RUST = "moim-"  # what the plane's threads are called; Python's have the name of the program


@dataclass(frozen=True)
class Cpu:
    """CPU seconds: of all threads, and of these the plane's."""

    whole: float = 0.0
    rust: float = 0.0

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu(self.whole - before.whole, self.rust - before.rust)

    def __truediv__(self, units: float) -> Cpu:
        return Cpu(self.whole / units, self.rust / units)


def cpu_of(pids: Sequence[int]) -> Cpu:
    """What all threads of ``pids`` used so far, from the scheduler's nanosecond counters."""
    whole = rust = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                used = int((task / "schedstat").read_text().split()[0])
                whole += used
                if (task / "comm").read_text().startswith(_RUST):
                    rust += used
    return Cpu(whole / 1e9, rust / 1e9)


def resident(pids: Sequence[int]) -> int:
    """Resident bytes of ``pids`` now."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE for pid in pids)


def pin(pids: Sequence[int], processors: set[int]) -> None:
    """Keeps every thread of ``pids`` on some processors."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), processors)


@dataclass(frozen=True)
class Figure:
    """One line of the result: what, for whom, how much, in which unit.

    ``python`` and ``rust`` are the parts of it that Moim's threads of either kind used.
    """

    what: str
    subject: str
    value: float
    unit: str
    note: str = ""
    python: float | None = None
    rust: float | None = None


def cost(what: str, subject: str, used: Cpu, unit: str, note: str = "") -> Figure:
    """A figure of CPU; ``unit`` is ``µs CPU`` or ``ms CPU``."""
    scale = {"µs CPU": 1e6, "ms CPU": 1e3}[unit]
    value, rust = used.whole * scale, used.rust * scale
    if subject != "Moim":
        return Figure(what, subject, value, unit, note)
    return Figure(what, subject, value, unit, note, value - rust, rust)
