"""What owners do: configure a room and destroy it (XEP-0045 sections 10.1, 10.2 and 10.9)."""

from __future__ import annotations

from collections.abc import Mapping

from moim.chat.rooms import lists, showing
from moim.chat.rooms.config import RoomConfig
from moim.chat.rooms.config_form import ADMINS, OWNERS, apply_form, config_form
from moim.chat.rooms.ranks import Affiliation, Role
from moim.chat.rooms.room import Change, Room, reason_in
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import read_form

_PRIVACY = frozenset({"non_anonymous", "logged"})
"""Fields of the configuration that have status codes of their own."""


def read(room: Room, sender: Jid) -> Element:
    """The form to configure the room with. Raises StanzaError for everybody but owners."""
    _check_owner(room, sender)
    held = [_held(room, affiliation) for affiliation in (Affiliation.ADMIN, Affiliation.OWNER)]
    return Element("query", ns.MUC_OWNER, {}, (config_form(room.config, room.address, room.bounds, *held),))


def _held(room: Room, affiliation: Affiliation) -> list[str]:
    return [bare for bare, own in room.affiliations.items() if own is affiliation]


def change(room: Room, sender: Jid, query: Element) -> None:
    """Takes a filled-in form, its cancellation, or the order to destroy. Raises StanzaError before anything changed."""
    _check_owner(room, sender)
    order = query.find("destroy")
    submitted = query.find("x", ns.DATA_FORMS)
    if order is not None:
        _destroy(room, order)
    elif submitted is None:
        raise StanzaError("bad-request", "a form or an order to destroy the room is expected")
    elif submitted.get("type") == "cancel":
        if room.locked:
            destroy(room)
    elif submitted.get("type") == "submit":
        _configure(room, submitted)
    else:
        raise StanzaError("bad-request", "the form is neither submitted nor cancelled")


def _check_owner(room: Room, sender: Jid) -> None:
    if room.affiliation(sender) is not Affiliation.OWNER:
        raise StanzaError("forbidden", "only owners of the room may do this")


def _configure(room: Room, submitted: Element) -> None:
    form_type, values = read_form(submitted)
    if values and form_type not in (ns.MUC_CONFIG, ""):
        raise StanzaError("bad-request", "the room does not know this form")
    old, new = room.config, apply_form(room.config, values, room.bounds)
    ranks = _read_ranks(room, values, Affiliation.MEMBER if new.members_only else Affiliation.NONE)
    lists.check_whole(room, ranks)
    was_logged, opened, room.locked = room.logged, room.locked, False
    for bare, affiliation in ranks.items():
        lists.apply_affiliation(room, bare, affiliation, actor="", reason="")
    if new == old:
        room.changed = room.changed or opened
        return
    room.reconfigure(new)
    if new.members_only and not old.members_only:
        for occupant in list(room.occupants.values()):
            if room.affiliation(occupant.bare) is Affiliation.NONE:
                showing.remove(room, occupant, Change(codes=(322,), gone=True, payload=()))
    if old.moderated and not new.moderated:
        _give_everybody_voice(room)
    if new.broadcast != old.broadcast:
        showing.tell_of_visibility(room)
    if codes := _codes(old, new, was_logged=was_logged, logged=room.logged):
        room.notice(*codes)


def _give_everybody_voice(room: Room) -> None:
    """The room is not moderated any more: who entered without voice has it now, but for those who lost it since."""
    for occupant in room.occupants.values():
        if occupant.role is Role.VISITOR and room.voices.get(str(occupant.bare)) is not Role.VISITOR:
            room.set_role(occupant, Role.PARTICIPANT)
            showing.show(room, occupant)


def _codes(old: RoomConfig, new: RoomConfig, *, was_logged: bool, logged: bool) -> list[int]:
    """The status codes of a change (XEP-0045 section 10.2.1): privacy has its own, 104 is everything else."""
    changed = {key for key in RoomConfig.__slots__ if getattr(old, key) != getattr(new, key)}
    codes = [104] if changed - _PRIVACY else []
    if logged != was_logged:
        codes.append(170 if logged else 171)
    if new.non_anonymous != old.non_anonymous:
        codes.append(172 if new.non_anonymous else 173)
    return codes


def _read_ranks(room: Room, values: Mapping[str, tuple[str, ...]], fallen: Affiliation) -> dict[str, Affiliation]:
    """The affiliations that change when a form lists the admins or owners in full; ``fallen`` is for who is missing."""
    ranks: dict[str, Affiliation] = {}
    for var, affiliation in ((ADMINS, Affiliation.ADMIN), (OWNERS, Affiliation.OWNER)):
        if var not in values:
            continue
        listed = {_bare(text) for text in values[var] if text.strip()}
        for bare in listed:
            lists.check_holder(bare, affiliation)
        if any(room.affiliations.get(bare) is Affiliation.OUTCAST for bare in listed):
            raise StanzaError("not-acceptable", "somebody who is banned is listed among admins or owners")
        for bare in _held(room, affiliation):
            if bare not in listed:
                ranks.setdefault(bare, fallen)
        ranks |= {bare: affiliation for bare in listed if room.affiliations.get(bare) is not affiliation}
    return ranks


def _bare(text: str) -> str:
    try:
        return str(Jid.parse(text.strip()).bare)
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None


def _destroy(room: Room, order: Element) -> None:
    venue = order.get("jid")
    if venue is not None:
        try:
            venue = str(Jid.parse(venue))
        except ProtocolError as error:
            raise StanzaError("jid-malformed", error.message) from None
    password = order.find("password")
    destroy(room, venue or "", reason_in(order), password.text[:200] if password is not None else "")


def destroy(room: Room, venue: str = "", reason: str = "", password: str = "") -> None:
    """Ends the room: everybody is out, told why and where to go instead."""
    words = []
    if reason:
        words.append(Element("reason", ns.MUC_USER, {}, (reason,)))
    if password:
        words.append(Element("password", ns.MUC_USER, {}, (password,)))
    notice = Element("destroy", ns.MUC_USER, {"jid": venue} if venue else {}, tuple(words))
    _put_out(room, Change(gone=True, payload=(), extra=notice))
    room.destroyed = True
    room.changed = True


def shut_down(room: Room) -> None:
    """The service stops: everybody is out for now (status 332), and nothing else changes."""
    _put_out(room, Change(codes=(332,), gone=True, payload=()))


def _put_out(room: Room, change: Change) -> None:
    for occupant, session in room.sessions():
        room.output.append((session, showing.own_presence(room, occupant, session, change, "unavailable")))
    room.clear()
