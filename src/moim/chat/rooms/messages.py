"""What occupants say: to all, as a subject, in private (XEP-0045 sections 7.4, 7.5 and 8.1)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from moim.chat.rooms import invitations, registration, retracting, voice
from moim.chat.rooms.history import Entry
from moim.chat.rooms.occupants import Occupant, Subject
from moim.chat.rooms.ranks import Role
from moim.chat.rooms.room import MAX_WHISPERS, Room, own_words
from moim.proto.xmpp import Element, Jid, StanzaError, message_type, ns
from moim.proto.xmpp.dataform import read_form

_MAX_SUBJECT = 4000
_MAX_REMEMBERED = 65_536  # larger messages are delivered, but not kept: a history of such would fill memory and disk
_MAX_ID = 256
_UNREACHABLE: Final = frozenset(
    {
        "gone", "internal-server-error", "item-not-found", "jid-malformed", "recipient-unavailable", "redirect",
        "remote-server-not-found", "remote-server-timeout", "service-unavailable",
    }
)  # fmt: skip
_LASTING: Final = frozenset(
    {
        (ns.CLIENT, "body"), (ns.HINTS, "store"), (ns.RETRACTION, "retract"), (ns.REACTIONS, "reactions"),
        (ns.CHAT_MARKERS, "displayed"), (ns.ENCRYPTED, "encryption"), (ns.OMEMO, "encrypted"),
        (ns.OMEMO_AXOLOTL, "encrypted"),
    }
)  # fmt: skip
"""What makes a message something that was said or done, rather than about the moment."""


def to_room(room: Room, sender: Jid, message: Element, now: datetime) -> None:
    """A message to the room itself. Raises StanzaError when it is not for the sender to say."""
    if message_type(message) == "groupchat":
        _say(room, room.occupant(sender), sender, message, now)
        return
    muc = message.find("x", ns.MUC_USER)
    form = message.find("x", ns.DATA_FORMS)
    if muc is not None and (declined := muc.find("decline")) is not None:
        invitations.decline(room, sender, declined)
    elif muc is not None and muc.find("invite") is not None:
        invitations.invite(room, sender, message, muc)
    elif form is not None:
        _form(room, sender, form, now)
    else:
        raise StanzaError("bad-request", "messages to the room are of the type groupchat")


def _form(room: Room, sender: Jid, form: Element, now: datetime) -> None:
    if form.get("type") == "cancel":
        return  # somebody was asked, and does not answer
    kind, values = read_form(form)
    if form.get("type") != "submit" or kind not in (ns.MUC_REQUEST, ns.MUC_REGISTER):
        raise StanzaError("bad-request", "the room does not know this form")
    if kind == ns.MUC_REGISTER:
        registration.decide(room, sender, values)
    elif "muc#request_allow" in values:
        voice.decide(room, room.occupant(sender), values)
    else:
        voice.ask(room, room.occupant(sender), values, now)


def bounced(room: Room, sender: Jid, stanza: Element) -> bool:
    """Whether an error that came back says that ``sender`` cannot be reached any more; presence need not say why."""
    error = stanza.find("error")
    if sender not in room.by_session:
        return False
    if error is None:
        return stanza.name == "presence"
    return any(child.ns == ns.STANZA_ERRORS and child.name in _UNREACHABLE for child in error.elements())


# --- to all -----------------------------------------------------------------------------------------------------


def _say(room: Room, occupant: Occupant, sender: Jid, message: Element, now: datetime) -> None:
    subject, body = message.find("subject"), message.find("body")
    if len(message.get("id") or "") > _MAX_ID:
        raise StanzaError("policy-violation", f"the id of a message has at most {_MAX_ID} characters")
    if subject is not None and body is None and message.find("thread") is None:
        _set_subject(room, occupant, sender, message, subject, now)
        return
    if occupant.role is Role.VISITOR:
        raise StanzaError("forbidden", "you have no voice in this room")
    retraction = message.find("retract", ns.RETRACTION)
    if retraction is not None:
        retracting.check_author(room, occupant, retraction)
    identifier, sent = _stamped(room, occupant, message)
    room.broadcast(sent)
    if retraction is not None:
        retracting.own(room, occupant, retraction, sent.get("id") or "", now)
    if _lasts(message):
        entry = Entry(now, sent, identifier, sender)
        if room.logged:
            room.archived.append(entry)
        if entry.size <= _MAX_REMEMBERED and (body is not None or retraction is not None):
            room.remember(entry)


def _lasts(message: Element) -> bool:
    kinds = [(child.ns, child.name) for child in message.elements()]
    if any(namespace == ns.HINTS and name in ("no-store", "no-permanent-store") for namespace, name in kinds):
        return False
    return any(kind in _LASTING for kind in kinds)


def _stamped(room: Room, occupant: Occupant, message: Element) -> tuple[str, Element]:
    """The stanza-id, and the message as the room sends it: in the occupant's name, with ids of the room's."""
    attrs = {"type": "groupchat", "from": f"{room.address}/{occupant.nick}", "id": message.get("id") or room.token()}
    if language := message.get("xml:lang"):
        attrs["xml:lang"] = language
    identifier = room.new_id()
    marks = (
        Element("occupant-id", ns.OCCUPANT_ID, {"id": occupant.identifier}),
        Element("stanza-id", ns.STANZA_IDS, {"by": room.address, "id": identifier}),
    )
    return identifier, Element("message", ns.CLIENT, attrs, (*_words(message), *marks))


def _words(message: Element) -> tuple[Element | str, ...]:
    """The sender's words, its own origin-id among them (XEP-0359 section 3.2)."""
    origins = tuple(c for c in message.elements() if (c.ns, c.name) == (ns.STANZA_IDS, "origin-id"))
    return (*retracting.without_claims(own_words(message)), *origins[:1])


def _set_subject(
    room: Room, occupant: Occupant, sender: Jid, message: Element, subject: Element, now: datetime
) -> None:
    if not (occupant.moderates or (room.config.change_subject and occupant.role is Role.PARTICIPANT)):
        raise StanzaError("forbidden", "the subject is not yours to change")
    if len(subject.text) > _MAX_SUBJECT:
        raise StanzaError("not-acceptable", f"a subject has at most {_MAX_SUBJECT} characters")
    room.subject = Subject(subject.text, occupant.nick, now, occupant.identifier)
    room.changed = True
    identifier, sent = _stamped(room, occupant, message)
    room.broadcast(sent)
    if room.logged:
        room.archived.append(Entry(now, sent, identifier, sender))


# --- in private -------------------------------------------------------------------------------------------------


def to_occupant(room: Room, sender: Jid, nick: str, message: Element) -> None:
    """A message to one occupant that is no error. Raises StanzaError when there is none, or it is not allowed."""
    kind = message_type(message)
    target = room.occupants.get(nick)
    source = room.occupant(sender)
    if kind == "groupchat":
        raise StanzaError("bad-request", "a message to one occupant is not of the type groupchat")
    if target is None:
        raise StanzaError("item-not-found", "nobody in the room has this nickname")
    allowed = room.config.private_messages
    enough = {"anyone": True, "participants": source.role is not Role.VISITOR, "moderators": source.moderates}
    # Whoever has no such right may still talk to moderators, who are there to be asked.
    if not enough.get(allowed, False) and not (allowed != "none" and target.moderates):
        raise StanzaError("forbidden", "private messages are not for everybody in this room")
    if not message.get("id"):
        message = message.with_attrs({"id": room.token()})
    for session in target.sessions:
        room.whispers[(session, message.get("id") or "")] = None
    while len(room.whispers) > MAX_WHISPERS:
        del room.whispers[next(iter(room.whispers))]
    _hand_over(room, source, target, message, (*_words(message), Element("x", ns.MUC_USER)))


def bounced_to(room: Room, sender: Jid, nick: str, error: Element) -> bool:
    """An error that came back to an occupant. That of a private message is handed over to who wrote it.

    Any other is about what the room said in the occupant's name: whether it says that ``sender`` cannot be reached.
    """
    if (sender, error.get("id") or "") not in room.whispers:
        if not nick:
            invitations.returned(room, sender, error)
        return bounced(room, sender, error)
    source, target = room.by_session.get(sender), room.occupants.get(nick)
    if source is not None and target is not None:
        _hand_over(room, source, target, error, own_words(error))
    return False


def _hand_over(
    room: Room, source: Occupant, target: Occupant, message: Element, children: tuple[Element | str, ...]
) -> None:
    mark = Element("occupant-id", ns.OCCUPANT_ID, {"id": source.identifier})
    for session in target.sessions:
        attrs = {"from": f"{room.address}/{source.nick}", "to": str(session)}
        room.output.append((session, message.with_attrs(attrs).with_children((*children, mark))))
