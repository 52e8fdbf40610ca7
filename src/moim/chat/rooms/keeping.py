"""Keeps persistent rooms in the store: written in the order of the changes, read back whole at the start."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from moim.chat.custody import hold_until
from moim.chat.rooms import tables
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.hat_list import Hats
from moim.chat.rooms.history import Entry
from moim.chat.rooms.occupants import Subject
from moim.chat.rooms.ranks import Affiliation, Role
from moim.chat.rooms.room import Room
from moim.errors import ProtocolError, Unavailable
from moim.proto.xmpp import Element, Jid
from moim.store import Store, insert

_MAX_WRITING = 10_000

_log = logging.getLogger("moim.chat.rooms")


class RoomStore:
    """Rooms on disk. Each method takes its picture of the room at once; the task is done when it is on disk.

    ``temporary``: also those that end when everybody has left, as long as they last. Rooms of the service domain are
    there by their local part, those of a service ``apart`` by their whole address.
    """

    def __init__(self, store: Store, host: str, *, apart: bool = False, temporary: bool = False) -> None:
        self._store = store
        self._host = host
        self._apart = apart
        self._temporary = temporary
        self._writing: set[asyncio.Task[None]] = set()

    def key(self, room: Room) -> str:
        """What a room is called in the store."""
        return room.address if self._apart else room.jid.local

    def name(self, key: str) -> str | None:
        """The local part of a room's address, from the store; None for a room of another service."""
        local, at, host = key.rpartition("@")
        if self._apart:
            return local if at and host == self._host else None
        return None if at else key

    def save(self, room: Room, *, whole: bool) -> asyncio.Task[None]:
        """Writes configuration, subject, hats and vCard, and the affiliations that changed since the last time.

        ``whole``: all affiliations, and the history if the store does not know the room. A room that is to be
        forgotten goes. The task raises MoimError when the database does not take it.
        """
        name = self.key(room)
        touched, room.touched = room.touched, set()
        if room.is_over or room.locked or not (room.config.persistent or self._temporary):
            return self._spawn(lambda connection: _delete(connection, name))
        row = _row(room, name)
        changed = None if whole else touched
        held = [
            {"room": name, "jid": jid, "affiliation": affiliation.value, "nick": room.nicks.get(jid, "")}
            for jid in (room.affiliations if changed is None else changed)
            if (affiliation := room.affiliations.get(jid)) is not None
        ]
        entries = room.history.entries()

        def write(connection: sa.Connection) -> None:
            known = connection.execute(sa.select(tables.rooms.c.room).where(tables.rooms.c.room == name)).first()
            connection.execute(insert(tables.rooms).values(row).on_conflict_do_update(["room"], set_=row))
            _write_affiliations(connection, name, held, changed)
            if known is None:
                _append(connection, name, entries, len(entries))

        return self._spawn(write)

    def rewrite(self, room: Room, entries: Sequence[Entry]) -> None:
        """Puts tombstones into the history of a persistent room; a failure is logged."""
        if room.locked or not room.config.persistent:
            return
        name, table = self.key(room), tables.history
        texts = [(entry.identifier, entry.message.to_xml("")) for entry in entries if entry.identifier]

        def write(connection: sa.Connection) -> None:
            for identifier, text in texts:
                own = (table.c.room == name, table.c.stanza_id == identifier)
                connection.execute(sa.update(table).where(*own).values(message=text))

        self._spawn(write).add_done_callback(lambda done: _report(done, room.address))

    def record(self, room: Room, entries: Sequence[Entry]) -> None:
        """Adds messages to the history of a persistent room; a failure is logged."""
        if room.locked or not room.config.persistent:
            return
        if len(self._writing) >= _MAX_WRITING:
            _log.error("the store cannot keep up: messages of %s are not kept", room.address)
            return
        name, keep = self.key(room), min(room.config.history, room.bounds.history)
        task = self._spawn(lambda connection: _append(connection, name, entries, keep))
        hold_until(task)
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

    async def load(
        self, bounds: Bounds, token: Callable[[], str], new_id: Callable[[str], str] | None = None
    ) -> list[Room]:
        """Every room on disk. A message that cannot be read is logged and passed over."""
        return await self._store.read(lambda connection: self._load(connection, bounds, token, new_id))

    def _own(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """The rows of this service's rooms: a local part has no ``@``."""
        if self._apart:
            return table.c.room.endswith(f"@{self._host}", autoescape=True)
        return ~table.c.room.contains("@")

    def _load(
        self,
        connection: sa.Connection,
        bounds: Bounds,
        token: Callable[[], str],
        new_id: Callable[[str], str] | None,
    ) -> list[Room]:
        held: defaultdict[str, dict[str, Affiliation]] = defaultdict(dict)
        nicks: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for row in connection.execute(sa.select(tables.affiliations).where(self._own(tables.affiliations))):
            held[row.room][row.jid] = Affiliation(row.affiliation)
            if row.nick:
                nicks[row.room][row.jid] = row.nick
        said: defaultdict[str, list[Entry]] = defaultdict(list)
        for row in connection.execute(
            sa.select(tables.history).where(self._own(tables.history)).order_by(tables.history.c.id)
        ):
            try:
                sent_at = datetime.fromtimestamp(row.sent_at, UTC)
                said[row.room].append(Entry(sent_at, Element.parse(row.message), row.stanza_id, size=len(row.message)))
            except ProtocolError as error:
                _log.error("message %d of the room %s cannot be read any more: %s", row.id, row.room, error.message)
        found = []
        for row in connection.execute(sa.select(tables.rooms).where(self._own(tables.rooms))):
            if (name := self.name(row.room)) is None:
                continue
            subject = None
            if row.subject is not None:
                set_at = datetime.fromtimestamp(row.subject_at, UTC)
                subject = Subject(row.subject, row.subject_nick or "", set_at, row.subject_by)
            try:
                config, hats = RoomConfig.from_json(row.config), Hats.from_json(row.hats)
                vcard = Element.parse(row.vcard) if row.vcard else None
                voices = {bare: Role(role) for bare, role in json.loads(row.voices or "{}").items()}
            except (ValueError, TypeError, KeyError, ProtocolError) as error:
                raise Unavailable(f"the configuration of the room {row.room} cannot be read: {error}") from error
            found.append(
                Room(
                    Jid(name, self._host),
                    config=config,
                    bounds=bounds,
                    salt=row.salt,
                    creator=row.creator,
                    token=token,
                    new_id=new_id,
                    affiliations=held[row.room],
                    nicks=nicks[row.room],
                    subject=subject,
                    history=said[row.room],
                    hats=hats,
                    vcard=vcard,
                    voices=voices,
                )
            )
        return found


def _report(task: asyncio.Task[None], room: str) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a message of %s could not be kept: %s", room, error)


def _row(room: Room, name: str) -> dict[str, Any]:
    subject = room.subject
    return {
        "room": name,
        "config": room.config.to_json(),
        "salt": room.salt,
        "creator": room.creator,
        "subject": subject.text if subject is not None else None,
        "subject_nick": subject.nick if subject is not None else None,
        "subject_at": subject.set_at.timestamp() if subject is not None else None,
        "subject_by": subject.by if subject is not None else "",
        "hats": room.hats.to_json(),
        "vcard": room.vcard.to_xml("") if room.vcard is not None else "",
        "voices": json.dumps(room.voices) if room.voices else "",
    }


def _write_affiliations(
    connection: sa.Connection, name: str, held: Sequence[dict[str, str]], changed: Collection[str] | None
) -> None:
    """Puts ``held`` in the place of what was there about ``changed``; about everybody when that is None."""
    table = tables.affiliations
    if changed is None:
        connection.execute(sa.delete(table).where(table.c.room == name))
    elif changed:
        gone = sa.delete(table).where(table.c.room == name, table.c.jid == sa.bindparam("gone"))
        connection.execute(gone, [{"gone": jid} for jid in changed])
    if held:
        connection.execute(sa.insert(table), held)


def _delete(connection: sa.Connection, name: str) -> None:
    for table in (tables.rooms, tables.affiliations, tables.history):
        connection.execute(sa.delete(table).where(table.c.room == name))


def _append(connection: sa.Connection, name: str, entries: Sequence[Entry], keep: int) -> None:
    table = tables.history
    rows = [
        {
            "room": name,
            "sent_at": entry.sent_at.timestamp(),
            "message": entry.message.to_xml(""),
            "stanza_id": entry.identifier,
        }
        for entry in entries
    ]
    if rows:
        connection.execute(sa.insert(table), rows)
    newest = sa.select(table.c.id).where(table.c.room == name).order_by(table.c.id.desc()).limit(keep)
    connection.execute(sa.delete(table).where(table.c.room == name, table.c.id.not_in(newest)))
