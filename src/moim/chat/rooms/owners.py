"""What owners do: configure a room and destroy it (XEP-0045 sections 10.1, 10.2 and 10.9)."""

from __future__ import annotations

from moim.chat.rooms.config import apply_form, config_form
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import Change, Room
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import read_form


def read(room: Room, sender: Jid) -> Element:
    """The form to configure the room with. Raises StanzaError for everybody but owners."""
    _check_owner(room, sender)
    return Element("query", ns.MUC_OWNER, {}, (config_form(room.config, room.address, room.bounds),))


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
    opened, room.locked = room.locked, False
    if new == old:
        room.changed = room.changed or opened
        return
    room.config = new
    room.history.resize(min(new.history, room.bounds.history))
    room.changed = True
    codes = [104]
    if new.non_anonymous != old.non_anonymous:
        codes.append(172 if new.non_anonymous else 173)
    if new.members_only and not old.members_only:
        for occupant in list(room.occupants.values()):
            if room.affiliation(occupant.bare) is Affiliation.NONE:
                room.remove(occupant, Change(codes=(322,), gone=True, payload=()))
    room.notice(*codes)


def _destroy(room: Room, order: Element) -> None:
    venue = order.get("jid")
    if venue is not None:
        try:
            venue = str(Jid.parse(venue))
        except ProtocolError as error:
            raise StanzaError("jid-malformed", error.message) from None
    reason, password = order.find("reason"), order.find("password")
    destroy(room, venue or "", reason.text if reason is not None else "", password.text if password is not None else "")


def destroy(room: Room, venue: str = "", reason: str = "", password: str = "") -> None:
    """Ends the room: everybody is out, told why and where to go instead."""
    words = []
    if reason:
        words.append(Element("reason", ns.MUC_USER, {}, (reason,)))
    if password:
        words.append(Element("password", ns.MUC_USER, {}, (password,)))
    notice = Element("destroy", ns.MUC_USER, {"jid": venue} if venue else {}, tuple(words))
    for occupant in room.occupants.values():
        for session in occupant.sessions:
            gone = Change(gone=True, payload=(), extra=notice)
            room.output.append((session, room.presence(occupant, session, occupant, gone, kind="unavailable")))
    room.occupants.clear()
    room.by_session.clear()
    room.destroyed = True
    room.changed = True
