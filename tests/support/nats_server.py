"""A private NATS server for tests, on a port of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = shutil.which("nats-server") or "/usr/sbin/nats-server"


class PrivateNats:
    """One server; ``lines`` are added to its configuration file."""

    def __init__(self, address: str = "127.0.0.1", lines: str = "") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="moim-nats-", dir="/tmp"))
        self.address = address
        with socket.create_server((address, 0)) as free:
            self.port: int = free.getsockname()[1]
        (self.home / "nats.conf").write_text(f'listen: "{address}:{self.port}"\n{lines}\n')
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"nats://{self.address}:{self.port}"

    def start(self) -> None:
        """Returns when it takes connections."""
        log = (self.home / "log").open("ab")
        self._process = subprocess.Popen([PROGRAM, "-c", str(self.home / "nats.conf")], stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + 20
        while True:
            assert self._process.poll() is None, (self.home / "log").read_text()
            try:
                socket.create_connection((self.address, self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.home / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """Ends it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Ends it and deletes everything."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)
