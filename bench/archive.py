"""What the archive itself costs, without clients: a message committed for two accounts, a page out of very many."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import sqlalchemy as sa

from bench.measure import Figure, cpu_of
from moim import chat
from moim._native import ArchiveIds
from moim.chat.accounts import Accounts
from moim.chat.archive import Archive, Limits, ids, keeping, querying
from moim.chat.archive.rows import Record, rows
from moim.proto.xmpp import Element
from moim.store import Store, migrate

_DOMAIN = "bench.test"
_OWNER = f"u0@{_DOMAIN}"
_PAGE = 50
_NAMES = ArchiveIds(bytes(16))


class _Plane:
    """The plane as the archive sees it: ids, and tickets that are done with."""

    def __init__(self) -> None:
        self.archive_ids = _NAMES
        self.last = int(time.time() * 1000 - ids.EPOCH.timestamp() * 1000) << 22
        self.done = 0
        self.wake = asyncio.Event()

    def next_id(self) -> int:
        self.last += 1 << 12
        return self.last

    def archive(self, bare: str, on: bool) -> None:
        """Nothing is delivered here."""

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()

    def committed(self, ticket: int, kept: bool) -> None:
        assert kept
        self.done = ticket
        self.wake.set()

    def tap(self, sid: int, on: bool, why: str) -> None:
        """Nobody is connected here."""

    def send(self, sid: int, elements: Sequence[Element]) -> None:
        """Nobody is connected here."""


async def _no_contact(owner: str, peer: str) -> bool:
    return False


def _refuse(senders: Collection[str]) -> None:
    raise AssertionError(f"{len(senders)} senders could not be archived")


def _message(number: int, sender: str, to: str) -> Element:
    body = Element("body", "jabber:client", {}, (f"message {number} " + "x" * 60,))
    return Element("message", "jabber:client", {"type": "chat", "id": f"m{number}", "from": sender, "to": to}, (body,))


def _record(number: int, identifier: int, one: str, other: str) -> Record:
    sender, to = (one, other) if number % 2 else (other, one)
    return identifier, f"{sender}/r", to, (sender, to), _message(number, f"{sender}/r", to)


async def _commits(store: Store, messages: int, batch: int) -> Figure:
    """Batches of records as the plane sends them at saturation: the next ones come while one is committed."""
    plane = _Plane()
    archive = Archive(
        Limits(),
        store=store,
        plane=plane,
        accounts=Accounts(),
        local=lambda bare: True,
        contact=_no_contact,
        refuse=_refuse,
    )
    assert archive.feature.on_start is not None
    await archive.feature.on_start()
    pairs = [(f"a{n}@{_DOMAIN}", f"b{n}@{_DOMAIN}") for n in range(100)]
    made = [_record(n, plane.next_id(), *pairs[n % len(pairs)]) for n in range(messages)]
    tickets = [made[start : start + batch] for start in range(0, messages, batch)]
    cpu = cpu_of([os.getpid()]).whole
    for number, ticket in enumerate(tickets, 1):
        archive.records(number, ticket)
        while number - plane.done > 8:
            plane.wake.clear()
            await plane.wake.wait()
    await archive.settled()
    used = cpu_of([os.getpid()]).whole - cpu
    await archive.stop()
    return Figure("archive: message committed for two", "Moim", used * 1e6 / messages, "µs CPU", "without the plane")


def _fill(store: Store, amount: int) -> Sequence[int]:
    """An archive of ``amount`` messages with 200 people, over a year."""
    step = (365 * 86_400_000 << 22) // amount
    numbers = range(step, step * (amount + 1), step)  # from the epoch of ids on
    with store.engine.connect() as connection:
        for start in range(0, amount, 20_000):
            chunk = [
                _record(n, numbers[n], _OWNER, f"p{n % 200}@{_DOMAIN}")
                for n in range(start, min(start + 20_000, amount))
            ]
            keeping.add(connection, *rows([(i, s, t, (_OWNER,), m) for i, s, t, _, m in chunk]))
            connection.commit()
    return numbers


def _pages(store: Store, numbers: Sequence[int], runs: int) -> list[Figure]:
    draw = random.Random(1)

    def query(fields: dict[str, str], *, before: str | None = None, after: str | None = None) -> Element:
        form = [
            Element("field", "jabber:x:data", {"var": var}, (Element("value", "jabber:x:data", {}, (value,)),))
            for var, value in {"FORM_TYPE": "urn:xmpp:mam:2", **fields}.items()
        ]
        page = [Element("max", "http://jabber.org/protocol/rsm", {}, (str(_PAGE),))]
        if before is not None:
            page.append(Element("before", "http://jabber.org/protocol/rsm", {}, (before,)))
        if after is not None:
            page.append(Element("after", "http://jabber.org/protocol/rsm", {}, (after,)))
        return Element(
            "query",
            "urn:xmpp:mam:2",
            {},
            (
                Element("x", "jabber:x:data", {"type": "submit"}, tuple(form)),
                Element("set", "http://jabber.org/protocol/rsm", {}, tuple(page)),
            ),
        )

    def person() -> str:
        return f"p{draw.randrange(200)}@{_DOMAIN}"

    def identifier() -> str:
        return _NAMES.write(_OWNER, draw.choice(numbers))

    def moment() -> str:
        return ids.time_of(draw.choice(numbers)).strftime("%Y-%m-%dT%H:%M:%SZ")

    kinds: dict[str, Callable[[], Element]] = {
        "last page": lambda: query({}, before=""),
        "before an id": lambda: query({}, before=identifier()),
        "after an id": lambda: query({}, after=identifier()),
        "with somebody, last": lambda: query({"with": person()}, before=""),
        "with somebody, since": lambda: query({"with": person(), "start": moment()}),
        "between times": lambda: query(dict(zip(("start", "end"), sorted((moment(), moment())), strict=True))),
    }
    figures, slowest = [], 0.0
    for name, make in kinds.items():
        times: list[float] = []
        for _ in range(runs):
            asked = querying.read(make(), _OWNER, _NAMES)

            def answer(connection: sa.Connection, asked: querying.Query = asked) -> querying.Answer:
                return querying.answer(
                    connection,
                    asked,
                    asked.selection(_OWNER),
                    archive=_OWNER,
                    names=_NAMES,
                    asker=f"{_OWNER}/r",
                    bounds=Limits().bounds,
                    forwarded=lambda found, _: Element.parse(found.stanza),
                )

            began = time.perf_counter()
            with store.engine.connect() as connection:
                answer(connection)
            times.append((time.perf_counter() - began) * 1e3)
        slowest = max(slowest, *times)
        note = f"of {len(numbers):,}; worst of {runs} {max(times):.1f}"
        figures.append(Figure(f"archive: page of {_PAGE}, {name}", "Moim", statistics.median(times), "ms", note))
    note = f"of {runs * len(kinds)}, of all kinds"
    return [*figures, Figure(f"archive: page of {_PAGE}, slowest of all", "Moim", slowest, "ms", note)]


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    """Fills two archives in ``folder``."""
    revisions = Path(chat.__path__[0]) / "archive" / "migrations"
    figures: list[Figure] = []
    store = Store(folder / "commits.db")
    migrate(store.where, [revisions])
    try:
        asyncio.run(_commits(store, 2_000, 100))  # caches warm, tables begun
        figures.append(asyncio.run(_commits(store, 5_000 if quick else 50_000, 250)))
    finally:
        store.close()
    store = Store(folder / "pages.db")
    migrate(store.where, [revisions])
    try:
        numbers = _fill(store, 20_000 if quick else 1_000_000)
        figures += _pages(store, numbers, 20 if quick else 200)
    finally:
        store.close()
    return figures
