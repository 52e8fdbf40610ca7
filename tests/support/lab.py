"""A network of hosts in namespaces of their own, joined by one switch: for servers that have to find each other by DNS.

As root, or as anybody where the kernel lets users make namespaces. Every host has two addresses, 10.77.0.N and
10.77.1.N, its own ports, and a resolv.conf that names its name server. Links can be cut and mended. Every namespace
lives as long as a process that waits for its input to end: when the test's process dies, nothing stays.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_KEEP = "echo ready; exec cat"
_PREPARE = """
set -e
ip link set lo up
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount --bind "$1/hosts" /etc/hosts
"""
_REFUSED = """this machine lets nobody make network namespaces, which this test needs: run it as root with CAP_SYS_ADMIN
and CAP_NET_ADMIN, or let users make namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone,
kernel.apparmor_restrict_unprivileged_userns=0). """


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def _keep(words: list[str]) -> subprocess.Popen[str]:
    """Starts the process that a namespace lives by; it is in its namespaces when this returns."""
    keeper = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    if keeper.stdout.readline() != "ready\n":
        raise AssertionError(_REFUSED + keeper.stderr.read())
    return keeper


def _enter(keeper: subprocess.Popen[str], *namespaces: str) -> list[str]:
    user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
    return ["nsenter", "--target", str(keeper.pid), *user, *namespaces, "--"]


@dataclass(frozen=True)
class Host:
    """One machine of the lab."""

    name: str
    address: str
    second: str
    port: str
    _keeper: subprocess.Popen[str]
    _switch: subprocess.Popen[str]

    @property
    def prefix(self) -> list[str]:
        """What to put before a command to run it on this host. Paths have to be absolute."""
        return _enter(self._keeper, "--net", "--mount")

    def run(self, *words: str, timeout: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        done = subprocess.run([*self.prefix, *words], capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done

    def start(
        self, *words: str, environment: Mapping[str, str] | None = None, errors: IO[Any] | int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Starts a command that goes on, with pipes for its input and output."""
        return subprocess.Popen(
            [*self.prefix, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env=os.environ | dict(environment or {}),
        )  # fmt: skip

    def cut(self) -> None:
        """Pulls the cable: what is sent gets no answer, not even a refusal."""
        _run([*_enter(self._switch, "--net"), "ip", "link", "set", self.port, "down"])

    def mend(self) -> None:
        """Plugs the cable in again."""
        _run([*_enter(self._switch, "--net"), "ip", "link", "set", self.port, "up"])


class Lab:
    """The switch and its hosts; ``folder`` takes a few files for each host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hosts: list[Host] = []
        user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        self._switch = _keep(["unshare", *user, "--net", "bash", "-c", _KEEP])
        self._wire("link", "add", "switch", "type", "bridge")
        self._wire("link", "set", "switch", "up")

    def _wire(self, *words: str) -> None:
        _run([*_enter(self._switch, "--net"), "ip", *words])

    def host(self, name: str, *, names_from: str = "") -> Host:
        """Adds a host; ``names_from`` is the address of its name server, its own when left out."""
        number = len(self._hosts) + 1
        address, second, port = f"10.77.0.{number}", f"10.77.1.{number}", f"port{number}"
        files = self._folder / name
        files.mkdir(parents=True)
        (files / "resolv.conf").write_text(f"nameserver {names_from or address}\noptions timeout:1 attempts:2\n")
        (files / "hosts").write_text("127.0.0.1 localhost\n")
        inner = ["unshare", "--net", "--mount", "bash", "-c", _PREPARE + _KEEP, "bash", str(files)]
        keeper = _keep([*_enter(self._switch, "--net"), *inner])
        host = Host(name, address, second, port, keeper, self._switch)
        self._hosts.append(host)
        self._wire("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(keeper.pid))
        self._wire("link", "set", port, "master", "switch", "up")
        for own in (address, second):
            host.run("ip", "address", "add", f"{own}/16" if own == address else f"{own}/32", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def close(self) -> None:
        """Takes the lab down; processes on its hosts have to be stopped before."""
        for keeper in [*(host._keeper for host in self._hosts), self._switch]:
            keeper.communicate(timeout=10)
