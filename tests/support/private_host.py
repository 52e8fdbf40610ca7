"""A host of its own for a program: new network and mount namespaces, standard ports, the name server that a test gives.

``run_alone`` needs root, or a kernel that lets users make namespaces.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_PREPARE = """
set -e
ip link set lo up
mount --bind "$MOIM_TEST_RESOLV" /etc/resolv.conf
mount --bind "$MOIM_TEST_HOSTS" /etc/hosts
exec "$@"
"""


def run_alone(
    folder: Path, command: Sequence[str], *, environment: Mapping[str, str], timeout: float, hosts: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs ``command`` where nothing but loopback exists and 127.0.0.1 port 53 is the resolver; gives what it said.

    ``hosts`` are further lines of /etc/hosts.
    """
    resolv, hosts_file = folder / "resolv.conf", folder / "hosts"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")
    hosts_file.write_text("127.0.0.1 localhost\n" + hosts)
    rights = () if os.geteuid() == 0 else ("--map-root-user",)
    return subprocess.run(
        ["unshare", *rights, "--mount", "--net", "--kill-child", "--fork", "--pid", "--mount-proc",
         "bash", "-c", _PREPARE, "bash", *command],
        capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        env=os.environ | {"MOIM_TEST_RESOLV": str(resolv), "MOIM_TEST_HOSTS": str(hosts_file)} | dict(environment),
    )  # fmt: skip
