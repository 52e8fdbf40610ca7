"""TURN load: coturn's own client against any server and a peer; and coturn itself as the peer server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

USER, PASSWORD, REALM = "bench", "bench-password", "bench.test"


@dataclass(frozen=True)
class Relayed:
    """What the client reported."""

    packets: int
    lost: int


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    """A port that is free on 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def coturn() -> Iterator[tuple[int, int]]:
    """Runs Debian's coturn on loopback; gives its process and port."""
    port = free_port()
    program = shutil.which("turnserver") or "/usr/bin/turnserver"
    process = subprocess.Popen(
        [program, "-n", "--listening-ip=127.0.0.1", f"--listening-port={port}", "--relay-ip=127.0.0.1",
         "--min-port=40000", "--max-port=49999", "--lt-cred-mech", f"--user={USER}:{PASSWORD}", f"--realm={REALM}",
         "--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "--log-file=stdout",
         "--relay-threads=1", "--pidfile=/dev/null"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_stun("127.0.0.1", port)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(10)


def wait_for_stun(address: str, port: int) -> None:
    """Returns when a STUN Binding request is answered (RFC 8489)."""
    request = bytes.fromhex("000100002112a442") + os.urandom(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.1)
        for _ in range(100):
            probe.sendto(request, (address, port))
            try:
                probe.recv(1500)
            except OSError:
                time.sleep(0.02)
                continue
            return
    raise RuntimeError(f"no STUN answer from {address}:{port}")


@contextmanager
def echo_peer() -> Iterator[int]:
    """Runs coturn's UDP echo peer; gives its port."""
    port = free_port()
    program = shutil.which("turnutils_peer") or "/usr/bin/turnutils_peer"
    process = subprocess.Popen(
        [program, "-L", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def relay(server: tuple[str, int], peer_port: int, clients: int = 20, messages: int = 2000) -> Relayed:
    """``clients`` allocations send ``messages`` packets of 200 bytes each through channels and get them echoed."""
    program = shutil.which("turnutils_uclient") or "/usr/bin/turnutils_uclient"
    done = subprocess.run(
        [program, "-u", USER, "-w", PASSWORD, "-e", "127.0.0.1", "-r", str(peer_port), "-p", str(server[1]),
         "-m", str(clients), "-n", str(messages), "-l", "200", "-z", "1", "-c", server[0]],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    output = done.stdout + done.stderr
    sent = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)
    if not sent:
        raise RuntimeError(f"turnutils_uclient said: {output[-500:]}")
    out, back = (int(n) for n in sent[-1])
    return Relayed(packets=out + back, lost=out - back)
