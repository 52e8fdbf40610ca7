"""The requests that a room answers at once, by their payload: one table, each line one feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moim.chat.rooms import avatar, describing, hats, lists, owners, registration
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, ns


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks a room."""

    room: Room
    sender: Jid
    payload: Element


Key = tuple[str | None, str, str]
"""Type of the request; namespace and name of its payload."""
Handler = Callable[[Request], Sequence[Element]]
"""Gives the payload of the result, or raises StanzaError before it changed anything."""


def _step(change: Callable[[Room, Jid, Element], None]) -> Handler:
    def handle(request: Request) -> Sequence[Element]:
        change(request.room, request.sender, request.payload)
        return ()

    return handle


ROOM: Final[Mapping[Key, Handler]] = {
    ("get", ns.DISCO_INFO, "query"): lambda r: (describing.room_info(r.room, r.sender, r.payload),),
    ("get", ns.DISCO_ITEMS, "query"): lambda r: (describing.room_items(r.room, r.sender, r.payload),),
    ("get", ns.PING, "ping"): lambda r: (),
    ("get", ns.MUC_ADMIN, "query"): lambda r: (lists.read(r.room, r.sender, r.payload),),
    ("set", ns.MUC_ADMIN, "query"): _step(lists.change),
    ("get", ns.MUC_OWNER, "query"): lambda r: (owners.read(r.room, r.sender),),
    ("set", ns.MUC_OWNER, "query"): _step(owners.change),
    ("get", ns.REGISTER, "query"): lambda r: (registration.read(r.room, r.sender),),
    ("set", ns.REGISTER, "query"): _step(registration.change),
    ("get", ns.VCARD, "vCard"): lambda r: (avatar.read(r.room),),
    ("set", ns.VCARD, "vCard"): _step(avatar.change),
    ("set", ns.COMMANDS, "command"): lambda r: (hats.command(r.room, r.sender, r.payload),),
}
