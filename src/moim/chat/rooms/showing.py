"""The presence of occupants, as each of the others may see it (XEP-0045 sections 7.2 and 8–10).

Most people in a room see the same. What they see is made once, kept as a card until it changes, and sent to all of them
as one stanza.
"""

from __future__ import annotations

from moim.chat.rooms.occupants import Occupant
from moim.chat.rooms.output import Fan
from moim.chat.rooms.ranks import Affiliation, Role
from moim.chat.rooms.room import PLAIN, Change, Room, status
from moim.proto.xmpp import Element, Jid, ns


def show(room: Room, occupant: Occupant, change: Change = PLAIN, *, kind: str | None = None) -> None:
    """Sends an occupant's presence to every session in the room, each as it may see it; its own come last.

    Others hear nothing of roles that the room does not show, but that an occupant leaves whom they saw.
    """
    seen_before = occupant.visible
    shown = seen_before if kind else occupant.role.value in room.config.broadcast
    if shown or seen_before:
        said, what = (change, kind) if shown else (Change(gone=True, payload=()), "unavailable")
        for sees, audience in room.audiences.items():
            room.output.append(Fan(card(room, occupant, sees, said, what), audience, tuple(occupant.sessions)))
    occupant.visible = shown
    for session in occupant.sessions:
        room.output.append((session, own_presence(room, occupant, session, change, kind)))


def card(room: Room, occupant: Occupant, sees: bool, change: Change = PLAIN, kind: str | None = None) -> Element:
    """The presence of an occupant for others, without ``to``; ``sees`` says whether they see real addresses."""
    plain = change is PLAIN and kind is None
    if plain and (kept := occupant.cards.get(sees)) is not None:
        return kept
    made = _presence(room, occupant, occupant.jid if sees else None, change.codes, change, kind)
    if plain:
        occupant.cards[sees] = made
    return made


def own_presence(
    room: Room, occupant: Occupant, session: Jid, change: Change = PLAIN, kind: str | None = None
) -> Element:
    """The presence that tells an occupant's session about itself (status 110); it has the id of what it answers."""
    codes = (*change.codes, *change.own_codes, 110)
    header = {"to": str(session)}
    if change.asked is not None and change.asked[0] == session:
        header["id"] = change.asked[1]
    return _presence(room, occupant, session, codes, change, kind).with_attrs(header)


def _presence(
    room: Room, about: Occupant, jid: Jid | None, codes: tuple[int, ...], change: Change, kind: str | None
) -> Element:
    role = Role.NONE if change.gone else about.role
    attrs = {"affiliation": room.affiliation(about.bare).value, "role": role.value}
    if jid is not None:
        attrs["jid"] = str(jid)
    if change.new_nick:
        attrs["nick"] = change.new_nick
    words: list[Element | str] = []
    if change.actor:
        words.append(Element("actor", ns.MUC_USER, {"nick": change.actor}))
    if change.reason:
        words.append(Element("reason", ns.MUC_USER, {}, (change.reason,)))
    children: list[Element | str] = [Element("item", ns.MUC_USER, attrs, tuple(words))]
    if change.extra is not None:
        children.append(change.extra)
    children.extend(status(code) for code in codes)
    payload = about.shown if change.payload is None else change.payload
    marks = [Element("occupant-id", ns.OCCUPANT_ID, {"id": about.identifier})]
    if kind is None and (worn := room.hats.element(str(about.bare))) is not None:
        marks.append(worn)
    header = {"from": f"{room.address}/{about.nick}"} | ({"type": kind} if kind else {})
    muc = Element("x", ns.MUC_USER, {}, tuple(children))
    return Element("presence", ns.CLIENT, header, (*payload, *marks, muc))


def absent(room: Jid, nick: str, session: Jid, affiliation: Affiliation, *marks: Element) -> Element:
    """Tells a session that believes to be in a room that it is not (XEP-0045 section 7.2.17)."""
    item = Element("item", ns.MUC_USER, {"affiliation": affiliation.value, "role": Role.NONE.value})
    muc = Element("x", ns.MUC_USER, {}, (item, *(status(code) for code in (110, 307, 333))))
    header = {"from": f"{room}/{nick}", "to": str(session), "type": "unavailable"}
    return Element("presence", ns.CLIENT, header, (*marks, muc))


def leave(room: Room, session: Jid, change: Change) -> None:
    """A session leaves; does nothing when it is not in."""
    occupant = room.by_session.get(session)
    if occupant is None:
        return
    if len(occupant.sessions) == 1:
        remove(room, occupant, change)
        return
    newest = occupant.jid == session
    room.output.append((session, own_presence(room, occupant, session, change, "unavailable")))
    room.drop_session(occupant, session)
    if newest:
        show(room, occupant)


def remove(room: Room, occupant: Occupant, change: Change) -> None:
    """Takes an occupant out with all its sessions, and tells everybody."""
    show(room, occupant, change, kind="unavailable")
    for session in tuple(occupant.sessions):
        room.drop_session(occupant, session)


def refresh(room: Room, bare: str, change: Change = PLAIN) -> None:
    """Shows every occupant of an account anew: what the room says of it has changed."""
    for occupant in tuple(room.by_bare.get(bare, ())):
        occupant.cards.clear()
        show(room, occupant, change)


def tell_of_visibility(room: Room) -> None:
    """Shows or hides occupants after the roles that the room shows have changed."""
    for occupant in tuple(room.occupants.values()):
        if occupant.visible != (occupant.role.value in room.config.broadcast):
            occupant.cards.clear()
            show(room, occupant)
