"""Voice in moderated rooms: visitors ask for it, moderators decide (XEP-0045 sections 7.13 and 8.6)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from moim.chat.rooms import showing
from moim.chat.rooms.occupants import Occupant
from moim.chat.rooms.ranks import Role
from moim.chat.rooms.room import Room
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form, read_boolean

_AGAIN_AFTER = timedelta(seconds=60)
_MAX_REMINDED = 20


def ask(room: Room, occupant: Occupant, values: Mapping[str, tuple[str, ...]], now: datetime) -> None:
    """A visitor asks for voice; every moderator who is there gets the form to decide with."""
    if values.get("muc#role", ("participant",)) != ("participant",):
        raise StanzaError("bad-request", "voice is what participants have: no other role is asked for")
    if occupant.role is not Role.VISITOR:
        raise StanzaError("not-allowed", "you have voice already")
    if occupant.asked_at is not None and now - occupant.asked_at < _AGAIN_AFTER:
        raise StanzaError("policy-violation", "you have asked already; wait for a moderator's word", kind="wait")
    occupant.asked_at = now
    question = _question(occupant)
    for other, session in room.sessions():
        if other.moderates:
            _put(room, session, question)


def remind(room: Room, moderator: Occupant, session: Jid) -> None:
    """A moderator enters: whoever asked, and was not answered yet, asks it as well."""
    if moderator.moderates:
        waiting = [other for other in room.occupants.values() if other.asked_at and other.role is Role.VISITOR]
        for occupant in waiting[-_MAX_REMINDED:]:
            _put(room, session, _question(occupant))


def _put(room: Room, session: Jid, question: Element) -> None:
    header = {"from": room.address, "to": str(session), "id": room.token()}
    room.output.append((session, Element("message", ns.CLIENT, header, (question,))))


def _question(occupant: Occupant) -> Element:
    return form(
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


def decide(room: Room, moderator: Occupant, values: Mapping[str, tuple[str, ...]]) -> None:
    """A moderator's answer. It counts for the person that it names, whatever that one is called by now."""
    if not moderator.moderates:
        raise StanzaError("forbidden", "only moderators grant voice")
    target = _whose(room, values)
    if target is None:
        raise StanzaError("item-not-found", "the occupant has left")
    target.asked_at = None
    if read_boolean(values["muc#request_allow"]) and target.role is Role.VISITOR:
        room.give_voice(target, Role.PARTICIPANT)
        showing.show(room, target)


def _whose(room: Room, values: Mapping[str, tuple[str, ...]]) -> Occupant | None:
    named = (values.get("muc#jid") or ("",))[0]
    if not named:
        return room.occupants.get((values.get("muc#roomnick") or ("",))[0])
    try:
        jid = Jid.parse(named)
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None
    if jid.resource:
        return room.by_session.get(jid)
    return next(iter(room.by_bare.get(str(jid), ())), None)
