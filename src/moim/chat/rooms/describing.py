"""What discovery says of the service and of rooms (XEP-0045 section 6)."""

from __future__ import annotations

from collections.abc import Iterable

from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form

_MAX_ITEMS = 1000
_COMMON = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.MUC, ns.PING)


def service_info(query: Element) -> Element:
    """The service: group chat, and what it can do."""
    if query.get("node"):
        raise StanzaError("item-not-found", "there is no such node")
    return _info("Rooms", (*_COMMON, ns.OCCUPANT_ID, ns.SELF_PING))


def service_items(query: Element, rooms: Iterable[Room]) -> Element:
    """The rooms that are public, up to a thousand, by name."""
    if query.get("node"):
        raise StanzaError("item-not-found", "there is no such node")
    public = sorted((room for room in rooms if room.config.public and not room.locked), key=lambda room: room.address)
    items = [
        Element("item", ns.DISCO_ITEMS, {"jid": room.address, "name": room.config.name or room.jid.local})
        for room in public[:_MAX_ITEMS]
    ]
    return Element("query", ns.DISCO_ITEMS, {}, tuple(items))


def room_info(room: Room, query: Element) -> Element:
    """A room, with its properties as features and its details as a form."""
    if query.get("node") == "x-roomuser-item":
        return Element("query", ns.DISCO_INFO, {"node": "x-roomuser-item"})
    if query.get("node"):
        raise StanzaError("item-not-found", "there is no such node")
    config = room.config
    features = (
        *_COMMON,
        "muc_public" if config.public else "muc_hidden",
        "muc_persistent" if config.persistent else "muc_temporary",
        "muc_membersonly" if config.members_only else "muc_open",
        "muc_moderated" if config.moderated else "muc_unmoderated",
        "muc_nonanonymous" if config.non_anonymous else "muc_semianonymous",
        "muc_passwordprotected" if config.password else "muc_unsecured",
        ns.MUC_STABLE_ID,
        ns.OCCUPANT_ID,
        ns.SELF_PING,
        ns.STANZA_IDS,
    )
    details = (
        Field("muc#roominfo_description", values=(config.description,), label="Description"),
        Field("muc#roominfo_lang", values=(config.language,), label="Language"),
        Field("muc#roominfo_occupants", values=(str(len(room.occupants)),), label="Occupants"),
        Field("muc#roominfo_changesubject", "boolean", ("1" if config.change_subject else "0",)),
        Field("muc#maxhistoryfetch", values=(str(min(config.history, room.bounds.history)),)),
    )
    return _info(config.name or room.jid.local, features, form("result", ns.MUC_INFO, details))


def room_items(room: Room, sender: Jid) -> Element:
    """The occupants, for occupants; nothing for others."""
    items: list[Element] = []
    if sender in room.by_session:
        items = [Element("item", ns.DISCO_ITEMS, {"jid": f"{room.address}/{nick}"}) for nick in room.occupants]
    return Element("query", ns.DISCO_ITEMS, {}, tuple(items))


def _info(name: str, features: Iterable[str], *more: Element) -> Element:
    children = [Element("identity", ns.DISCO_INFO, {"category": "conference", "type": "text", "name": name})]
    children.extend(Element("feature", ns.DISCO_INFO, {"var": var}) for var in sorted(features))
    return Element("query", ns.DISCO_INFO, {}, (*children, *more))
