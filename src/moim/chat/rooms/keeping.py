"""Keeps persistent rooms in the store: written in the order of the changes, read back whole at the start."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from moim.chat.rooms import tables
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.history import Entry
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import Room, Subject
from moim.errors import ProtocolError, Unavailable
from moim.proto.xmpp import Element, Jid
from moim.store import Store

_MAX_WRITING = 10_000

_log = logging.getLogger("moim.chat.rooms")


class RoomStore:
    """Rooms on disk. Each method takes its picture of the room at once; the task is done when it is on disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writing: set[asyncio.Task[None]] = set()

    def save(self, room: Room) -> asyncio.Task[None]:
        """Writes configuration, affiliations, subject and the whole history; a room that is to be forgotten goes.

        The task raises MoimError when the database does not take it.
        """
        name = room.jid.local
        if room.destroyed or room.locked or not room.config.persistent:
            return self._spawn(lambda connection: _delete(connection, name))
        subject = room.subject
        row = {
            "room": name,
            "config": room.config.to_json(),
            "salt": room.salt,
            "creator": room.creator,
            "subject": subject.text if subject is not None else None,
            "subject_nick": subject.nick if subject is not None else None,
            "subject_at": subject.set_at.timestamp() if subject is not None else None,
        }
        held = [{"room": name, "jid": jid, "affiliation": a.value} for jid, a in room.affiliations.items()]
        entries = room.history.entries()

        def write(connection: sa.Connection) -> None:
            known = connection.execute(sa.select(tables.rooms.c.room).where(tables.rooms.c.room == name)).first()
            connection.execute(insert(tables.rooms).values(row).on_conflict_do_update(["room"], set_=row))
            connection.execute(sa.delete(tables.affiliations).where(tables.affiliations.c.room == name))
            if held:
                connection.execute(sa.insert(tables.affiliations), held)
            if known is None:
                _append(connection, name, entries, len(entries))

        return self._spawn(write)

    def record(self, room: Room, entries: Sequence[Entry]) -> None:
        """Adds messages to the history of a persistent room; a failure is logged."""
        if room.locked or not room.config.persistent:
            return
        if len(self._writing) >= _MAX_WRITING:
            _log.error("the store cannot keep up: messages of %s are not kept", room.address)
            return
        name, keep = room.jid.local, min(room.config.history, room.bounds.history)
        task = self._spawn(lambda connection: _append(connection, name, entries, keep))
        task.add_done_callback(lambda done: _report(done, room.address))

    def _spawn(self, work: Callable[[sa.Connection], None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._store.write(work), name="chat:rooms")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def drain(self) -> None:
        """Returns when everything given so far is on disk or failed."""
        while self._writing:
            await asyncio.wait(tuple(self._writing))

    async def load(self, host: str, bounds: Bounds, token: Callable[[], str]) -> list[Room]:
        """Every room on disk. A message that cannot be read is logged and passed over."""
        return await self._store.read(lambda connection: _load(connection, host, bounds, token))


def _report(task: asyncio.Task[None], room: str) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a message of %s could not be kept: %s", room, error)


def _delete(connection: sa.Connection, name: str) -> None:
    for table in (tables.rooms, tables.affiliations, tables.history):
        connection.execute(sa.delete(table).where(table.c.room == name))


def _append(connection: sa.Connection, name: str, entries: Sequence[Entry], keep: int) -> None:
    table = tables.history
    rows = [{"room": name, "sent_at": e.sent_at.timestamp(), "message": e.message.to_xml("")} for e in entries]
    if rows:
        connection.execute(sa.insert(table), rows)
    newest = sa.select(table.c.id).where(table.c.room == name).order_by(table.c.id.desc()).limit(keep)
    connection.execute(sa.delete(table).where(table.c.room == name, table.c.id.not_in(newest)))


def _load(connection: sa.Connection, host: str, bounds: Bounds, token: Callable[[], str]) -> list[Room]:
    held: defaultdict[str, dict[str, Affiliation]] = defaultdict(dict)
    for row in connection.execute(sa.select(tables.affiliations)):
        held[row.room][row.jid] = Affiliation(row.affiliation)
    said: defaultdict[str, list[Entry]] = defaultdict(list)
    for row in connection.execute(sa.select(tables.history).order_by(tables.history.c.id)):
        try:
            said[row.room].append(Entry(datetime.fromtimestamp(row.sent_at, UTC), Element.parse(row.message)))
        except ProtocolError as error:
            _log.error("message %d of the room %s cannot be read any more: %s", row.id, row.room, error.message)
    found = []
    for row in connection.execute(sa.select(tables.rooms)):
        subject = None
        if row.subject is not None:
            subject = Subject(row.subject, row.subject_nick or "", datetime.fromtimestamp(row.subject_at, UTC))
        try:
            config = RoomConfig.from_json(row.config)
        except (ValueError, TypeError) as error:
            raise Unavailable(f"the configuration of the room {row.room} cannot be read: {error}") from error
        found.append(
            Room(
                Jid(row.room, host),
                config=config,
                bounds=bounds,
                salt=row.salt,
                creator=row.creator,
                token=token,
                affiliations=held[row.room],
                subject=subject,
                history=said[row.room],
            )
        )
    return found
