"""A test run that is killed leaves nothing behind: no server, no daemon, none of its workers."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parent / "support"
STARTS = """
import os, subprocess, time
from nats_server import PrivateNats
from postgres import PrivatePostgres

def test_servers():
    database, bus = PrivatePostgres(), PrivateNats()
    database.start()
    bus.start()
    daemon = subprocess.run("setsid sleep 600 >/dev/null 2>&1 & echo $!", shell=True, capture_output=True, text=True)
    with open("pids", "w") as pids:
        print(os.getpid(), database.pid(), bus._process.pid, daemon.stdout, file=pids)
    time.sleep(600)
"""


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_servers.py").write_text(STARTS)
    os.mkfifo(tmp_path / "pids")
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "leftovers", "-p", "no:cacheprovider"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{SUPPORT}:{SUPPORT.parent}:{os.environ.get('PYTHONPATH', '')}"},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    pids = (tmp_path / "pids").read_text().split()
    handles = [os.pidfd_open(int(pid)) for pid in pids]
    assert len(handles) == 4
    run.send_signal(signal.SIGKILL)
    run.wait()
    for handle in handles:
        assert select.select([handle], [], [], 60)[0], "something goes on"
        os.close(handle)
