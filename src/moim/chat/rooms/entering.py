"""Entering a room, changing nickname and presence in it, and leaving (XEP-0045 sections 7.2, 7.6, 7.7 and 7.14)."""

from __future__ import annotations

import hmac
from datetime import datetime

from moim.chat.rooms.history import Wanted, read_wanted
from moim.chat.rooms.ranks import Affiliation, is_manager
from moim.chat.rooms.room import Change, Occupant, Room, own_words
from moim.proto.xmpp import Element, Jid, StanzaError, delay, ns


def available(room: Room, sender: Jid, nick: str, stanza: Element, now: datetime, *, created: bool = False) -> None:
    """Presence of a full JID for a nickname. Raises StanzaError when it may not enter or be called that."""
    entry = stanza.find("x", ns.MUC)
    occupant = room.by_session.get(sender)
    if occupant is None:
        if entry is None:
            raise StanzaError("not-acceptable", "you are not in this room; enter it first")
        _enter(room, sender, nick, stanza, entry, now, created=created)
    elif occupant.nick != nick:
        _rename(room, occupant, sender, nick, stanza)
    elif entry is not None:
        # A client that lost its memory, not its connection, enters once more and needs to see everything again.
        wanted = read_wanted(entry, now)
        _refresh(occupant, sender, stanza)
        _welcome(room, occupant, sender, wanted, Change())
    else:
        _refresh(occupant, sender, stanza)
        room.show(occupant)


def _refresh(occupant: Occupant, sender: Jid, stanza: Element) -> None:
    occupant.sessions.pop(sender)
    occupant.sessions[sender] = own_words(stanza)


def _enter(
    room: Room, sender: Jid, nick: str, stanza: Element, entry: Element, now: datetime, *, created: bool
) -> None:
    affiliation = room.affiliation(sender)
    if affiliation is Affiliation.OUTCAST:
        raise StanzaError("forbidden", "you are banned from this room")
    if room.locked and affiliation is not Affiliation.OWNER:
        raise StanzaError("item-not-found", "the room is not open yet")
    if room.config.members_only and affiliation is Affiliation.NONE:
        raise StanzaError("registration-required", "only members may enter this room")
    if not _password_fits(room, affiliation, entry):
        raise StanzaError("not-authorized", "this room needs the right password")
    holder = room.occupants.get(nick)
    if holder is not None and holder.bare != sender.bare:
        raise StanzaError("conflict", "somebody in the room has this nickname")
    if holder is not None and len(holder.sessions) >= room.bounds.max_users:
        raise StanzaError("service-unavailable", "too many sessions", kind="wait")
    if holder is None and len(room.occupants) >= room.max_users and not _may_squeeze_in(room, affiliation):
        raise StanzaError("service-unavailable", "the room has as many occupants as it may have", kind="wait")
    wanted = read_wanted(entry, now)
    occupant = room.add(sender, nick, own_words(stanza))
    codes = ((100,) if room.config.non_anonymous else ()) + ((201,) if created else ())
    _welcome(room, occupant, sender, wanted, Change(own_codes=codes))


def _may_squeeze_in(room: Room, affiliation: Affiliation) -> bool:
    """Admins and owners enter a full room (XEP-0045 section 7.2.9), within the service's own limit."""
    return is_manager(affiliation) and len(room.occupants) < room.bounds.max_users


def _password_fits(room: Room, affiliation: Affiliation, entry: Element) -> bool:
    if not room.config.password or affiliation is Affiliation.OWNER:
        return True
    given = entry.find("password", ns.MUC)
    return given is not None and hmac.compare_digest(given.text.encode(), room.config.password.encode())


def _welcome(room: Room, occupant: Occupant, sender: Jid, wanted: Wanted, change: Change) -> None:
    for other in room.occupants.values():
        if other is not occupant:
            room.output.append((sender, room.presence(other, sender, occupant)))
    room.show(occupant, change)
    attrs = {"to": str(sender)}
    room.output.extend((sender, message.with_attrs(attrs)) for message in room.history.select(wanted, room.address))
    room.output.append((sender, subject_message(room).with_attrs(attrs)))


def subject_message(room: Room) -> Element:
    """The subject for somebody who enters; an empty one where none was set (XEP-0045 section 7.2.15)."""
    subject = room.subject
    attrs = {"type": "groupchat", "from": room.address, "id": room.token()}
    children: list[Element] = []
    if subject is None:
        children.append(Element("subject", ns.CLIENT))
    else:
        if subject.nick:
            attrs["from"] = f"{room.address}/{subject.nick}"
        children.append(Element("subject", ns.CLIENT, {}, (subject.text,)))
        children.append(delay(subject.set_at, room.address))
    return Element("message", ns.CLIENT, attrs, tuple(children))


def _rename(room: Room, occupant: Occupant, sender: Jid, nick: str, stanza: Element) -> None:
    if nick in room.occupants:
        raise StanzaError("conflict", "somebody in the room has this nickname")
    _refresh(occupant, sender, stanza)
    room.show(occupant, Change(codes=(303,), new_nick=nick, payload=()), kind="unavailable")
    room.rename(occupant, nick)
    room.show(occupant)


def unavailable(room: Room, sender: Jid, stanza: Element) -> None:
    """A session leaves, whatever nickname it says goodbye to; its words go along."""
    room.leave(sender, own_words(stanza))


def vanished(room: Room, sender: Jid) -> None:
    """A session that a delivery failed to is taken out (status 333)."""
    room.leave(sender, codes=(333,))
