"""A domain's message of the day (XEP-0133 sections 4.25 to 4.27): everybody gets it once, at the next sign-in or now.

It is the same for all nodes, by the database; who has none to show asks nothing of anybody who signs in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import sqlalchemy as sa

from moim.chat import tables
from moim.chat.accounts import Accounts, Session
from moim.chat.commands import Asked, Command, Outcome, Values
from moim.chat.feature import Feature
from moim.chat.plane import Plane
from moim.errors import MoimError
from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.dataform import Field
from moim.store import Store, insert

_ADMIN: Final = "http://jabber.org/protocol/admin"
_MAX_TEXT: Final = 5000
_AGAIN: Final = 60.0
"""Seconds until the database is asked again what other nodes' administrators may have said."""

_log = logging.getLogger("moim.chat.administration")


@dataclass(frozen=True, slots=True)
class _Message:
    number: int
    text: str


class MessageOfTheDay:
    """The commands, and the feature that tells whoever has not seen it. ``clock`` is in seconds since the epoch."""

    def __init__(
        self,
        domains: Collection[str],
        store: Store,
        *,
        accounts: Accounts,
        plane: Plane,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._domains = domains
        self._store = store
        self._accounts = accounts
        self._plane = plane
        self._clock = clock
        self._messages: dict[str, _Message] = {}
        self._read_at = 0.0
        self._seen: set[str] = set()
        text = (Field("motd", "text-multi", label="Message of the day", required=True),)
        self.commands: Sequence[Command] = (
            Command(f"{_ADMIN}#set-motd", "Set a message of the day, and tell it now", self._set, text, _ADMIN),
            Command(
                f"{_ADMIN}#edit-motd",
                "Change the message of the day for those to come",
                self._edit,
                text,
                _ADMIN,
                lambda asked: (replace(text[0], values=self._lines(asked.domain)),),
            ),
            Command(f"{_ADMIN}#delete-motd", "Delete the message of the day", self._delete, (), _ADMIN),
        )
        self.feature = Feature(
            name="XEP-0133 message of the day",
            on_start=self._read,
            on_available=self._available,
            on_account_removed=self._forget,
        )

    # --- administrators -----------------------------------------------------------------------------------------

    async def _set(self, asked: Asked, values: Values) -> Outcome:
        """XEP-0133 section 4.25: those who are there get it now, others when they come."""
        text = _text(values)
        await self._write(
            asked.domain, lambda before: _Message(max(int(self._clock() * 1000), before.number + 1), text)
        )
        told = [
            account.bare
            for account in self._accounts
            if account.jid.domain == asked.domain and any(account.available())
        ]
        for owner in told:
            await self._show(owner, tuple(self._accounts.available(owner)))
        _log.info("%s set the message of the day and told %d people: %s", asked.by, len(told), text[:200])
        return Outcome(f"told {len(told)} people who are online; others get it when they come")

    async def _edit(self, asked: Asked, values: Values) -> Outcome:
        """XEP-0133 section 4.26: whoever got it already is not told again."""
        text = _text(values)
        if asked.domain not in self._messages:
            raise StanzaError("item-not-found", "there is no message of the day")
        await self._write(asked.domain, lambda before: _Message(before.number, text))
        _log.info("%s changed the message of the day: %s", asked.by, text[:200])
        return Outcome("changed; whoever got it already is not told again")

    def _lines(self, domain: str) -> tuple[str, ...]:
        message = self._messages.get(domain)
        return tuple(message.text.split("\n")) if message is not None else ()

    async def _delete(self, asked: Asked, _values: Values) -> Outcome:
        """XEP-0133 section 4.27."""

        def work(connection: sa.Connection) -> None:
            connection.execute(sa.delete(tables.motd).where(tables.motd.c.domain == asked.domain))
            connection.execute(sa.delete(tables.motd_seen).where(_of(asked.domain)))

        await self._store.write(work)
        self._messages.pop(asked.domain, None)
        self._unseen(asked.domain)
        _log.info("%s deleted the message of the day", asked.by)
        return Outcome("there is no message of the day any more")

    async def _write(self, domain: str, change: Callable[[_Message], _Message]) -> None:
        before = self._messages.get(domain)
        new = change(before or _Message(0, ""))

        def work(connection: sa.Connection) -> None:
            row = {"number": new.number, "message": new.text}
            statement = insert(tables.motd).values(domain=domain, **row)
            connection.execute(statement.on_conflict_do_update(index_elements=["domain"], set_=row))

        await self._store.write(work)
        if before is None or before.number != new.number:
            self._unseen(domain)
        self._messages[domain] = new

    def _unseen(self, domain: str) -> None:
        self._seen = {owner for owner in self._seen if not owner.endswith(f"@{domain}")}

    # --- everybody ----------------------------------------------------------------------------------------------

    def _available(self, session: Session, first: bool) -> Awaitable[None] | None:
        if not first or session.node or not (self._stale() or self._due(session)):
            return None
        return self._tell(session)

    def _stale(self) -> bool:
        return self._store.shared and self._clock() - self._read_at > _AGAIN

    def _due(self, session: Session) -> bool:
        return session.full.domain in self._messages and session.bare not in self._seen

    async def _tell(self, session: Session) -> None:
        try:
            if self._stale():
                await self._read()
            if self._due(session) and session.available:
                await self._show(session.bare, (session,))
        except MoimError as error:
            _log.error("the message of the day was not shown to %s: %s", session.bare, error.message)

    async def _show(self, owner: str, sessions: Sequence[Session]) -> None:
        """Shows it once to an account, whatever node it is at."""
        domain = owner.rpartition("@")[2]
        message = self._messages.get(domain)
        if message is None:
            return
        self._seen.add(owner)

        def work(connection: sa.Connection) -> bool:
            table = tables.motd_seen
            known = connection.scalar(sa.select(table.c.number).where(table.c.owner == owner))
            if known is not None and known >= message.number:
                return False
            statement = insert(table).values(owner=owner, number=message.number)
            row = {"number": message.number}
            connection.execute(statement.on_conflict_do_update(index_elements=["owner"], set_=row))
            return True

        if not await self._store.write(work):
            return
        body = Element("body", ns.CLIENT, {}, (message.text,))
        shared = {"from": domain, "type": "headline", "id": f"motd-{message.number}"}
        told = [(s.sid, Element("message", ns.CLIENT, shared | {"to": str(s.full)}, (body,))) for s in sessions]
        self._plane.send_many(told)

    async def _read(self) -> None:
        """Reads what the database has: another node's administrator may have changed it."""
        query = sa.select(tables.motd).where(tables.motd.c.domain.in_(tuple(self._domains)))
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        found = {row.domain: _Message(row.number, row.message) for row in rows}
        for domain in self._domains:
            new, before = found.get(domain), self._messages.get(domain)
            if new is None or before is None or new.number != before.number:
                self._unseen(domain)
        self._messages, self._read_at = found, self._clock()

    async def _forget(self, owner: str) -> None:
        self._seen.discard(owner)
        gone = sa.delete(tables.motd_seen).where(tables.motd_seen.c.owner == owner)
        await self._store.write(lambda connection: connection.execute(gone))


def _text(values: Values) -> str:
    text = "\n".join(values["motd"]).strip()
    if not 0 < len(text) <= _MAX_TEXT:
        raise StanzaError("not-acceptable", f"a message of the day has 1 to {_MAX_TEXT} characters")
    return text


def _of(domain: str) -> sa.ColumnElement[bool]:
    return tables.motd_seen.c.owner.endswith(f"@{domain}", autoescape=True)
