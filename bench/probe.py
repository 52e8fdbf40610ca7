"""How long a message takes, from outside the load: a process of its own with two sessions among the others.

It runs at real-time priority where that is allowed, sends a message every few milliseconds whether the last one has
come or not, and notes when it is read. The load's process may be as late as it likes: its delay is not in the figure.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

from bench import xmpp
from bench.xmpp import Account, Profile, Session

_PERIOD = 0.005  # seconds between two messages, on average
_PRIORITY = 10
_PATIENCE = 10.0
_SENT_BEFORE = 2  # stanzas after stream management began: presence, and the question of `settle`
_COUNT = re.compile(rb"<a [^>]*h=['\"](\d+)")


@dataclass
class Times:
    """Seconds: from a message's write to its recipient's read, and from there to its acknowledgement."""

    delivered: list[float] = field(default_factory=list)
    acknowledged: list[float] = field(default_factory=list)
    real_time: bool = False


def quantile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of all are not above."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


class Probe:
    """The process, once it is signed in."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self) -> None:
        """Starts to send."""
        self._say("begin")

    def end(self) -> Times:
        """Stops, and gives what was measured."""
        self._say("end")
        assert self._process.stdout is not None
        return Times(**json.loads(self._process.stdout.readline()))

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()


@contextmanager
def probing(host: str, port: int, domain: str, pair: Sequence[Account], profile: Profile) -> Iterator[Probe]:
    """Signs two accounts in, in a process of its own on this process's processors."""
    task = {"host": host, "port": port, "domain": domain, "pair": [asdict(a) for a in pair], "profile": profile}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.probe", json.dumps(task)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the probe could not sign in")
        yield Probe(process)
    finally:
        process.kill()
        process.wait()


def _hurry() -> bool:
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        return True
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    return False


class _Pair:
    """The two sessions, and what is under way between them."""

    def __init__(self, sender: Session, receiver: Session) -> None:
        self._sender, self._receiver = sender, receiver
        self._message = xmpp.message_to(receiver.jid) + (xmpp.ASK if sender.managed else b"")
        self._count = _SENT_BEFORE
        self._started: deque[float] = deque()
        self._asked: deque[tuple[int, float]] = deque()  # the count that stands for it, and when it was sent
        self._quiet = asyncio.Event()
        self.times = Times()

    async def receive(self) -> None:
        """Notes what arrives."""
        while chunk := await self._receiver.reader.read(1 << 16):
            now = time.perf_counter()
            for _ in range(self._receiver.take(chunk)):
                self.times.delivered.append(now - self._started.popleft())
            self._look()

    async def hear(self) -> None:
        """Notes what is acknowledged."""
        while chunk := await self._sender.reader.read(1 << 16):
            now = time.perf_counter()
            self._sender.take(chunk)
            for count in _COUNT.findall(chunk):
                while self._asked and self._asked[0][0] <= int(count):
                    self.times.acknowledged.append(now - self._asked.popleft()[1])
            self._look()

    def _look(self) -> None:
        if not self._started and not self._asked:
            self._quiet.set()

    async def send(self) -> None:
        """Sends until it is cancelled."""
        draw, due = random.Random(7), time.perf_counter()
        while True:
            due += draw.uniform(0, 2 * _PERIOD)
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            now = time.perf_counter()
            self._count += 1
            self._started.append(now)
            if self._sender.managed:
                self._asked.append((self._count, now))
            self._quiet.clear()
            self._sender.writer.write(self._message)

    async def arrived(self) -> None:
        """Returns when nothing is under way. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE):
            await self._quiet.wait()


async def _run(task: dict[str, Any]) -> None:
    accounts = [Account(**fields) for fields in task["pair"]]
    sessions = await xmpp.login_all(
        task["host"], task["port"], task["domain"], accounts, xmpp.insecure_context(), task["profile"]
    )
    await xmpp.settle(sessions)
    pair, real_time = _Pair(*sessions), _hurry()
    listening = [asyncio.create_task(pair.receive()), asyncio.create_task(pair.hear())]
    commands = await _lines()
    print("ready", flush=True)
    while await commands.readline():
        pair.times = Times(real_time=real_time)
        sending = asyncio.create_task(pair.send())
        await commands.readline()
        sending.cancel()
        await pair.arrived()
        print(json.dumps(asdict(pair.times)), flush=True)
    for work in listening:
        work.cancel()


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _main() -> None:
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(json.loads(sys.argv[1])))


if __name__ == "__main__":
    _main()
