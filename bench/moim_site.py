"""Moim as the subject: a site in a temporary folder, run by ``moim up``, its users imported from CSV."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.turn import PASSWORD, USER
from bench.xmpp import Account, Profile

_MOIM = str(Path(sys.executable).with_name("moim"))
_SETTINGS = f"""
[edge.turn]
allow_peers = ["127.0.0.0/8"]
old_channel_range = true
relay_ports = [30000, 32000]

[edge.turn.users]
{USER} = "{PASSWORD}"
"""


@dataclass(frozen=True)
class MoimSite:
    """A running site: where its services are and which processes serve."""

    root: Path
    status: dict[str, Any]

    def place(self, service: str) -> tuple[str, int]:
        """Address and port of a service."""
        found = next(s for s in self.status["services"] if s["name"] == service)
        return found["address"], found["port"]

    def pid(self, node: str) -> int:
        """The process of a node."""
        number: int = next(n["pid"] for n in self.status["nodes"] if n["name"] == node)
        return number

    @property
    def domain(self) -> str:
        """The service domain."""
        domain: str = self.status["domain"]
        return domain


def _status(root: Path) -> dict[str, Any]:
    done = subprocess.run([_MOIM, "status", "--json", "--site", str(root)], capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout or '{"ready": false}')
    return document


@contextmanager
def _running(root: Path, *options: str) -> Iterator[dict[str, Any]]:
    said = root.parent / "up.log"
    with said.open("w", encoding="utf-8") as log:
        process = subprocess.Popen([_MOIM, "up", "--site", str(root), *options], stdout=log, stderr=log)
    try:
        for _ in range(900):
            if (document := _status(root))["ready"]:
                break
            if process.poll() is not None:
                raise RuntimeError(f"moim up ended with {process.returncode}: {said.read_text()[-2000:]}")
            time.sleep(0.1)
        else:
            raise RuntimeError(f"the site did not get ready: {document}")
        yield document
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextmanager
def moim_site(
    folder: Path, accounts: Sequence[Account], profile: Profile = "bare", more: str = ""
) -> Iterator[MoimSite]:
    """Makes a site with these accounts, runs it on two loopback addresses of its own; ``more`` are keys of [chat]."""
    root = folder / "site"
    process = os.getpid()
    net = f"127.{210 + process % 40}.{process // 40 % 250}"
    with _running(root, "--demo", "--inside", f"{net}.1", "--edge", f"{net}.2") as first:
        domain = first["domain"]
    people = folder / "people.csv"
    people.write_text("address,password\n" + "".join(f"{a.local}@{domain},{a.password}\n" for a in accounts))
    subprocess.run([_MOIM, "user", "import", str(people), "--site", str(root)], check=True, capture_output=True)
    with (root / "moim.toml").open("a", encoding="utf-8") as file:
        file.write(_SETTINGS)
        file.write(f"\n[chat]\narchive = {str(profile == 'archive').lower()}\n{more}\n")
    with _running(root) as document:
        yield MoimSite(root, document)
