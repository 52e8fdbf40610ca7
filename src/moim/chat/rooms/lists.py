"""The lists of admins and moderators: affiliations and roles read and changed (XEP-0045 sections 8 and 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moim.chat.rooms import invitations, nicknames, showing
from moim.chat.rooms.occupants import Occupant
from moim.chat.rooms.output import Fan
from moim.chat.rooms.ranks import (
    Affiliation,
    Role,
    check_affiliation_change,
    check_role_change,
    initial_role,
    is_manager,
)
from moim.chat.rooms.room import Change, Invitation, Room, reason_in, status
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns, rsm

_MAX_ITEMS = 500
_MAX_READ = 1000
_MAX_TOLD = 10
"""People of one request who hear that their affiliation changed while they were not in the room."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One item of a request, looked up and judged: an affiliation of ``bare`` or a role of ``occupant``."""

    reason: str
    bare: str = ""
    affiliation: Affiliation = Affiliation.NONE
    nick: str | None = None
    """The nickname to reserve; empty for none, None for no change."""
    occupant: Occupant | None = None
    role: Role = Role.NONE


def read(room: Room, sender: Jid, query: Element) -> Element:
    """Answers a ``get``: everybody of an affiliation or a role, page by page (XEP-0059) when asked so or too long.

    Raises StanzaError when it is not theirs to see.
    """
    items = [item for item in query.elements() if (item.ns, item.name) == (ns.MUC_ADMIN, "item")]
    if len(items) != 1:
        raise StanzaError("bad-request", "one list is read at a time")
    (item,) = items
    asked = query.find("set", ns.RSM)
    page = rsm.read(asked)
    if (affiliation := item.get("affiliation")) is not None:
        wanted = _affiliation(affiliation)
        _check_reader(room, sender, wanted)
        held = [bare for bare, own in room.affiliations.items() if own is wanted]
        part = rsm.page(held, page, usual=_MAX_READ, most=_MAX_READ)
        found = [_affiliation_item(room, bare, wanted) for bare in held[part.start : part.stop]]
    else:
        role = _role(item.get("role"))
        occupant = room.by_session.get(sender)
        if not is_manager(room.affiliation(sender)) and not (occupant is not None and occupant.moderates):
            raise StanzaError("forbidden", "this list is for moderators of the room")
        held = [nick for nick, other in room.occupants.items() if other.role is role]
        part = rsm.page(held, page, usual=_MAX_READ, most=_MAX_READ)
        found = [_role_item(room, room.occupants[nick]) for nick in held[part.start : part.stop]]
    if asked is not None or len(found) < len(held):
        found.append(part.element)
    return Element("query", ns.MUC_ADMIN, {}, tuple(found))


def _check_reader(room: Room, sender: Jid, wanted: Affiliation) -> None:
    """Raises StanzaError when a list of an affiliation is not for this reader (XEP-0045 sections 9.2, 9.5, 10.5)."""
    own = room.affiliation(sender)
    if is_manager(own):
        return
    if wanted is Affiliation.OUTCAST:
        raise StanzaError("forbidden", "this list is for admins of the room")
    # Where everybody sees everybody's address, members may know who else belongs to the room; elsewhere the list
    # would tell them addresses that the room keeps from them (section 5.2.1).
    if own is Affiliation.MEMBER and room.config.non_anonymous:
        return
    occupant = room.by_session.get(sender)
    shown_by_role = occupant is not None and occupant.role.value in room.config.member_list
    if shown_by_role and (wanted is Affiliation.MEMBER or room.config.non_anonymous):
        return
    raise StanzaError("forbidden", "this list is for admins of the room")


def _affiliation_item(room: Room, bare: str, affiliation: Affiliation) -> Element:
    attrs = {"affiliation": affiliation.value, "jid": bare}
    present = room.by_bare.get(bare)
    if nick := room.nicks.get(bare) or (present[0].nick if present else ""):
        attrs["nick"] = nick
    return Element("item", ns.MUC_ADMIN, attrs)


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
    check_whole(room, {step.bare: step.affiliation for step in steps if step.occupant is None})
    _check_nicks(room, steps)
    actor = room.by_session.get(sender)
    name = actor.nick if actor is not None else ""
    for step in steps:
        if step.occupant is None:
            told = len(items) <= _MAX_TOLD
            apply_affiliation(
                room, step.bare, step.affiliation, actor=name, reason=step.reason, by=sender.bare if told else None
            )
            if step.nick is not None:
                nicknames.reserve(room, step.bare, step.nick)
        elif room.occupants.get(step.occupant.nick) is step.occupant:
            _apply_role(room, step.occupant, step.role, actor=name, reason=step.reason)


def _judge(room: Room, sender: Jid, item: Element) -> _Step:
    own = room.affiliation(sender)
    occupant = room.by_session.get(sender)
    reason = reason_in(item)
    nick = item.get("nick")
    target = room.occupants.get(nick) if nick is not None else None
    if (affiliation := item.get("affiliation")) is not None:
        if item.get("role") is not None:
            raise StanzaError("bad-request", "an item changes an affiliation or a role, not both")
        new = _affiliation(affiliation)
        bare = _bare(item, target)
        check_holder(bare, new)
        if bare == str(sender.bare) and new is Affiliation.OUTCAST and own in (Affiliation.ADMIN, Affiliation.OWNER):
            raise StanzaError("conflict", "nobody bans themselves")
        check_affiliation_change(own, room.affiliations.get(bare, Affiliation.NONE), new)
        reserving = item.get("jid") is not None and new not in (Affiliation.NONE, Affiliation.OUTCAST)
        return _Step(reason, bare=bare, affiliation=new, nick=nick if reserving else None)
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


def check_holder(bare: str, affiliation: Affiliation) -> None:
    """Raises StanzaError when an affiliation is for people, and a whole domain is to get it."""
    if "@" not in bare and is_manager(affiliation):
        raise StanzaError("not-acceptable", "people are admins and owners, not whole domains")


def check_whole(room: Room, changes: dict[str, Affiliation]) -> None:
    """What changes together may not lead to: a room without owner, or with more affiliations than it may have."""
    if not changes:
        return
    after = room.affiliations | changes
    if Affiliation.OWNER not in after.values():
        raise StanzaError("conflict", "a room has at least one owner")
    grows = any(room.affiliations.get(bare) is None for bare in changes)
    if grows and sum(held is not Affiliation.NONE for held in after.values()) > room.bounds.affiliations:
        raise StanzaError("resource-constraint", f"a room has at most {room.bounds.affiliations} affiliations")


def _check_nicks(room: Room, steps: Sequence[_Step]) -> None:
    wanted: dict[str, str] = {}
    for step in steps:
        if step.nick:
            if wanted.setdefault(step.nick, step.bare) != step.bare:
                raise StanzaError("conflict", "two people cannot reserve one nickname")
            nicknames.check_reservable(room, step.bare, step.nick)


def apply_affiliation(
    room: Room, bare: str, new: Affiliation, *, actor: str, reason: str, by: Jid | None = None
) -> None:
    """Gives an account an affiliation, with what follows for its occupants in the room.

    ``by`` is in whose name somebody who is not there is told.
    """
    old = room.affiliations.get(bare, Affiliation.NONE)
    if old is new:
        return
    room.set_affiliation(bare, new)
    present = room.belonging(bare)
    for occupant in present:
        now = room.affiliation(occupant.bare)
        if now is Affiliation.OUTCAST:
            showing.remove(room, occupant, Change(codes=(301,), actor=actor, reason=reason, gone=True, payload=()))
        elif now is Affiliation.NONE and room.config.members_only:
            showing.remove(room, occupant, Change(codes=(321,), actor=actor, reason=reason, gone=True, payload=()))
        else:
            keeps = occupant.moderates and old is Affiliation.NONE  # who becomes more loses no role by it
            if not keeps:
                room.set_role(occupant, initial_role(now, moderated=room.config.moderated))
            showing.show(room, occupant, Change(actor=actor, reason=reason))
    if not present:
        _tell_absent(room, Jid.parse(bare), old, new, reason, by)


def _tell_absent(room: Room, who: Jid, old: Affiliation, new: Affiliation, reason: str, by: Jid | None) -> None:
    """Tells those who see addresses, and, in a low voice, whoever is concerned (XEP-0045 sections 9.3 and 9.5).

    The banned are not told: a room is no way to send words to strangers.
    """
    item = Element("item", ns.MUC_USER, {"affiliation": new.value, "jid": str(who), "role": Role.NONE.value})
    header = {"from": room.address, "id": room.token()}
    notice = Element("message", ns.CLIENT, header, (Element("x", ns.MUC_USER, {}, (item,)),))
    room.output.append(Fan(notice, room.audiences[True]))
    if by is None or new is Affiliation.OUTCAST or old is Affiliation.OUTCAST or not who.local:
        return
    if room.config.members_only and old is Affiliation.NONE:
        invitations.send(room, Invitation("", by), who, reason)
        return
    own = Element("item", ns.MUC_USER, {"affiliation": new.value, "role": Role.NONE.value})
    children = (Element("x", ns.MUC_USER, {}, (own, status(101))),)
    room.output.append((who, Element("message", ns.CLIENT, header | {"to": str(who)}, children)))


def forget(room: Room, bare: str) -> bool:
    """An account does not exist any more; whether it had anything here to lose. Bans stay.

    Without this, whoever gets the address next would get its rights. A room left without owner goes to its admins.
    """
    room.applicants.pop(bare, None)
    if room.voices.pop(bare, None) is not None:
        room.changed = True
    had_hats = room.hats.forget(bare)
    if had_hats:
        room.changed = True
        showing.refresh(room, bare)
    held = room.affiliations.get(bare, Affiliation.NONE)
    if held in (Affiliation.NONE, Affiliation.OUTCAST):
        return had_hats
    apply_affiliation(room, bare, Affiliation.NONE, actor="", reason="")
    if Affiliation.OWNER not in room.affiliations.values():
        for heir in [jid for jid, other in room.affiliations.items() if other is Affiliation.ADMIN]:
            apply_affiliation(room, heir, Affiliation.OWNER, actor="", reason="")
    return True


def _apply_role(room: Room, occupant: Occupant, role: Role, *, actor: str, reason: str) -> None:
    if role is Role.NONE:
        showing.remove(room, occupant, Change(codes=(307,), actor=actor, reason=reason, gone=True, payload=()))
    elif occupant.role is not role:
        room.give_voice(occupant, role)
        showing.show(room, occupant, Change(actor=actor, reason=reason))


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
