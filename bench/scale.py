"""What grows and what does not: with idle connections, with users, with sign-ins since the start, with processors."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import chat, xmpp
from bench.measure import Cpu, Figure, cost, cpu_of, resident
from bench.subjects import NAMES, Subject, run, subject
from bench.xmpp import Account, Session

# Presence that goes to contacts is no cost of the number of users: nobody gets any by default.
_NO_CONTACTS = "default_contacts_limit = 2"
_PAIRS = 5
_TURNS = 3
_COUNT = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
began, number = time.perf_counter(), 0
while time.perf_counter() < began + 1:
    number += 1
print(number)
"""


def idle(folder: Path, accounts: Sequence[Account], names: Sequence[str] = NAMES) -> list[Figure]:
    """Growth of resident memory over signed-in connections that do nothing."""

    async def whole(found: Subject) -> Figure:
        await xmpp.close_all(await chat.sign_in(found, accounts[:100], "bare"))
        before = resident([found.pid])
        sessions = await chat.sign_in(found, accounts, "bare")
        each = (resident([found.pid]) - before) / len(sessions) / 1e3
        await xmpp.close_all(sessions)
        return Figure("idle TLS connection, resident", found.name, each, "kB", f"{len(sessions)} connections")

    figures = []
    for name in names:
        with subject(name, folder / f"idle-{name}", accounts, "bare", more=_NO_CONTACTS) as found:
            figures.append(run(whole(found)))
    return figures


async def _again(found: Subject, accounts: Sequence[Account], rounds: int) -> Cpu:
    """What a sign-in costs: ``accounts`` sign in and out, ``rounds`` times."""
    cpu = cpu_of([found.pid])
    for _ in range(rounds):
        await xmpp.close_all(await chat.sign_in(found, accounts, "bare"))
    return (cpu_of([found.pid]) - cpu) / (len(accounts) * rounds)


def users(folder: Path, accounts: Sequence[Account], each: int) -> list[Figure]:
    """The same ten people sign in and write while 10, 100, 1,000, 10,000 are signed in in all."""

    async def whole(found: Subject, number: int) -> list[Figure]:
        sessions = await chat.sign_in(found, accounts[:number], "bare")
        few, rest = sessions[: 2 * _PAIRS], sessions[2 * _PAIRS :]
        used, rate = await chat.saturated(found, few, each)
        await xmpp.close_all(few)
        await _again(found, accounts[: 2 * _PAIRS], 2)
        login = await _again(found, accounts[: 2 * _PAIRS], 20)
        await xmpp.close_all(rest)
        what = f"with {number:,} users signed in"
        return [
            cost(f"login {what}", found.name, login, "ms CPU"),
            cost(f"delivered message {what}, five pairs", found.name, used, "µs CPU", f"{rate:.0f}/s"),
        ]

    figures = []
    number = 2 * _PAIRS
    while number <= len(accounts):
        with subject("Moim", folder / f"users-{number}", accounts[:number], "bare", more=_NO_CONTACTS) as found:
            figures += run(whole(found, number))
        number *= 10
    return figures


def uptime(folder: Path, accounts: Sequence[Account], sign_ins: int, each: int) -> list[Figure]:
    """Sign-in, message and memory of a server that has just started, and after very many sign-ins."""

    async def state(found: Subject, sessions: Sequence[Session]) -> tuple[Cpu, int]:
        used, _ = await chat.saturated(found, sessions, each)
        return used, resident([found.pid])

    async def whole(found: Subject) -> list[Figure]:
        await _again(found, accounts, 2)
        sessions = await chat.sign_in(found, accounts, "bare")
        message, memory = await state(found, sessions)
        await xmpp.close_all(sessions)
        first = await _again(found, accounts, 10)
        began = time.monotonic()
        await _again(found, accounts, sign_ins // len(accounts))
        took = time.monotonic() - began
        last = await _again(found, accounts, 10)
        sessions = await chat.sign_in(found, accounts, "bare")
        message_later, memory_later = await state(found, sessions)
        await xmpp.close_all(sessions)
        later = f"after {sign_ins:,} logins"
        grown = f"{memory / 1e6:.0f} MB before; {sign_ins / took:.0f} logins a second"
        return [
            cost("login at the start", found.name, first, "ms CPU"),
            cost(f"login {later}", found.name, last, "ms CPU"),
            cost("delivered message at the start, saturated", found.name, message, "µs CPU"),
            cost(f"delivered message {later}, saturated", found.name, message_later, "µs CPU"),
            Figure(f"resident memory {later}", found.name, memory_later / 1e6, "MB", grown),
        ]

    with subject("Moim", folder / "uptime", accounts, "bare", more=_NO_CONTACTS) as found:
        return run(whole(found))


def cores(folder: Path, accounts: Sequence[Account], each: int) -> list[Figure]:
    """What a unit costs when the server has two processors, and what it could do at that cost; medians of three turns.

    The load needs one of the two, so the throughput itself cannot be measured here. It is derived: what the plane's
    threads do, they share, as long as a unit costs no more than before; what Python does, one processor does.
    """

    async def whole(found: Subject) -> tuple[Cpu, Cpu]:
        await _again(found, accounts, 2)
        login = await _again(found, accounts, 3)
        sessions = await chat.sign_in(found, accounts, "bare")
        used, _ = await chat.saturated(found, sessions, each)
        await xmpp.close_all(sessions)
        return login, used

    found: dict[int, list[tuple[Cpu, Cpu]]] = {1: [], 2: []}
    for turn in range(_TURNS):  # in turns, because the machine's own speed wavers by the minute
        for number in (1, 2):
            place = folder / f"cores-{turn}-{number}"
            with subject("Moim", place, accounts, "bare", more=_NO_CONTACTS, on=number) as running:
                found[number].append(run(whole(running)))
    figures = []
    for index, what, unit in ((0, "login", "ms CPU"), (1, "delivered message, saturated", "µs CPU")):
        one, two = (
            sorted((turn[index] for turn in found[number]), key=lambda cpu: cpu.whole)[_TURNS // 2] for number in (1, 2)
        )
        figures.append(cost(f"{what}, two processors", "Moim", two, unit, "on one: see above"))
        possible = one.whole / max(two.whole / 2, two.whole - two.rust)
        figures.append(Figure(f"{what}: throughput of two", "Moim", possible, "of one", "derived from CPU"))
    counted = [_counted(number) for number in (1, 2) * _TURNS]
    figures.append(
        Figure(
            "a program that only counts: throughput of two",
            "Moim",
            sum(counted[1::2]) / sum(counted[::2]),
            "of one",
            "what this machine has to give",
        )
    )
    return figures


def _counted(number: int) -> float:
    """How far so many processes count in a second of their own, each on a processor of its own, all together."""
    processes = [
        subprocess.Popen([sys.executable, "-c", _COUNT, str(processor)], stdout=subprocess.PIPE)
        for processor in sorted(os.sched_getaffinity(0))[:number]
    ]
    return sum(float(process.communicate()[0]) for process in processes)
