"""Words taken back: by their author (XEP-0424) or by a moderator (XEP-0425); tombstones take their place.

Moderators' orders are read, and told to everybody, as XEP-0425 has them now and as it had them up to version 0.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from moim.chat.rooms.history import Entry, Tombstone
from moim.chat.rooms.occupants import Occupant
from moim.chat.rooms.room import MAX_REASON, Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns, timestamp

_MAX_ID = 256


# --- by the author ----------------------------------------------------------------------------------------------


def without_claims(children: Sequence[Element | str]) -> tuple[Element | str, ...]:
    """An occupant's words without what only the room says of retractions: that a moderator ordered one, or that it is
    done.
    """
    kept: list[Element | str] = []
    for child in children:
        if isinstance(child, str):
            kept.append(child)
        elif child.ns == ns.FASTENING and any(part.ns == ns.MODERATION_0 for part in child.elements()):
            continue
        elif child.ns != ns.RETRACTION:
            kept.append(child)
        elif child.name == "retract":
            kept.append(Element("retract", ns.RETRACTION, {"id": (child.get("id") or "")[:_MAX_ID]}))
    return tuple(kept)


def check_author(room: Room, occupant: Occupant, retraction: Element) -> None:
    """Raises StanzaError when the room knows that the message is not the occupant's own."""
    identifier = retraction.get("id") or ""
    if not 0 < len(identifier) <= _MAX_ID:
        raise StanzaError("bad-request", "a retraction says which message it takes back")
    entry = room.history.find(identifier)
    if entry is None:
        return
    mark = entry.message.find("occupant-id", ns.OCCUPANT_ID)
    if mark is None or mark.get("id") != occupant.identifier:
        raise StanzaError("forbidden", "only the author, or a moderator, takes a message back")


def own(room: Room, occupant: Occupant, retraction: Element, by: str, now: datetime) -> None:
    """An author takes a message back; ``by`` is the id of the message that says so."""
    mark = Element("retracted", ns.RETRACTION, {"id": by, "stamp": timestamp(now)})
    bury(room, Tombstone(retraction.get("id") or "", mark, occupant.identifier))


def bury(room: Room, tombstone: Tombstone) -> bool:
    """Puts a tombstone into the history, and orders one in the archive; whether the history had the message."""
    if room.logged:
        room.tombstones.append(tombstone)
    entry = room.history.find(tombstone.identifier)
    buried = tombstone.apply(entry.message) if entry is not None else None
    if entry is None or buried is None:
        return False
    room.history.rewrite(entry, buried)
    room.rewritten.append(entry)
    return True


# --- by a moderator ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """A moderator's order, judged: what to bury, and what to tell everybody."""

    tombstone: Tombstone
    notice: Element
    identifier: str
    """The stanza-id of the notice."""
    by: Jid


def read_order(room: Room, sender: Jid, moderate: Element, now: datetime) -> Order:
    """Reads ``<moderate/>``, or the older ``<apply-to/>`` around it.

    Raises StanzaError when it is not the sender's to order, or orders something else.
    """
    moderator = room.occupant(sender)
    if not moderator.moderates:
        raise StanzaError("forbidden", "only moderators take back what others said")
    target, words = _read_moderate(moderate)
    mark = Element("occupant-id", ns.OCCUPANT_ID, {"id": moderator.identifier})
    nick = f"{room.address}/{moderator.nick}"
    by = Element("moderated", ns.MODERATION, {"by": nick}, (mark,))
    said = (by, *((Element("reason", ns.RETRACTION, {}, (words,)),) if words else ()))
    message_id, identifier = room.token(), room.new_id()
    attrs = {"type": "groupchat", "from": room.address, "id": message_id}
    children = (
        Element("retract", ns.RETRACTION, {"id": target}, said),
        Element("apply-to", ns.FASTENING, {"id": target}, (_older(nick, words, Element("retract", ns.RETRACTION_0)),)),
        Element("stanza-id", ns.STANZA_IDS, {"by": room.address, "id": identifier}),
    )
    stamp = timestamp(now)
    retracted = Element("retracted", ns.RETRACTION, {"id": message_id, "stamp": stamp}, said)
    older = _older(nick, words, Element("retracted", ns.RETRACTION_0, {"stamp": stamp}))
    tombstone = Tombstone(target, retracted, older=older)
    return Order(tombstone, Element("message", ns.CLIENT, attrs, children), identifier, sender)


def _read_moderate(order: Element) -> tuple[str, str]:
    """The stanza-id of the message that is to go, and why."""
    target, moderate, kind, deed = order.get("id") or "", order, ns.MODERATION, ns.RETRACTION
    if order.ns == ns.FASTENING:
        found = order.find("moderate", ns.MODERATION_0)
        if found is None:
            raise StanzaError("feature-not-implemented", "only orders of moderators are applied to messages")
        moderate, kind, deed = found, ns.MODERATION_0, ns.RETRACTION_0
    if not 0 < len(target) <= _MAX_ID or moderate.find("retract", deed) is None:
        raise StanzaError("bad-request", "the order names a message, and that it is to be retracted")
    reason = moderate.find("reason", kind)
    return target, reason.text[:MAX_REASON] if reason is not None else ""


def _older(by: str, words: str, deed: Element) -> Element:
    """What clients understand that know XEP-0425 up to version 0.2 only."""
    # COMPAT 2026-11: goes when clients in use know the present version.
    said = (deed, *((Element("reason", ns.MODERATION_0, {}, (words,)),) if words else ()))
    return Element("moderated", ns.MODERATION_0, {"by": by}, said)


def knows(room: Room, order: Order) -> bool:
    """Whether the history has the message, and it was not taken back yet."""
    entry = room.history.find(order.tombstone.identifier)
    return entry is not None and order.tombstone.apply(entry.message) is not None


def carry_out(room: Room, order: Order, now: datetime) -> None:
    """Tells everybody, and remembers that it was done for those who come back later."""
    bury(room, order.tombstone)
    room.broadcast(order.notice)
    entry = Entry(now, order.notice, order.identifier, order.by)
    room.remember(entry)
    if room.logged:
        room.archived.append(entry)
