"""Messages for those who are away (RFC 6121 section 8.5.2.2, XEP-0160): kept on disk, handed out at sign-in.

A message counts as kept once it is on disk; if it cannot be, its sender hears so. It is deleted only after it was
handed to the plane: a crash in between delivers it twice rather than never.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Protocol

import sqlalchemy as sa

from moim.chat import tables
from moim.chat.accounts import Accounts, Session
from moim.chat.custody import hold_until
from moim.chat.feature import Feature
from moim.chat.locks import Locks
from moim.chat.moving.tables import adopted_messages
from moim.chat.owners import Owners
from moim.chat.plane import Plane
from moim.errors import MoimError, ProtocolError, Unavailable
from moim.proto.xmpp import Element, StanzaError, delay, message_type, ns
from moim.store import Store

_MAX_WRITING = 10_000
_PAGE = 200
_MAX_STANZA = 262_144  # what Element.parse takes: escaped for storage, a stanza may be longer than it came

_log = logging.getLogger("moim.chat.offline")

Bounce = Callable[[Element, StanzaError], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept for one account that is away: messages, and their bytes."""

    messages: int
    size: int


class Archive(Protocol):
    """Where messages go before they come here."""

    def got(self, session: Session, message: Element) -> bool:
        """Whether a session has read the message there already."""
        ...

    def coming(self, owner: str) -> bool:
        """Whether messages for a bare JID are on their way through it."""
        ...

    async def settled(self) -> None:
        """Returns when these are through."""
        ...


def worth_keeping(message: Element) -> bool:
    """Whether a message is kept for later: not when it is only about the moment, or asks not to be (XEP-0334)."""
    if message_type(message) not in ("normal", "chat"):
        return False
    hints = {child.name for child in message.elements() if child.ns == ns.HINTS}
    if hints & {"no-store", "store"}:
        return "no-store" not in hints
    passing = (ns.CHAT_STATES, ns.HINTS)
    return any(child.name != "thread" and child.ns not in passing for child in message.elements())


class OfflineMessages:
    """The queue of every account that is away.

    ``limits`` are those of a bare JID; ``bounce`` tells a sender that a message could not be kept. What a session has
    read from its archive it need not get once more (XEP-0313 section 5.1.1).
    """

    def __init__(
        self,
        *,
        accounts: Accounts,
        plane: Plane,
        store: Store,
        bounce: Bounce,
        limits: Callable[[str], Limits],
        alone: bool = True,
        archive: Archive | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._accounts = accounts
        self._plane = plane
        self._store = store
        self._bounce = bounce
        self._limits = limits
        self._archive = archive
        self._clock = clock
        self._writing: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._count = 0
        self._owners = Owners(tables.offline.c.owner, alone=alone)
        self._handing = Locks()
        self.feature = Feature(
            name="XEP-0160 offline messages",
            domain_vars=lambda domain: ("msgoffline",) if limits(domain).messages else (),
            on_start=self._start,
            before_available=self._before_available,
            on_account_removed=self._drop,
        )

    def keep(self, owner: str, message: Element, *, archived: bool = False, since: datetime | None = None) -> None:
        """Begins to keep a message for a bare JID; order is kept. Raises StanzaError when there is no room for it.

        ``archived``: the owner's archive has it, so it is not lost when there is no room here, and nobody is told.
        ``since`` is when it first came, if that was before now.
        """
        kept = self._limits(owner).messages
        if not kept or self._count >= _MAX_WRITING:
            if archived:
                return
            if not kept:
                raise StanzaError("service-unavailable")
            raise StanzaError("resource-constraint", "too many messages are being stored at this moment")
        bounce = self._unheard if archived else self._bounce
        task = asyncio.create_task(self._keep(owner, message, bounce, since), name="chat:offline")
        self._count += 1
        self._owners.add(owner)
        self._writing[owner].add(task)
        hold_until(task)
        task.add_done_callback(lambda done: self._written(owner, done))

    async def adopt(self, owner: str, messages: Sequence[tuple[datetime, Element]]) -> tuple[int, int]:
        """Takes messages over that waited at another server since these times; how many are new, and how many not.

        A message is taken once, also when it was handed out since. What there is no room for counts as neither.
        """
        self._owners.add(owner)
        limits = self._limits(owner)
        rows = [(at.timestamp(), text, len(text.encode())) for at, m in messages for text in (m.to_xml(""),)]

        def work(connection: sa.Connection) -> tuple[int, int]:
            table, taken = tables.offline, adopted_messages
            used = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(table.c.size), 0))
            count, total = connection.execute(used.where(table.c.owner == owner)).one()
            new = known = 0
            for at, text, size in rows:
                digest = blake2b(f"{at} {text}".encode(), digest_size=16).hexdigest()
                marked = sa.select(taken.c.digest).where(taken.c.owner == owner, taken.c.digest == digest)
                if connection.execute(marked).first() is not None:
                    known += 1
                elif count < limits.messages and total + size <= limits.size:
                    connection.execute(sa.insert(taken).values(owner=owner, digest=digest))
                    connection.execute(sa.insert(table).values(owner=owner, stored_at=at, size=size, stanza=text))
                    new, count, total = new + 1, count + 1, total + size
            return new, known

        return await self._store.write(work)

    async def waiting(self, owner: str, after: int = 0) -> Sequence[tuple[int, Element]]:
        """A page of the messages that wait, oldest first, each with its number and the note since when."""
        rows = await self._page(owner, after)
        return [(row.id, stanza) for row in rows if (stanza := self._delayed(row)) is not None]

    def _written(self, owner: str, task: asyncio.Task[None]) -> None:
        self._count -= 1
        writing = self._writing[owner]
        writing.discard(task)
        if not writing:
            del self._writing[owner]

    @staticmethod
    def _unheard(message: Element, error: StanzaError) -> None:
        _log.info("a message for %s is in the archive alone: %s", message.get("to"), error.message)

    async def _keep(self, owner: str, message: Element, bounce: Bounce, since: datetime | None) -> None:
        limits = self._limits(owner)
        text = _without_forged_delay(message, owner.rpartition("@")[2]).to_xml("")
        size = len(text.encode())
        if size > _MAX_STANZA:
            bounce(message, StanzaError("policy-violation", "the message is too large to be stored"))
            return
        at = (since or self._clock()).timestamp()
        table = tables.offline

        def insert(connection: sa.Connection) -> bool:
            used = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(table.c.size), 0))
            messages, total = connection.execute(used.where(table.c.owner == owner)).one()
            if messages >= limits.messages or total + size > limits.size:
                return False
            connection.execute(sa.insert(table).values(owner=owner, stored_at=at, size=size, stanza=text))
            return True

        try:
            kept = await self._store.write(insert)
        except MoimError as error:
            _log.error("a message for %s could not be kept: %s", owner, error.message)
            bounce(message, StanzaError("internal-server-error", "the message could not be stored", kind="wait"))
            return
        except Exception:
            _log.exception("a message for %s could not be kept", owner)
            bounce(message, StanzaError("internal-server-error"))
            return
        if not kept:
            bounce(message, StanzaError("service-unavailable", "the recipient's offline messages are full"))
            return
        account = self._accounts.get(owner)
        if account is not None and (receiving := account.receiving()):
            await self._hand_out(owner, receiving[0])  # they came online while it was written

    async def _start(self) -> None:
        await self._owners.load(self._store)

    def _before_available(self, session: Session, priority: int) -> Awaitable[None] | None:
        if priority < 0 or session.receives or not (session.bare in self._owners or self._coming(session.bare)):
            return None
        return self._give(session, session.bare)

    def _coming(self, owner: str) -> bool:
        return self._archive is not None and self._archive.coming(owner)

    async def _give(self, session: Session, owner: str) -> None:
        if self._archive is not None and self._archive.coming(owner):
            await self._archive.settled()
        while writing := self._writing.get(owner):
            await asyncio.wait(tuple(writing))
        try:
            await self._hand_out(owner, session)
        except Unavailable as error:
            # Being there must not depend on the past: what waits is handed out next time.
            _log.error("the messages that wait for %s cannot be read: %s", owner, error.message)

    async def came_elsewhere(self, session: Session) -> None:
        """A session of another node is there: it gets what was stored here meanwhile. Raises Unavailable."""
        await self._hand_out(session.bare, session)

    async def _hand_out(self, owner: str, session: Session) -> None:
        async with self._handing.of(owner):
            last = 0
            while not session.gone:
                rows = await self._page(owner, last)
                if not rows and owner not in self._writing:
                    self._owners.discard(owner)
                if not rows or session.gone:
                    break
                waiting = (stanza for row in rows if (stanza := self._delayed(row)) is not None)
                self._plane.send(session.sid, [stanza for stanza in waiting if not self._had(session, stanza)])
                last = rows[-1].id
                await self._handed_out(owner, last)

    def _had(self, session: Session, message: Element) -> bool:
        return self._archive is not None and self._archive.got(session, message)

    async def _page(self, owner: str, after: int) -> Sequence[sa.Row[Any]]:
        table = tables.offline
        query = sa.select(table).where(table.c.owner == owner, table.c.id > after).order_by(table.c.id).limit(_PAGE)
        return await self._store.read(lambda connection: connection.execute(query).all())

    async def _handed_out(self, owner: str, last: int) -> None:
        table = tables.offline
        done = sa.delete(table).where(table.c.owner == owner, table.c.id <= last)
        await self._store.write(lambda connection: connection.execute(done))

    def _delayed(self, row: sa.Row[Any]) -> Element | None:
        try:
            message = Element.parse(row.stanza)
        except ProtocolError as error:
            _log.error("message %d for %s cannot be read any more and is dropped: %s", row.id, row.owner, error.message)
            return None
        note = delay(datetime.fromtimestamp(row.stored_at, UTC), row.owner.rpartition("@")[2])
        return message.with_children((*message.children, note))

    async def _drop(self, owner: str) -> None:
        def work(connection: sa.Connection) -> None:
            for table in (tables.offline, adopted_messages):
                connection.execute(sa.delete(table).where(table.c.owner == owner))

        await self._store.write(work)

    async def drain(self) -> None:
        """Returns when everything accepted so far is on disk or refused."""
        while tasks := [task for writing in self._writing.values() for task in writing]:
            await asyncio.wait(tasks)


def _without_forged_delay(message: Element, domain: str) -> Element:
    """Notes about delays in the name of the recipient's domain are this server's to write (XEP-0203 section 4)."""
    forged = [
        child for child in message.elements()
        if (child.ns, child.name) == (ns.DELAY, "delay") and child.get("from") == domain
    ]  # fmt: skip
    return message.with_children([c for c in message.children if c not in forged]) if forged else message
