"""One node as a process: ``python -m moim.node --site DIR --name inside``. The supervisor starts it.

Tells its state as JSON lines on the descriptor it was given, stops on SIGTERM, and stops when that descriptor's other
end is gone: a node does not outlive its supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import uvloop

from moim import app, log
from moim.errors import ConfigError, MoimError
from moim.model import ServiceStatus
from moim.supervisor import EXIT_CONFIG

_REPORT_S = 0.2
_log = logging.getLogger("moim.node")


class RunningPart(Protocol):
    """What a node is made of: every room's service has these."""

    async def start(self) -> None:
        """Returns when its listeners are bound."""
        ...

    async def stop(self) -> None:
        """Returns within a second or so, everything closed."""
        ...

    def health(self) -> list[ServiceStatus]:
        """Its listeners and connections now."""
        ...


class _Reporter:
    """Writes what changed to the supervisor, one JSON object a line."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._last = ""

    def tell(self, phase: str, parts: Sequence[RunningPart], error: str = "") -> None:
        services = [asdict(status) for part in parts for status in part.health()]
        line = json.dumps({"phase": phase, "services": services, "error": error})
        if line != self._last:
            self._last = line
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                self._socket.send(line.encode() + b"\n")

    async def supervisor_gone(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while await loop.sock_recv(self._socket, 64):
                pass


async def _run(name: str, root: Path, reporter: _Reporter) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    watcher = asyncio.create_task(reporter.supervisor_gone())
    watcher.add_done_callback(lambda _: stopping.set())

    started: list[RunningPart] = []
    code = 0
    try:
        site = app.open_site(root)
        logging.getLogger().setLevel(site.settings.log.level)
        parts = app.build(name, site)
        reporter.tell("starting", started)
        for part in parts:
            started.append(part)
            await part.start()
            reporter.tell("starting", started)
            if stopping.is_set():
                break
        # What start-up made lives as long as the process: the collector need not visit it again.
        gc.collect()
        gc.freeze()
        while not stopping.is_set():
            reporter.tell("running", started)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _REPORT_S)
    except MoimError as error:
        _log.error("%s node cannot run: %s", name, error)
        reporter.tell("failed", started, str(error))
        code = EXIT_CONFIG if isinstance(error, ConfigError) else 3
    except Exception as error:
        _log.exception("%s node crashed", name)
        reporter.tell("failed", started, f"{type(error).__name__}: {error}")
        code = 4
    for part in reversed(started):
        try:
            await asyncio.wait_for(part.stop(), 2)
        except Exception:
            _log.exception("%s did not stop cleanly", type(part).__module__)
    watcher.cancel()
    return code


def main() -> None:
    """Parses the supervisor's arguments and runs the node until told to stop."""
    parser = argparse.ArgumentParser(prog="moim.node")
    parser.add_argument("--site", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--status-fd", type=int, required=True)
    options = parser.parse_args()
    os.umask(0o077)
    reporter = _Reporter(options.status_fd)
    root = options.site.resolve()
    log.configure(path=root / "log" / f"{options.name}.log")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_run(options.name, root, reporter))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # plane threads must not delay the exit


if __name__ == "__main__":
    main()
