"""Ends what a test run started once the run is over, however it ended: a pytest plugin, and the watcher it starts.

Everything that tests start inherits a mark in its environment, daemons and their children too. The watcher, a process
of its own, waits on a pipe that the run holds open; when the run is gone, killed or not, it ends whatever has the mark.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from pathlib import Path

_NAME = "MOIM_TEST_RUN"
_PATIENCE = 10.0


def pytest_configure() -> None:
    """Each process of a run has a mark and a watcher of its own; its workers were started with its mark."""
    mark = secrets.token_hex(16)
    reading, _ = os.pipe()  # nobody inherits the end for writing, and nobody closes it
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", __file__, mark],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), *quiet],
        setsid=True,
    )
    os.close(reading)
    os.environ[_NAME] = mark


def marked() -> dict[str, str]:
    """The variable that programs need which do not get this process's environment."""
    return {_NAME: os.environ[_NAME]} if _NAME in os.environ else {}


def _left(mark: str) -> set[int]:
    """The processes that have a mark and still run."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_NAME}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue  # it is gone, or somebody else's
    return found


def _end(mark: str) -> None:
    """Asks, then kills."""
    asked: set[int] = set()
    patient_until = time.monotonic() + _PATIENCE
    while left := _left(mark):
        patient = time.monotonic() < patient_until
        for process in left - asked if patient else left:
            try:
                os.kill(process, signal.SIGTERM if patient else signal.SIGKILL)
            except ProcessLookupError:
                continue
        asked |= left
        time.sleep(0.05)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    _end(sys.argv[1])
