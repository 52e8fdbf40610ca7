"""The lists of admins and moderators: affiliations and roles read and changed (XEP-0045 sections 8 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moim.chat.rooms.ranks import (
    Affiliation,
    Role,
    check_affiliation_change,
    check_role_change,
    initial_role,
    is_manager,
)
from moim.chat.rooms.room import MAX_AFFILIATIONS, Change, Occupant, Room
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns

_MAX_ITEMS = 500


@dataclass(frozen=True, slots=True)
class _Step:
    """One item of a request, looked up and judged: an affiliation of ``bare`` or a role of ``occupant``."""

    reason: str
    bare: str = ""
    affiliation: Affiliation = Affiliation.NONE
    occupant: Occupant | None = None
    role: Role = Role.NONE


def read(room: Room, sender: Jid, query: Element) -> Element:
    """Answers a ``get``: everybody of an affiliation or a role. Raises StanzaError when it is not theirs to see."""
    items = [item for item in query.elements() if (item.ns, item.name) == (ns.MUC_ADMIN, "item")]
    if len(items) != 1:
        raise StanzaError("bad-request", "one list is read at a time")
    own = room.affiliation(sender)
    (item,) = items
    if (affiliation := item.get("affiliation")) is not None:
        wanted = _affiliation(affiliation)
        member_asks = wanted is Affiliation.MEMBER and room.config.members_only and own is Affiliation.MEMBER
        if not is_manager(own) and not member_asks:
            raise StanzaError("forbidden", "this list is for admins of the room")
        found = [
            Element("item", ns.MUC_ADMIN, {"affiliation": wanted.value, "jid": bare} | _nick(room, bare))
            for bare, held in room.affiliations.items()
            if held is wanted
        ]
    else:
        role = _role(item.get("role"))
        occupant = room.by_session.get(sender)
        if not is_manager(own) and not (occupant is not None and occupant.moderates):
            raise StanzaError("forbidden", "this list is for moderators of the room")
        found = [_role_item(room, other) for other in room.occupants.values() if other.role is role]
    return Element("query", ns.MUC_ADMIN, {}, tuple(found))


def _nick(room: Room, bare: str) -> dict[str, str]:
    nick = next((other.nick for other in room.occupants.values() if str(other.bare) == bare), None)
    return {} if nick is None else {"nick": nick}


def _role_item(room: Room, occupant: Occupant) -> Element:
    attrs = {
        "affiliation": room.affiliation(occupant.bare).value,
        "jid": str(occupant.jid),
        "nick": occupant.nick,
        "role": occupant.role.value,
    }
    return Element("item", ns.MUC_ADMIN, attrs)


def change(room: Room, sender: Jid, query: Element) -> None:
    """Answers a ``set``: all items or, with a StanzaError, none."""
    items = [item for item in query.elements() if (item.ns, item.name) == (ns.MUC_ADMIN, "item")]
    if not items or len(items) > _MAX_ITEMS:
        raise StanzaError("bad-request", f"a request changes 1 to {_MAX_ITEMS} items")
    steps = [_judge(room, sender, item) for item in items]
    _check_whole(room, steps)
    actor = room.by_session.get(sender)
    for step in steps:
        name = actor.nick if actor is not None else ""
        if step.occupant is None:
            apply_affiliation(room, step.bare, step.affiliation, actor=name, reason=step.reason)
        elif room.occupants.get(step.occupant.nick) is step.occupant:
            _apply_role(room, step.occupant, step.role, actor=name, reason=step.reason)


def _judge(room: Room, sender: Jid, item: Element) -> _Step:
    own = room.affiliation(sender)
    occupant = room.by_session.get(sender)
    spoken = item.find("reason")
    reason = spoken.text if spoken is not None else ""
    nick = item.get("nick")
    target = room.occupants.get(nick) if nick is not None else None
    if (affiliation := item.get("affiliation")) is not None:
        new = _affiliation(affiliation)
        bare = _bare(item, target)
        check_affiliation_change(own, room.affiliations.get(bare, Affiliation.NONE), new)
        if bare == str(sender.bare) and new is Affiliation.OUTCAST:
            raise StanzaError("conflict", "nobody bans themselves")
        return _Step(reason, bare=bare, affiliation=new)
    role = _role(item.get("role"))
    if occupant is None:
        raise StanzaError("forbidden", "only moderators in the room change roles")
    if target is None:
        raise StanzaError("item-not-found" if nick else "bad-request", "nobody in the room has this nickname")
    check_role_change(own, occupant.role, room.affiliation(target.bare), target.role, role)
    return _Step(reason, occupant=target, role=role)


def _bare(item: Element, target: Occupant | None) -> str:
    text = item.get("jid")
    if text is None:
        if target is None:
            raise StanzaError("item-not-found" if item.get("nick") else "bad-request", "whose affiliation is not said")
        return str(target.bare)
    try:
        return str(Jid.parse(text).bare)
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None


def _check_whole(room: Room, steps: Sequence[_Step]) -> None:
    """What all items together may not lead to: a room without owner, or with more affiliations than it may have."""
    changes = {step.bare: step.affiliation for step in steps if step.occupant is None}
    after = room.affiliations | changes
    if changes and Affiliation.OWNER not in after.values():
        raise StanzaError("conflict", "a room has at least one owner")
    if sum(held is not Affiliation.NONE for held in after.values()) > MAX_AFFILIATIONS:
        raise StanzaError("resource-constraint", f"a room has at most {MAX_AFFILIATIONS} affiliations")


def apply_affiliation(room: Room, bare: str, new: Affiliation, *, actor: str, reason: str) -> None:
    """Gives an account an affiliation, with what follows for its occupants in the room."""
    if room.affiliations.get(bare, Affiliation.NONE) is new:
        return
    room.set_affiliation(bare, new)
    for occupant in [other for other in room.occupants.values() if str(other.bare) == bare]:
        if new is Affiliation.OUTCAST:
            room.remove(occupant, Change(codes=(301,), actor=actor, reason=reason, gone=True, payload=()))
        elif new is Affiliation.NONE and room.config.members_only:
            room.remove(occupant, Change(codes=(321,), actor=actor, reason=reason, gone=True, payload=()))
        else:
            occupant.role = initial_role(new, moderated=room.config.moderated)
            room.show(occupant, Change(actor=actor, reason=reason))


def forget(room: Room, bare: str) -> bool:
    """An account does not exist any more; whether it had an affiliation to lose. Bans stay.

    Without this, whoever gets the address next would get its rights. A room left without owner goes to its admins.
    """
    held = room.affiliations.get(bare, Affiliation.NONE)
    if held in (Affiliation.NONE, Affiliation.OUTCAST):
        return False
    apply_affiliation(room, bare, Affiliation.NONE, actor="", reason="")
    if Affiliation.OWNER not in room.affiliations.values():
        for heir in [jid for jid, other in room.affiliations.items() if other is Affiliation.ADMIN]:
            apply_affiliation(room, heir, Affiliation.OWNER, actor="", reason="")
    return True


def _apply_role(room: Room, occupant: Occupant, role: Role, *, actor: str, reason: str) -> None:
    if role is Role.NONE:
        room.remove(occupant, Change(codes=(307,), actor=actor, reason=reason, gone=True, payload=()))
    elif occupant.role is not role:
        occupant.role = role
        room.show(occupant, Change(actor=actor, reason=reason))


def _affiliation(text: str) -> Affiliation:
    try:
        return Affiliation(text)
    except ValueError:
        raise StanzaError("bad-request", "there is no such affiliation") from None


def _role(text: str | None) -> Role:
    try:
        return Role(text or "")
    except ValueError:
        raise StanzaError("bad-request", "an item names an affiliation or a role") from None
