"""What of a room's steps lasts: changes go to the store, words to the history on disk and to the archive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from moim.chat.rooms import archiving
from moim.chat.rooms.archiving import RoomArchive
from moim.chat.rooms.keeping import RoomStore
from moim.chat.rooms.room import Room
from moim.chat.rooms.tasks import Tasks
from moim.errors import MoimError
from moim.proto.xmpp import Element, StanzaError

_log = logging.getLogger("moim.chat.rooms")


class Lasting:
    """Knows which rooms the store has. ``temporary``: also those that end when everybody has left; ``refuse`` tells the
    author of a message that it could not be kept."""

    def __init__(
        self,
        store: RoomStore,
        archive: RoomArchive | None,
        tasks: Tasks,
        *,
        temporary: bool,
        refuse: Callable[[Element, StanzaError], None],
    ) -> None:
        self._store = store
        self._archive = archive
        self._tasks = tasks
        self._temporary = temporary
        self._refuse = refuse
        self._kept: set[str] = set()
        self._unsure: set[str] = set()
        """Rooms of which the store may have an older state than what was written last."""

    def loaded(self, room: Room) -> None:
        """The store has this room."""
        self._kept.add(room.jid.local)

    def words(self, room: Room) -> None:
        """Takes what was said and taken back since the last step."""
        recorded, room.recorded = room.recorded, []
        rewritten, room.rewritten = room.rewritten, []
        archived, room.archived = room.archived, []
        tombstones, room.tombstones = room.tombstones, []
        if recorded:
            self._store.record(room, recorded)
        if rewritten:
            self._store.rewrite(room, rewritten)
        if self._archive is not None:
            for entry in archived:
                archiving.keep(self._archive, room, entry, self._refuse)
            if tombstones:
                self._tasks.spawn(archiving.bury_all(self._archive, room.address, tombstones))

    def save(self, room: Room) -> asyncio.Task[None] | None:
        """Writes what changed, or forgets the room when nothing keeps it; None when there is nothing to write."""
        name = room.jid.local
        room.changed = False
        if room.is_over and not room.locked:
            self._forget(room)
        keep = (room.config.persistent or self._temporary) and not room.locked and not room.is_over
        if not keep and name not in self._kept:
            return None
        whole = name not in self._kept or name in self._unsure
        if keep:
            self._kept.add(name)
        else:
            self._kept.discard(name)
        task = self._store.save(room, whole=whole)
        self._unsure.discard(name)
        task.add_done_callback(lambda done: self._check_saved(done, room))
        return task

    def made(self, room: Room) -> None:
        """A room is new: what the archive may still have of a temporary one, which a crash ended, is not for it."""
        self._forget(room)

    def _forget(self, room: Room) -> None:
        if self._archive is not None:
            self._tasks.spawn(self._forget_words(self._archive, room.address))

    async def _forget_words(self, archive: RoomArchive, room: str) -> None:
        try:
            await archive.remove(room)
        except MoimError as error:
            _log.error("the archive of %s, which is no more, could not be removed: %s", room, error)

    def _check_saved(self, task: asyncio.Task[None], room: Room) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the room %s could not be stored: %s", room.address, error)
            self._kept.add(room.jid.local)
            self._unsure.add(room.jid.local)
            room.changed = True  # with the next step it is tried again
