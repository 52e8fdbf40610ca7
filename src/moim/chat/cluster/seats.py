"""Who is in the rooms, on disk: written shortly after it changes, so that another node can go on with them.

Behind by moments at the most. Whoever enters in a moment that a dying node does not write hears it from the room when
it speaks next, and enters again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from moim.chat.cluster import tables
from moim.chat.rooms import RoomServices
from moim.chat.rooms.ranks import Role
from moim.chat.rooms.room import Room
from moim.errors import MoimError, ProtocolError
from moim.proto.xmpp import Element, Jid
from moim.store import Store, insert

_NS = "urn:moim:seat"
_RETRY_SECONDS = 1.0

_log = logging.getLogger("moim.chat.cluster")

Row = tuple[str, str, int, str]
"""Nickname, role, place among the nickname's sessions, and what it last said."""


class Seats:
    """One reign's picture. ``guard`` refuses to write once another node runs the rooms."""

    def __init__(self, store: Store, guard: Callable[[sa.Connection], None]) -> None:
        self._store = store
        self._guard = guard
        self._noted: WeakKeyDictionary[Room, int] = WeakKeyDictionary()
        self._dirty: dict[str, Room] = {}
        self._written: dict[str, dict[str, Row]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, key: str, room: Room) -> None:
        """Call after every step of a room, which has this name in the store."""
        if self._noted.get(room, 0) == room.seating:
            return
        self._noted[room] = room.seating
        self._dirty[key] = room
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write(), name="chat:seats")

    async def drain(self) -> None:
        """Returns when everything noted so far is on disk, or cannot be."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=2)

    async def _write(self) -> None:
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            now = {name: dict(_rows(room)) for name, room in dirty.items()}
            before = {name: self._written.get(name, {}) for name in now}
            try:
                await self._store.write(lambda c, now=now, before=before: self._change(c, before, now))  # type: ignore[misc]
            except MoimError as error:
                _log.error("who is in the rooms could not be written: %s", error)
                self._dirty = dirty | self._dirty
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for name, rows in now.items():
                if rows:
                    self._written[name] = rows
                else:
                    self._written.pop(name, None)

    def _change(
        self, connection: sa.Connection, before: dict[str, dict[str, Row]], now: dict[str, dict[str, Row]]
    ) -> None:
        self._guard(connection)
        table = tables.occupants
        for name, rows in now.items():
            for session in before[name].keys() - rows.keys():
                connection.execute(sa.delete(table).where(table.c.room == name, table.c.session == session))
            for session, row in rows.items():
                if before[name].get(session) != row:
                    values = dict(zip(("nick", "role", "place", "payload"), row, strict=True))
                    new = insert(table).values(room=name, session=session, **values)
                    connection.execute(new.on_conflict_do_update(index_elements=["room", "session"], set_=values))

    async def restore(self, rooms: RoomServices, present: Callable[[Jid], bool]) -> None:
        """Puts everybody back who was in a room when another node ran it; those who are not there any more leave."""
        order = sa.select(tables.occupants).order_by(tables.occupants.c.room, tables.occupants.c.place)
        gone: list[Jid] = []
        for row in await self._store.read(lambda connection: connection.execute(order).all()):
            values: Any = row
            try:
                session, words = Jid.parse(values.session), Element.parse(values.payload)
                role = Role(values.role)
            except (ProtocolError, ValueError) as error:
                _log.error("an occupant of the room %s cannot be read: %s", values.room, error)
                continue
            self._written.setdefault(values.room, {})[values.session] = (
                values.nick, values.role, values.place, values.payload,
            )  # fmt: skip
            rooms.seat(
                values.room, session, values.nick, role, words.elements(), visible=words.get("visible") == "true"
            )
            if not present(session):
                gone.append(session)
        rooms.vanished(gone)
        rooms.sweep()


def _rows(room: Room) -> Iterator[tuple[str, Row]]:
    for occupant in room.occupants.values():
        for place, (session, words) in enumerate(occupant.sessions.items()):
            attrs = {"visible": "true" if occupant.visible else "false"}
            said = Element("seat", _NS, attrs, tuple(word for word in words if isinstance(word, Element)))
            yield str(session), (occupant.nick, occupant.role.value, place, said.to_xml(""))
