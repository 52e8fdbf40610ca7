"""What chat costs one server: sign-in and message; bare, with features, with an archive; and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import probe, xmpp
from bench.measure import Cpu, Figure, cost, cpu_of
from bench.subjects import Subject, run
from bench.xmpp import Account, Profile, Session

TITLES: dict[Profile, str] = {
    "bare": "delivered message",
    "features": "with carbons, acks, CSI, PEP",
    "archive": "these and a durable archive",
}
BURST = 20
_WIDTH = 20
_USUAL = 2000.0  # messages a second


@dataclass(frozen=True)
class Load:
    """How much: ``each`` of the sessions of ``pairs`` sends that many at saturation; seconds of what is paced."""

    accounts: Sequence[Account]
    pairs: int
    each: int
    seconds: float


async def sign_in(
    subject: Subject, accounts: Sequence[Account], profile: Profile, width: int = _WIDTH
) -> list[Session]:
    """Sessions of all accounts, once the server has nothing left to do for them."""
    context = xmpp.insecure_context()
    sessions = await xmpp.login_all(subject.host, subject.port, subject.domain, accounts, context, profile, width)
    await xmpp.settle(sessions)
    return sessions


async def logins(subject: Subject, accounts: Sequence[Account], profile: Profile) -> tuple[list[Session], Cpu]:
    """Signs everybody in; gives the sessions and what one of them cost, in the median round of three."""
    rounds: list[Cpu] = []
    sessions: list[Session] = []
    for _ in range(4):  # the first is no figure: caches are cold, allocators small
        await xmpp.close_all(sessions)
        cpu = cpu_of([subject.pid])
        sessions = await sign_in(subject, accounts, profile)
        rounds.append((cpu_of([subject.pid]) - cpu) / len(accounts))
    return sessions, sorted(rounds[1:], key=lambda used: used.whole)[1]


async def saturated(subject: Subject, sessions: Sequence[Session], each: int) -> tuple[Cpu, float]:
    """What a message costs with 20 of each session under way, and how many a second these are."""
    used, rate = Cpu(), 0.0
    for _ in range(2):  # the second pass is the figure: caches warm, allocators grown
        cpu, began = cpu_of([subject.pid]), time.monotonic()
        count = await xmpp.exchange(sessions, each, BURST)
        used, rate = (cpu_of([subject.pid]) - cpu) / count, count / (time.monotonic() - began)
    return used, rate


async def _paced(
    subject: Subject, sessions: Sequence[Session], found: probe.Probe, rate: float, seconds: float, burst: int
) -> tuple[Cpu, float, probe.Times]:
    await xmpp.pace(sessions, rate, min(seconds, 1), burst)
    found.begin()
    cpu = cpu_of([subject.pid])
    count, took = await xmpp.pace(sessions, rate, seconds, burst)
    used = (cpu_of([subject.pid]) - cpu) / count
    return used, count / took, found.end()


async def _messages(subject: Subject, load: Load, profile: Profile) -> list[Figure]:
    accounts = load.accounts[: load.pairs * 2]
    name, title = subject.name, TITLES[profile]
    began = time.monotonic()
    sessions, login = await logins(subject, accounts, profile)
    figures = []
    if profile == "bare":
        rate = 4 * len(accounts) / (time.monotonic() - began)
        figures.append(cost("login, SCRAM-SHA-1, TLS 1.3", name, login, "ms CPU", f"{rate:.0f}/s, 20 at a time"))
    used, most = await saturated(subject, sessions, load.each)
    figures.append(cost(f"{title}, saturated", name, used, "µs CPU", f"{most:.0f}/s"))
    own = load.accounts[load.pairs * 2 :][:2]
    with probe.probing(subject.host, subject.port, subject.domain, own, profile) as found:
        # A server that cannot take that much gets half of what it can.
        usual = min(_USUAL, most / 2)
        used, rate, times = await _paced(subject, sessions, found, usual, load.seconds, 1)
        figures.append(cost(f"{title}, paced", name, used, "µs CPU", f"{rate:.0f}/s"))
        figures += _times(f"{title}, paced", name, times, rate)
        _, rate, times = await _paced(subject, sessions, found, most / 2, load.seconds, BURST)
        figures += _times(f"{title}, half load", name, times, rate)
    await xmpp.close_all(sessions)
    return figures


def _times(title: str, name: str, times: probe.Times, rate: float) -> list[Figure]:
    figures = []
    for what, values in (("delivery", times.delivered), ("acknowledged", times.acknowledged)):
        if values:
            median, worst = probe.quantile(values, 0.5) * 1e3, max(values) * 1e3
            note = f"{rate:.0f}/s, {len(values)} times, median {median:.2f}, worst {worst:.1f}"
            note += "" if times.real_time else ", the probe had no priority"
            figures.append(Figure(f"{title}, {what}, p99", name, probe.quantile(values, 0.99) * 1e3, "ms", note))
    return figures


def figures(subject: Subject, load: Load, profile: Profile) -> list[Figure]:
    """Everything of one profile; login only with ``bare``."""
    return run(_messages(subject, load, profile))
