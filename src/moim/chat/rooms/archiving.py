"""A room's archive (XEP-0313): what rooms ask of it, and who may read it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from moim.chat.rooms.history import Entry, Tombstone
from moim.chat.rooms.ranks import Affiliation, is_manager
from moim.chat.rooms.room import Room
from moim.errors import MoimError
from moim.proto.xmpp import Element, Jid, StanzaError

_log = logging.getLogger("moim.chat.rooms")


class Said(Protocol):
    """One archived message."""

    @property
    def occupant(self) -> str:
        """The occupant-id of its author; empty when it has none."""
        ...


class RoomArchive(Protocol):
    """Keeps and shows what is said in rooms, each known by its bare JID. Who may ask is for the room to say."""

    def next_id(self, room: str) -> str:
        """The stanza-id of the next message of a room."""
        ...

    def say(
        self,
        room: str,
        message: Element,
        author: Jid,
        identifier: str,
        *,
        then: Callable[[], None] = ...,
        failed: Callable[[StanzaError], None] = ...,
    ) -> None:
        """Keeps a message under its stanza-id. Raises StanzaError when too many wait."""
        ...

    async def query(self, room: str, payload: Element, asker: Jid, *, real: bool) -> tuple[Sequence[Element], Element]:
        """The messages that answer a query, for ``asker``, and the payload of the result."""
        ...

    async def metadata(self, room: str) -> Element:
        """``<metadata/>`` of a room's archive."""
        ...

    def fields(self) -> Element:
        """What a query may be narrowed by."""
        ...

    async def find(self, room: str, identifier: str) -> Said | None:
        """The message with a stanza-id that was not taken back."""
        ...

    async def bury(self, room: str, identifier: str, marks: Sequence[Element] = (), *, retraction: str = "") -> bool:
        """Puts a tombstone in the place of a message; whether there was one to be taken back."""
        ...

    async def remove(self, room: str) -> None:
        """The room is gone, and its archive with it."""
        ...


def keep(archive: RoomArchive, room: Room, entry: Entry, refuse: Callable[[Element, StanzaError], None]) -> None:
    """Gives a message to the archive; who wrote one that it does not take hears so, by ``refuse``."""

    def failed(error: StanzaError) -> None:
        _log.error("a message of %s could not be archived: %s", room.address, error)
        if entry.author is not None:
            refuse(entry.message.with_attrs({"from": str(entry.author), "to": room.address}), error)

    try:
        archive.say(room.address, entry.message, entry.author or room.jid, entry.identifier, failed=failed)
    except StanzaError as error:
        failed(error)


async def bury(archive: RoomArchive, room: str, tombstone: Tombstone) -> bool:
    """Puts a tombstone into the archive; False when the message is not there, or somebody else's. Raises MoimError."""
    if tombstone.author:
        said = await archive.find(room, tombstone.identifier)
        if said is None or said.occupant != tombstone.author:
            return False
    marks, retraction = tombstone.retracted.elements(), tombstone.retracted.get("id") or ""
    return await archive.bury(room, tombstone.identifier, marks, retraction=retraction)


async def bury_all(archive: RoomArchive, room: str, tombstones: Sequence[Tombstone]) -> None:
    """Like ``bury``, for messages whose retraction everybody heard already; failures are logged."""
    for tombstone in tombstones:
        try:
            await bury(archive, room, tombstone)
        except MoimError as error:
            _log.error("a message of %s that was taken back is still in the archive: %s", room, error)


def check_reader(room: Room, sender: Jid) -> bool:
    """Raises StanzaError when somebody may not read a room's archive; otherwise whether they may see real addresses.

    Whoever may enter may read: what was said is no more secret than what is said next.
    """
    if not room.logged:
        raise StanzaError("service-unavailable", "this room keeps no archive")
    own = room.affiliation(sender)
    occupant = room.by_session.get(sender)
    if own is Affiliation.OUTCAST:
        raise StanzaError("forbidden", "you are banned from this room")
    if own is Affiliation.NONE and room.config.members_only:
        raise StanzaError("forbidden", "only members read what is said in this room")
    if room.config.password and occupant is None and not is_manager(own):
        raise StanzaError("forbidden", "enter the room first: it needs a password")
    return room.config.non_anonymous or is_manager(own) or (occupant is not None and occupant.moderates)
