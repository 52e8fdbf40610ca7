"""What occupants say: to all, as a subject, in private; invitations and voice (XEP-0045 sections 7.4–8.1, 8.6)."""

from __future__ import annotations

from datetime import datetime

from moim.chat.rooms.history import Entry
from moim.chat.rooms.ranks import Affiliation, Role, is_manager
from moim.chat.rooms.room import MAX_AFFILIATIONS, MAX_INVITED, Occupant, Room, Subject, own_words
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, message_type, ns
from moim.proto.xmpp.dataform import Field, form, read_boolean, read_form

_MAX_INVITATIONS = 10
_MAX_SUBJECT = 4000
_MAX_REMEMBERED = 65_536  # larger messages are delivered, but not kept: a history of such would fill memory and disk
_UNREACHABLE = frozenset(
    {
        "gone", "internal-server-error", "item-not-found", "jid-malformed", "recipient-unavailable", "redirect",
        "remote-server-not-found", "remote-server-timeout", "service-unavailable",
    }
)  # fmt: skip


def to_room(room: Room, sender: Jid, message: Element, now: datetime) -> None:
    """A message to the room itself. Raises StanzaError when it is not for the sender to say."""
    kind = message_type(message)
    if kind == "groupchat":
        _say(room, room.occupant(sender), message, now)
        return
    muc = message.find("x", ns.MUC_USER)
    request = message.find("x", ns.DATA_FORMS)
    if muc is not None and muc.find("decline") is not None:
        _decline(room, sender, muc)
    elif muc is not None and muc.find("invite") is not None:
        _invite(room, room.occupant(sender), sender, muc)
    elif request is not None:
        _voice(room, room.occupant(sender), request)
    else:
        raise StanzaError("bad-request", "messages to the room are of the type groupchat")


def bounced(room: Room, sender: Jid, message: Element) -> bool:
    """Whether an error that came back says that ``sender`` cannot be reached any more."""
    error = message.find("error")
    if sender not in room.by_session or error is None:
        return False
    return any(child.ns == ns.STANZA_ERRORS and child.name in _UNREACHABLE for child in error.elements())


# --- to all -----------------------------------------------------------------------------------------------------


def _say(room: Room, occupant: Occupant, message: Element, now: datetime) -> None:
    subject = message.find("subject")
    body = message.find("body")
    if subject is not None and body is None and message.find("thread") is None:
        _set_subject(room, occupant, message, subject, now)
        return
    if occupant.role is Role.VISITOR:
        raise StanzaError("forbidden", "you have no voice in this room")
    sent = _stamped(room, occupant, message)
    room.broadcast(sent)
    if body is not None and not _transient(message) and len(sent.to_xml()) <= _MAX_REMEMBERED:
        entry = Entry(now, sent)
        room.history.add(entry)
        room.recorded.append(entry)


def _transient(message: Element) -> bool:
    return any(c.ns == ns.HINTS and c.name in ("no-store", "no-permanent-store") for c in message.elements())


def _stamped(room: Room, occupant: Occupant, message: Element) -> Element:
    """The message as the room sends it: in the occupant's name, with ids of the room's own making."""
    attrs = {"type": "groupchat", "from": f"{room.address}/{occupant.nick}", "id": message.get("id") or room.token()}
    if language := message.get("xml:lang"):
        attrs["xml:lang"] = language
    marks = (
        Element("occupant-id", ns.OCCUPANT_ID, {"id": occupant.identifier}),
        Element("stanza-id", ns.STANZA_IDS, {"by": room.address, "id": room.token()}),
    )
    return Element("message", ns.CLIENT, attrs, (*_with_origin(message), *marks))


def _with_origin(message: Element) -> tuple[Element | str, ...]:
    """The sender's words, its own origin-id among them (XEP-0359 section 3.2)."""
    origins = tuple(c for c in message.elements() if (c.ns, c.name) == (ns.STANZA_IDS, "origin-id"))
    return (*own_words(message), *origins[:1])


def _set_subject(room: Room, occupant: Occupant, message: Element, subject: Element, now: datetime) -> None:
    if not (occupant.moderates or (room.config.change_subject and occupant.role is Role.PARTICIPANT)):
        raise StanzaError("forbidden", "the subject is not yours to change")
    if len(subject.text) > _MAX_SUBJECT:
        raise StanzaError("not-acceptable", f"a subject has at most {_MAX_SUBJECT} characters")
    room.subject = Subject(subject.text, occupant.nick, now)
    room.changed = True
    room.broadcast(_stamped(room, occupant, message))


# --- in private -------------------------------------------------------------------------------------------------


def to_occupant(room: Room, sender: Jid, nick: str, message: Element) -> None:
    """A message to one occupant. Raises StanzaError when there is none, or it is not allowed."""
    kind = message_type(message)
    target = room.occupants.get(nick)
    if kind == "error":
        source = room.by_session.get(sender)
        if source is not None and target is not None:
            _hand_over(room, source, target, message, own_words(message))
        return
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
    _hand_over(room, source, target, message, (*_with_origin(message), Element("x", ns.MUC_USER)))


def _hand_over(
    room: Room, source: Occupant, target: Occupant, message: Element, children: tuple[Element | str, ...]
) -> None:
    mark = Element("occupant-id", ns.OCCUPANT_ID, {"id": source.identifier})
    for session in target.sessions:
        attrs = {"from": f"{room.address}/{source.nick}", "to": str(session)}
        room.output.append((session, message.with_attrs(attrs).with_children((*children, mark))))


# --- invitations ------------------------------------------------------------------------------------------------


def _invite(room: Room, occupant: Occupant, sender: Jid, muc: Element) -> None:
    affiliation = room.affiliation(sender)
    if not room.config.invitations and not is_manager(affiliation):
        raise StanzaError("forbidden", "only admins of this room invite others")
    invites = [child for child in muc.elements() if (child.ns, child.name) == (ns.MUC_USER, "invite")]
    if len(invites) > _MAX_INVITATIONS:
        raise StanzaError("not-acceptable", f"at most {_MAX_INVITATIONS} people are invited at once")
    guests = [(_address(invite), invite) for invite in invites]
    strangers = [guest for guest, _ in guests if room.affiliation(guest) is Affiliation.NONE]
    # Inviting makes members here, which is for admins to do (XEP-0045 section 7.8.2).
    if room.config.members_only and strangers and not is_manager(affiliation):
        raise StanzaError("forbidden", "only admins of this room invite those who are not members")
    if any(room.affiliation(guest) is Affiliation.OUTCAST for guest, _ in guests):
        raise StanzaError("not-allowed", "somebody who is banned cannot be invited")
    if room.config.members_only and len(room.affiliations) + len(guests) > MAX_AFFILIATIONS:
        raise StanzaError("resource-constraint", "the room has too many members")
    for guest, invite in guests:
        if room.config.members_only and room.affiliation(guest) is Affiliation.NONE:
            room.set_affiliation(str(guest.bare), Affiliation.MEMBER)
        _pass_invitation(room, sender, guest, invite)


def _address(invite: Element) -> Jid:
    try:
        return Jid.parse(invite.get("to") or "")
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None


def _pass_invitation(room: Room, sender: Jid, guest: Jid, invite: Element) -> None:
    room.invited.pop((str(guest.bare), str(sender.bare)), None)
    room.invited[(str(guest.bare), str(sender.bare))] = None
    while len(room.invited) > MAX_INVITED:
        del room.invited[next(iter(room.invited))]
    reason = invite.find("reason")
    words = (Element("reason", ns.MUC_USER, {}, (reason.text,)),) if reason is not None else ()
    children = [Element("invite", ns.MUC_USER, {"from": str(sender.bare)}, words)]
    attrs = {"jid": room.address}
    if room.config.password:
        children.append(Element("password", ns.MUC_USER, {}, (room.config.password,)))
        attrs["password"] = room.config.password
    if reason is not None and reason.text:
        attrs["reason"] = reason.text
    payload = (Element("x", ns.MUC_USER, {}, tuple(children)), Element("x", ns.DIRECT_INVITATION, attrs))
    header = {"from": room.address, "to": str(guest), "id": room.token()}
    room.output.append((guest, Element("message", ns.CLIENT, header, payload)))


def _decline(room: Room, sender: Jid, muc: Element) -> None:
    decline = muc.find("decline")
    if decline is None:
        return
    inviter = _address(decline)
    if (str(sender.bare), str(inviter.bare)) not in room.invited:
        raise StanzaError("forbidden", "there is no such invitation")
    del room.invited[(str(sender.bare), str(inviter.bare))]
    reason = decline.find("reason")
    words = (Element("reason", ns.MUC_USER, {}, (reason.text,)),) if reason is not None else ()
    notice = Element("decline", ns.MUC_USER, {"from": str(sender.bare)}, words)
    for session in [jid for jid in room.by_session if jid.bare == inviter.bare] or [inviter.bare]:
        header = {"from": room.address, "to": str(session), "id": room.token()}
        payload = (Element("x", ns.MUC_USER, {}, (notice,)),)
        room.output.append((session, Element("message", ns.CLIENT, header, payload)))


# --- voice ------------------------------------------------------------------------------------------------------


def _voice(room: Room, occupant: Occupant, element: Element) -> None:
    """A visitor asks for voice, or a moderator answers (XEP-0045 sections 7.13 and 8.6)."""
    form_type, values = read_form(element)
    if form_type != ns.MUC_REQUEST or element.get("type") != "submit":
        raise StanzaError("bad-request", "the room does not know this form")
    allow = values.get("muc#request_allow")
    if allow is not None:
        if not occupant.moderates:
            raise StanzaError("forbidden", "only moderators grant voice")
        nick = (values.get("muc#roomnick") or ("",))[0]
        target = room.occupants.get(nick)
        if target is None:
            raise StanzaError("item-not-found", "the occupant has left")
        if read_boolean(allow) and target.role is Role.VISITOR:
            target.role = Role.PARTICIPANT
            room.show(target)
        return
    if occupant.role is not Role.VISITOR:
        raise StanzaError("not-allowed", "you have voice already")
    question = form(
        "form",
        ns.MUC_REQUEST,
        (
            Field("muc#role", "list-single", ("participant",), "Requested role", (("Participant", "participant"),)),
            Field("muc#jid", "jid-single", (str(occupant.jid),), "User"),
            Field("muc#roomnick", "text-single", (occupant.nick,), "Nickname"),
            Field("muc#request_allow", "boolean", ("0",), "Give voice to this person?"),
        ),
        title="Somebody asks for voice",
    )
    for other, session in room.sessions():
        if other.moderates:
            header = {"from": room.address, "to": str(session), "id": room.token()}
            room.output.append((session, Element("message", ns.CLIENT, header, (question,))))
