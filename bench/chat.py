"""What chat costs one server: login, message, idle connection; bare, with features, and with a durable archive."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import xmpp
from bench.measure import Figure, cpu_seconds, resident
from bench.xmpp import Account, Profile

TITLES: dict[Profile, str] = {
    "bare": "delivered message",
    "features": "delivered message, carbons, acks, CSI, PEP",
    "archive": "delivered message, these and archive",
}


@dataclass(frozen=True)
class Subject:
    """A running server: its name in the table, its process, and where its direct-TLS port is."""

    name: str
    pid: int
    host: str
    port: int
    domain: str


@dataclass(frozen=True)
class Load:
    """How much: messages that each of the ``pairs`` sends, and all the accounts."""

    accounts: Sequence[Account]
    pairs: int
    each: int
    idle: int


async def _login_all(
    subject: Subject, accounts: Sequence[Account], profile: Profile, width: int = 20
) -> list[xmpp.Session]:
    context = xmpp.insecure_context()
    sessions = await xmpp.login_all(subject.host, subject.port, subject.domain, accounts, context, profile, width)
    await xmpp.settle(sessions)
    return sessions


async def _logins(subject: Subject, accounts: Sequence[Account], profile: Profile) -> tuple[list[xmpp.Session], float]:
    """Signs in; gives the sessions and CPU seconds per login."""
    await xmpp.close_all(await _login_all(subject, accounts[:20], profile))
    cpu = cpu_seconds([subject.pid])
    sessions = await _login_all(subject, accounts, profile)
    return sessions, (cpu_seconds([subject.pid]) - cpu) / len(accounts)


async def _messages(subject: Subject, load: Load, profile: Profile) -> list[Figure]:
    accounts = load.accounts[: load.pairs * 2]
    began = time.monotonic()
    sessions, login = await _logins(subject, accounts, profile)
    figures = []
    if profile == "bare":
        wall = time.monotonic() - began
        figures.append(Figure("login, SCRAM-SHA-1, TLS 1.3", subject.name, login * 1e3, "ms CPU"))
        figures.append(Figure("login rate", subject.name, (len(accounts) + 20) / wall, "per s", "20 at a time"))
    title = TITLES[profile]
    saturated, rate = 0.0, 0.0
    for _ in range(2):  # the second pass is the figure: caches warm, allocators grown
        cpu, began = cpu_seconds([subject.pid]), time.monotonic()
        count = await xmpp.exchange(sessions, load.each, burst=20)
        saturated, rate = (cpu_seconds([subject.pid]) - cpu) * 1e6 / count, count / (time.monotonic() - began)
    figures.append(Figure(f"{title}, saturated", subject.name, saturated, "µs CPU", f"{rate:.0f}/s"))
    cpu, began = cpu_seconds([subject.pid]), time.monotonic()
    count = await xmpp.exchange(sessions, max(load.each // 10, 20), burst=1, pause=len(sessions) / 2000)
    used, rate = (cpu_seconds([subject.pid]) - cpu) * 1e6 / count, count / (time.monotonic() - began)
    figures.append(Figure(f"{title}, paced", subject.name, used, "µs CPU", f"{rate:.0f}/s"))
    delays = sorted(delay for session in sessions for delay in session.delays)
    worst = delays[int(len(delays) * 0.99)] * 1e3
    figures.append(
        Figure(f"{title}, paced, p99", subject.name, worst, "ms", f"{rate:.0f}/s, load's own delay included")
    )
    await xmpp.close_all(sessions)
    return figures


async def _idle(subject: Subject, load: Load) -> Figure:
    before = resident([subject.pid])
    idle = await _login_all(subject, load.accounts[: load.idle], "bare")
    each = (resident([subject.pid]) - before) / len(idle) / 1e3
    await xmpp.close_all(idle)
    return Figure("idle TLS connection", subject.name, each, "kB", f"{len(idle)} connections")


def figures(subject: Subject, load: Load, profile: Profile) -> list[Figure]:
    """Everything of one profile; login and idle memory only with ``bare``."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    async def whole() -> list[Figure]:
        found = await _messages(subject, load, profile)
        if profile == "bare":
            found.append(await _idle(subject, load))
        return found

    return asyncio.run(whole())
