"""Entering a room, changing nickname and presence in it, and leaving (XEP-0045 sections 7.2, 7.6, 7.7 and 7.14)."""

from __future__ import annotations

import hmac
from datetime import datetime

from moim.chat.rooms import showing, voice
from moim.chat.rooms.avatar import announcement
from moim.chat.rooms.history import Wanted, read_wanted
from moim.chat.rooms.occupants import Occupant
from moim.chat.rooms.ranks import Affiliation, is_manager
from moim.chat.rooms.room import PLAIN, Change, Room, asked_by, own_words
from moim.proto.xmpp import Element, Jid, StanzaError, delay, ns

_MAX_NICK = 128
_MAX_SESSIONS = 32
_MAX_NICKS = 10
"""Nicknames under which the sessions of one account may be in a room at once."""


def available(room: Room, sender: Jid, nick: str, stanza: Element, now: datetime, *, created: bool = False) -> None:
    """Presence of a full JID for a nickname. Raises StanzaError when it may not enter or be called that.

    Without the wish to enter, somebody who is not here hears just that: its client lost track (section 7.2.17).
    """
    entry = stanza.find("x", ns.MUC)
    occupant = room.by_session.get(sender)
    if occupant is None:
        if entry is None:
            mark = Element("occupant-id", ns.OCCUPANT_ID, {"id": room.identifier(sender.bare)})
            room.output.append((sender, showing.absent(room.jid, nick, sender, room.affiliation(sender), mark)))
            return
        _enter(room, sender, nick, stanza, entry, now, created=created)
    elif occupant.nick != nick and not _keeps_nick(room, occupant, nick, entry):
        _rename(room, occupant, sender, nick, stanza)
    elif entry is not None:
        # A client that lost its memory, not its connection, enters once more and needs to see everything again.
        wanted = read_wanted(entry, now)
        room.refresh(occupant, sender, own_words(stanza))
        codes = _entry_codes(room) + ((210,) if occupant.nick != nick else ())
        _welcome(room, occupant, sender, wanted, Change(own_codes=codes, asked=asked_by(sender, stanza)))
    else:
        room.refresh(occupant, sender, own_words(stanza))
        showing.show(room, occupant)


def _keeps_nick(room: Room, occupant: Occupant, nick: str, entry: Element | None) -> bool:
    """Whether somebody enters again under another nickname than the one that the room keeps them to."""
    return entry is not None and _locked_nick(room, occupant.bare, nick) == occupant.nick


def check_nick(nick: str) -> None:
    """Raises StanzaError when no occupant may be called that, whoever it is. ``nick`` is prepared as a resource."""
    if not nick or nick != nick.strip():
        raise StanzaError("not-acceptable", "a nickname is not empty, and has no space at its ends")
    if len(nick) > _MAX_NICK:
        raise StanzaError("not-acceptable", f"a nickname has at most {_MAX_NICK} characters")


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
    asked, nick = nick, _locked_nick(room, sender.bare, nick)
    _check_free(room, sender.bare, nick)
    holder = room.occupants.get(nick)
    if holder is not None and len(holder.sessions) >= _MAX_SESSIONS:
        raise StanzaError("service-unavailable", "too many sessions", kind="wait")
    if holder is None and len(room.by_bare.get(str(sender.bare), ())) >= _MAX_NICKS:
        raise StanzaError("service-unavailable", "you are here under too many nicknames", kind="wait")
    if holder is None and len(room.occupants) >= room.max_users and not _may_squeeze_in(room, affiliation):
        raise StanzaError("service-unavailable", "the room has as many occupants as it may have", kind="wait")
    wanted = read_wanted(entry, now)
    occupant = room.add(sender, nick, own_words(stanza))
    codes = _entry_codes(room) + ((201,) if created else ()) + ((210,) if asked != nick else ())
    _welcome(room, occupant, sender, wanted, Change(own_codes=codes, asked=asked_by(sender, stanza)))


def _entry_codes(room: Room) -> tuple[int, ...]:
    return ((100,) if room.config.non_anonymous else ()) + ((170,) if room.logged else ())


def _locked_nick(room: Room, bare: Jid, nick: str) -> str:
    """What somebody is called who wants to be called ``nick``: rooms may keep people to the name they registered."""
    return room.nicks.get(str(bare), nick) if room.config.lock_nicks else nick


def _check_free(room: Room, bare: Jid, nick: str) -> None:
    check_nick(nick)
    holder = room.occupants.get(nick)
    if holder is not None and holder.bare != bare:
        raise StanzaError("conflict", "somebody in the room has this nickname")
    if room.reserved.get(nick, str(bare)) != str(bare):
        raise StanzaError("conflict", "this nickname is reserved")


def _may_squeeze_in(room: Room, affiliation: Affiliation) -> bool:
    """Admins and owners enter a full room (XEP-0045 section 7.2.9), within the service's own limit."""
    return is_manager(affiliation) and len(room.occupants) < room.bounds.max_users


def _password_fits(room: Room, affiliation: Affiliation, entry: Element) -> bool:
    if not room.config.password or affiliation is Affiliation.OWNER:
        return True
    given = entry.find("password", ns.MUC)
    return given is not None and hmac.compare_digest(given.text.encode(), room.config.password.encode())


def _welcome(room: Room, occupant: Occupant, sender: Jid, wanted: Wanted, change: Change) -> None:
    attrs = {"to": str(sender)}
    sees = room.sees_jids(occupant)
    for other in room.occupants.values():
        if other is not occupant and other.visible:
            room.output.append((sender, showing.card(room, other, sees).with_attrs(attrs)))
    showing.show(room, occupant, change)
    room.output.extend((sender, message.with_attrs(attrs)) for message in room.history.select(wanted, room.address))
    room.output.append((sender, subject_message(room).with_attrs(attrs)))
    if room.vcard is not None:
        room.output.append((sender, announcement(room).with_attrs(attrs)))
    voice.remind(room, occupant, sender)


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
        if subject.by:
            children.append(Element("occupant-id", ns.OCCUPANT_ID, {"id": subject.by}))
    return Element("message", ns.CLIENT, attrs, tuple(children))


def _rename(room: Room, occupant: Occupant, sender: Jid, nick: str, stanza: Element) -> None:
    holder = room.occupants.get(nick)
    if holder is not None and (holder.bare != occupant.bare or _too_many(holder, occupant)):
        raise StanzaError("conflict", "somebody in the room has this nickname")
    if _locked_nick(room, occupant.bare, nick) != nick:
        raise StanzaError("not-acceptable", "this room keeps you to the nickname that you registered")
    _check_free(room, occupant.bare, nick)
    room.refresh(occupant, sender, own_words(stanza))
    if holder is None:
        rename(room, occupant, nick)
    else:
        _merge(room, occupant, holder)


def _too_many(holder: Occupant, occupant: Occupant) -> bool:
    return len(holder.sessions) + len(occupant.sessions) > _MAX_SESSIONS


def _merge(room: Room, occupant: Occupant, holder: Occupant) -> None:
    """The sessions of an occupant take the nickname that other sessions of the same account have."""
    showing.show(room, occupant, Change(codes=(303,), new_nick=holder.nick, payload=()), kind="unavailable")
    for session, words in tuple(occupant.sessions.items()):
        room.drop_session(occupant, session)
        room.add(session, holder.nick, words)
    showing.show(room, holder)


def rename(room: Room, occupant: Occupant, nick: str, *, codes: tuple[int, ...] = ()) -> None:
    """Gives an occupant another nickname, which must be free, and tells everybody; ``codes`` say why."""
    showing.show(room, occupant, Change(codes=(303,), new_nick=nick, payload=()), kind="unavailable")
    room.rename(occupant, nick)
    showing.show(room, occupant, Change(codes=codes) if codes else PLAIN)


def unavailable(room: Room, sender: Jid, stanza: Element) -> None:
    """A session leaves, whatever nickname it says goodbye to; its words go along."""
    change = Change(payload=own_words(stanza), gone=True, asked=asked_by(sender, stanza))
    showing.leave(room, sender, change)


def vanished(room: Room, sender: Jid) -> None:
    """A session that a delivery failed to is taken out (status 333)."""
    showing.leave(room, sender, Change(codes=(333,), payload=(), gone=True))
