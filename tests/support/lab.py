"""A network of hosts in namespaces of their own, joined by one switch: for servers that have to find each other by DNS.

Needs root. Every host has one address in 10.77.0.0/16, its own ports, and a resolv.conf that names the name server.
Links can be cut and mended. Everything is gone when the lab is closed.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_numbers = itertools.count(1)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


@dataclass(frozen=True)
class Host:
    """One machine of the lab."""

    namespace: str
    address: str
    switch: str
    port: str

    def command(self, *words: str) -> list[str]:
        """``words`` as a command that runs on this host."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def run(self, *words: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def start(
        self, *words: str, environment: Mapping[str, str] | None = None, output: IO[Any] | int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Starts a command that goes on."""
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | dict(environment or {}),
        )  # fmt: skip

    def cut(self) -> None:
        """Pulls the cable: what is sent gets no answer, not even a refusal."""
        _ip("-n", self.switch, "link", "set", self.port, "down")

    def mend(self) -> None:
        """Plugs the cable in again."""
        _ip("-n", self.switch, "link", "set", self.port, "up")


class Lab:
    """The switch and its hosts; the first host made is the name server of all."""

    def __init__(self) -> None:
        self._prefix = f"moim{os.getpid()}x{next(_numbers)}"
        self._hosts: list[Host] = []
        self._switch = f"{self._prefix}-switch"
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")

    def host(self, name: str) -> Host:
        """Adds a host; ``name`` is for people who look at the lab."""
        number = len(self._hosts) + 1
        namespace, port = f"{self._prefix}-{name}", f"port{number}"
        host = Host(namespace, f"10.77.0.{number}", self._switch, port)
        server = self._hosts[0].address if self._hosts else host.address
        files = Path("/etc/netns") / namespace
        files.mkdir(parents=True)
        (files / "resolv.conf").write_text(f"nameserver {server}\noptions timeout:1 attempts:2\n")
        (files / "hosts").write_text("127.0.0.1 localhost\n")
        _ip("netns", "add", namespace)
        self._hosts.append(host)
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
        _ip("-n", namespace, "address", "add", f"{host.address}/16", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        return host

    def close(self) -> None:
        """Takes the lab down; processes on its hosts have to be stopped before."""
        for namespace in [*(host.namespace for host in self._hosts), self._switch]:
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / namespace, ignore_errors=True)
