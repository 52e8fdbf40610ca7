"""Runs the nodes of a site as processes, restarts one that dies, and answers who asks for the status.

Knows processes, not rooms. Status questions come over ``run/moim.sock`` (mode 0600): connect, read one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moim.errors import ConfigError, Conflict, Unavailable

_BACKOFF_FIRST = 0.2
_BACKOFF_LAST = 30.0
_STEADY_S = 30.0  # a node that ran this long starts again without delay
_STOP_S = 2.5
_LINE = 1 << 20
EXIT_CONFIG = 78  # sysexits.h: a node ends with it when moim.toml has to be changed first
_log = logging.getLogger("moim.supervisor")


@dataclass
class NodeProcess:
    """One node: its process and what it last said of itself."""

    name: str
    state: str = "starting"
    pid: int = 0
    restarts: int = 0
    detail: str = ""
    services: list[dict[str, Any]] = field(default_factory=list)

    def view(self) -> dict[str, Any]:
        """For ``moim status``."""
        return {
            "name": self.name,
            "state": self.state,
            "pid": self.pid,
            "restarts": self.restarts,
            "detail": self.detail,
        }


def socket_path(root: Path) -> Path:
    """Where the supervisor of a site listens."""
    return root / "run" / "moim.sock"


@contextlib.contextmanager
def _short(path: Path) -> Any:
    """A name for ``path`` that fits into a socket address (108 bytes) however deep the site lies."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def query(root: Path, timeout: float = 3.0) -> dict[str, Any] | None:
    """Asks the supervisor of the site in ``root``; None when none runs. Raises Unavailable when it does not answer."""
    try:
        with _short(socket_path(root)) as name, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(name)
            chunks = []
            while chunk := connection.recv(1 << 16):
                chunks.append(chunk)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        return None
    except OSError as error:
        raise Unavailable(f"the site's supervisor does not answer: {error}") from error
    answer: dict[str, Any] = json.loads(b"".join(chunks))
    return answer


class Supervisor:
    """Starts the nodes named, keeps them running until ``stop``; calls ``changed`` after every change of state."""

    def __init__(self, root: Path, nodes: Sequence[str], changed: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.nodes = {name: NodeProcess(name) for name in nodes}
        self._changed = changed
        self._stopping = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._lock = -1
        self._unusable = ""

    @property
    def ready(self) -> bool:
        """Every node runs and every service of it does."""
        return all(
            node.state == "running" and node.services and all(s["state"] == "running" for s in node.services)
            for node in self.nodes.values()
        )

    def status(self) -> dict[str, Any]:
        """Nodes and services as plain data."""
        services = [service for node in self.nodes.values() for service in node.services]
        return {"ready": self.ready, "nodes": [node.view() for node in self.nodes.values()], "services": services}

    def stop(self) -> None:
        """Asks ``run`` to end."""
        self._stopping.set()

    async def run(self) -> None:
        """Runs until ``stop``.

        Raises Conflict when this site has a supervisor already, ConfigError when a node cannot use the settings.
        """
        await self._listen()
        keepers = [asyncio.create_task(self._keep(node), name=node.name) for node in self.nodes.values()]
        try:
            await self._stopping.wait()
        finally:
            await asyncio.gather(*keepers)
            if self._server is not None:
                self._server.close()
            socket_path(self.root).unlink(missing_ok=True)
            os.close(self._lock)
        if self._unusable:
            raise ConfigError(self._unusable)

    async def _listen(self) -> None:
        path = socket_path(self.root)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(path.with_name("lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"the site in {self.root} runs already", hint="see it with: moim status") from None
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        with _short(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        self._server = await asyncio.start_unix_server(self._answer, sock=listener)

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(self.status()).encode())
            await writer.drain()
        writer.close()

    async def _keep(self, node: NodeProcess) -> None:
        delay = _BACKOFF_FIRST
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run_once(node)
            if self._stopping.is_set():
                break
            if time.monotonic() - began > _STEADY_S:
                delay = _BACKOFF_FIRST
            reason = node.detail or _why(code)
            if code == EXIT_CONFIG:
                self._unusable = reason
                self.stop()
                break
            node.state, node.pid, node.restarts = "failed", 0, node.restarts + 1
            node.detail = f"{reason}; starting again in {delay:.1f} s (log/{node.name}.log)"
            for service in node.services:
                service["state"] = "failed"
            _log.error("the %s node ended: %s", node.name, node.detail)
            self._changed()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, _BACKOFF_LAST)
        node.state, node.pid, node.detail = "stopped", 0, ""
        self._changed()

    async def _run_once(self, node: NodeProcess) -> int:
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "moim.node", "--site", str(self.root), "--name", node.name),
                *("--status-fd", str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=None,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            node.detail = f"the process could not be started: {error}"
            return -1
        finally:
            theirs.close()
        node.pid, node.state, node.detail = process.pid, "starting", ""
        self._changed()
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE)
        listening = asyncio.create_task(self._listen_to(node, reader))
        stopping = asyncio.create_task(self._stopping.wait())
        ended = asyncio.create_task(process.wait())
        await asyncio.wait((stopping, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.send_signal(signal.SIGTERM)
            _, late = await asyncio.wait((ended,), timeout=_STOP_S)
            if late:
                _log.warning("the %s node did not stop in time and was killed", node.name)
                process.kill()
        code = await ended
        stopping.cancel()
        await asyncio.wait((listening,), timeout=1)
        listening.cancel()
        writer.close()
        return code

    async def _listen_to(self, node: NodeProcess, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                said = json.loads(line)
                node.services = [service | {"node": node.name} for service in said["services"]]
                node.state = said["phase"]
                node.detail = said["error"]
                self._changed()


def _why(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
