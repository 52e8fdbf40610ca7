"""Whole sites for tests: the real program, started as a user starts it, on loopback addresses of its own."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOIM = Path(sys.executable).with_name("moim")
_counter = itertools.count(1)


def loopback_pair() -> tuple[str, str]:
    """Two addresses of 127.0.0.0/8 that no other site of this test run uses."""
    process, number = os.getpid(), next(_counter)
    net = f"127.{50 + process % 150}.{(process // 150) % 200 + number % 50}"
    return f"{net}.{number // 50 * 2 + 1}", f"{net}.{number // 50 * 2 + 2}"


@dataclass
class RunningSite:
    """A site run by ``moim up`` in a process of its own."""

    root: Path
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)
    prefix: Sequence[str] = ()
    """Put before every command: runs the site on another host (see lab.py)."""
    _ready: threading.Event = field(default_factory=threading.Event)

    def start(self, *options: str, timeout: float = 60) -> None:
        """Starts and waits until it says that it is ready."""
        self._ready.clear()
        self.process = subprocess.Popen(
            [*self.prefix, str(MOIM), "up", "--site", str(self.root), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        assert self._ready.wait(timeout), "the site did not get ready:\n" + "".join(self.output) + self.logs()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.output.append(line)
            if "Stop with Ctrl-C" in line:
                self._ready.set()

    def stop(self) -> float:
        """Stops like Ctrl-C does; gives the seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return time.monotonic() - began

    def moim(self, *words: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a ``moim`` command against this site."""
        done = subprocess.run(
            [*self.prefix, str(MOIM), *words, "--site", str(self.root)],
            capture_output=True, text=True, timeout=100, input=text,
            env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip
        assert not check or done.returncode == 0, f"moim {' '.join(words)}: {done.stdout}{done.stderr}{self.logs()}"
        return done

    def status(self) -> dict[str, Any]:
        """``moim status --json``."""
        document: dict[str, Any] = json.loads(self.moim("status", "--json", check=False).stdout)
        return document

    def place(self, service: str) -> tuple[str, int]:
        """Address and port of a service."""
        found = next(s for s in self.status()["services"] if s["name"] == service)
        return found["address"], found["port"]

    @property
    def passwords(self) -> dict[str, str]:
        """Passwords of the demo users by their address."""
        return {u["address"]: u["password"] for u in json.loads((self.root / "demo-users.json").read_text())}

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.root / "ca.pem"

    def logs(self) -> str:
        """The end of every log, for a failing test to show."""
        parts = []
        for path in sorted((self.root / "log").glob("*.log")):
            parts.append(f"\n--- {path.name}\n" + "".join(path.read_text(errors="replace").splitlines(True)[-40:]))
        return "".join(parts)
