"""Nicknames that are kept for somebody: by registration, or by an admin in the list of members."""

from __future__ import annotations

from moim.chat.rooms.entering import check_nick, rename
from moim.chat.rooms.room import Room
from moim.errors import ProtocolError
from moim.proto.xmpp import StanzaError, prepare_resource


def prepared(text: str) -> str:
    """A nickname as addresses have it. Raises StanzaError when it cannot be one."""
    try:
        nick = prepare_resource(text)
    except ProtocolError as error:
        raise StanzaError("not-acceptable", error.message) from None
    check_nick(nick)
    return nick


def check_reservable(room: Room, bare: str, nick: str) -> None:
    """Raises StanzaError conflict when the nickname is somebody else's: reserved, asked for, or in use now."""
    if prepared(nick) != nick:
        raise StanzaError("not-acceptable", "the nickname has another form in addresses")
    holder = room.occupants.get(nick)
    taken = room.reserved.get(nick, bare) != bare or (holder is not None and str(holder.bare) != bare)
    if taken or any(asked == nick and other != bare for other, asked in room.applicants.items()):
        raise StanzaError("conflict", "this nickname is somebody else's")


def reserve(room: Room, bare: str, nick: str) -> None:
    """Keeps a nickname that may be reserved; an empty one is none. Who is kept to it is renamed (status 210)."""
    room.reserve(bare, nick)
    present = room.by_bare.get(bare, ())
    if nick and room.config.lock_nicks and len(present) == 1 and present[0].nick != nick:
        rename(room, present[0], nick, codes=(210,))
