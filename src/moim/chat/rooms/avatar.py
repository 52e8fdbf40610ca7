"""A room's vCard with its avatar (XEP-0486): set by owners, its hashes told in discovery and in presence."""

from __future__ import annotations

import base64
import binascii
import hashlib

from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns

_MAX_PHOTOS = 5


def read(room: Room) -> Element:
    """The vCard, empty where none was set."""
    return room.vcard or Element("vCard", ns.VCARD)


def change(room: Room, sender: Jid, vcard: Element) -> None:
    """Takes a vCard; an empty one takes the avatar away. Raises StanzaError when it is none that a room may have."""
    if room.affiliation(sender) is not Affiliation.OWNER:
        raise StanzaError("forbidden", "only owners of the room give it an avatar")
    if len(vcard.to_xml("").encode()) > room.bounds.vcard_bytes:
        raise StanzaError("not-acceptable", f"the vCard of a room may have {room.bounds.vcard_bytes} bytes")
    photos = [child for child in vcard.elements() if (child.ns, child.name) == (ns.VCARD, "PHOTO")]
    if len(photos) > _MAX_PHOTOS:
        raise StanzaError("not-acceptable", f"the vCard of a room has at most {_MAX_PHOTOS} pictures")
    for photo in photos:
        _picture(photo)
    kept = vcard if vcard.elements() else None
    if kept == room.vcard:
        return
    room.vcard, room.avatar = kept, None
    room.changed = True
    room.notice(104)
    room.broadcast(announcement(room))


def hashes(room: Room) -> tuple[str, ...]:
    """SHA-1 of each picture, as XEP-0153 section 4 computes it."""
    if room.avatar is None:
        every = room.vcard.elements() if room.vcard is not None else []
        photos = [child for child in every if (child.ns, child.name) == (ns.VCARD, "PHOTO")]
        room.avatar = tuple(
            hashlib.sha1(data, usedforsecurity=False).hexdigest() for photo in photos if (data := _picture(photo))
        )
    return room.avatar


def announcement(room: Room) -> Element:
    """The room's own presence, without ``to``: older clients learn of the avatar by it."""
    found = hashes(room)
    photo = Element("photo", ns.VCARD_UPDATE, {}, (found[0],) if found else ())
    update = Element("x", ns.VCARD_UPDATE, {}, (photo,))
    return Element("presence", ns.CLIENT, {"from": room.address}, (update,))


def _picture(photo: Element) -> bytes:
    data, kind = photo.find("BINVAL", ns.VCARD), photo.find("TYPE", ns.VCARD)
    if data is None:
        return b""
    if kind is not None and not kind.text.strip().startswith("image/"):
        raise StanzaError("not-acceptable", "the avatar of a room is a picture")
    try:
        return base64.b64decode("".join(data.text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise StanzaError("not-acceptable", "the picture is not in base64") from None
