"""Mediated invitations and their refusal (XEP-0045 section 7.8)."""

from __future__ import annotations

from dataclasses import replace

from moim.chat.rooms.ranks import Affiliation, is_manager
from moim.chat.rooms.room import MAX_INVITED, Invitation, Room, reason_in
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns

_MAX_AT_ONCE = 10
_MAX_THREAD = 200
_MAX_ID = 256


def invite(room: Room, sender: Jid, message: Element, muc: Element) -> None:
    """An occupant invites others; all of them or, with a StanzaError, nobody. ``muc`` is in ``message``."""
    room.occupant(sender)
    affiliation = room.affiliation(sender)
    if not room.config.invitations and not is_manager(affiliation):
        raise StanzaError("forbidden", "only admins of this room invite others")
    invites = [child for child in muc.elements() if (child.ns, child.name) == (ns.MUC_USER, "invite")]
    if len(invites) > _MAX_AT_ONCE:
        raise StanzaError("not-acceptable", f"at most {_MAX_AT_ONCE} people are invited at once")
    guests = [(_address(invitation), invitation) for invitation in invites]
    strangers = {str(guest.bare) for guest, _ in guests if room.affiliation(guest) is Affiliation.NONE}
    # Inviting makes members here, which is for admins to do (XEP-0045 section 7.8.2).
    if room.config.members_only and strangers and not is_manager(affiliation):
        raise StanzaError("forbidden", "only admins of this room invite those who are not members")
    if any(room.affiliation(guest) is Affiliation.OUTCAST for guest, _ in guests):
        raise StanzaError("not-allowed", "somebody who is banned cannot be invited")
    if room.config.members_only and len(room.affiliations) + len(strangers) > room.bounds.affiliations:
        raise StanzaError("resource-constraint", "the room has too many members")
    asked = Invitation("", sender, (message.get("id") or "")[:_MAX_ID])
    for guest, invitation in guests:
        if room.config.members_only and room.affiliation(guest) is Affiliation.NONE:
            room.set_affiliation(str(guest.bare), Affiliation.MEMBER)
        proceed = invitation.find("continue")
        send(room, asked, guest, reason_in(invitation), proceed)


def _address(invitation: Element) -> Jid:
    try:
        return Jid.parse(invitation.get("to") or "")
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None


def send(room: Room, asked: Invitation, guest: Jid, reason: str = "", proceed: Element | None = None) -> None:
    """Passes an invitation on, in both forms; ``proceed`` says that a conversation goes on here (section 7.9)."""
    inviter, identifier = asked.inviter, room.token()
    room.invited.pop((str(guest.bare), str(inviter.bare)), None)
    room.invited[(str(guest.bare), str(inviter.bare))] = replace(asked, identifier=identifier)
    while len(room.invited) > MAX_INVITED:
        del room.invited[next(iter(room.invited))]
    words = [Element("reason", ns.MUC_USER, {}, (reason,))] if reason else []
    attrs = {"jid": room.address}
    if proceed is not None:
        thread = (proceed.get("thread") or "")[:_MAX_THREAD]
        words.append(Element("continue", ns.MUC_USER, {"thread": thread} if thread else {}))
        attrs |= {"continue": "true"} | ({"thread": thread} if thread else {})
    children = [Element("invite", ns.MUC_USER, {"from": str(inviter.bare)}, tuple(words))]
    if room.config.password:
        children.append(Element("password", ns.MUC_USER, {}, (room.config.password,)))
        attrs["password"] = room.config.password
    if reason:
        attrs["reason"] = reason
    payload = (Element("x", ns.MUC_USER, {}, tuple(children)), Element("x", ns.DIRECT_INVITATION, attrs))
    header = {"from": room.address, "to": str(guest), "id": identifier}
    room.output.append((guest, Element("message", ns.CLIENT, header, payload)))


def returned(room: Room, guest: Jid, message: Element) -> None:
    """An error came back to the room: whoever sent the invitation that it is about hears that nobody got it."""
    found = [
        key
        for key, invitation in room.invited.items()
        if key[0] == str(guest.bare) and invitation.identifier == (message.get("id") or "")
    ]
    for key in found:
        invitation = room.invited.pop(key)
        if invitation.inviter not in room.by_session:
            continue
        error = StanzaError("item-not-found", f"the invitation did not reach {guest.bare}")
        unsent = Element("x", ns.MUC_USER, {}, (Element("invite", ns.MUC_USER, {"to": str(guest)}),))
        header = {"type": "error", "from": room.address, "to": str(invitation.inviter)}
        header |= {"id": invitation.asked} if invitation.asked else {}
        room.output.append((invitation.inviter, Element("message", ns.CLIENT, header, (unsent, error.element()))))


def decline(room: Room, sender: Jid, declined: Element) -> None:
    """Somebody who was invited says no; whoever invited hears it. Raises StanzaError when nobody did."""
    inviter = _address(declined)
    if (str(sender.bare), str(inviter.bare)) not in room.invited:
        raise StanzaError("forbidden", "there is no such invitation")
    del room.invited[(str(sender.bare), str(inviter.bare))]
    reason = reason_in(declined)
    words = (Element("reason", ns.MUC_USER, {}, (reason,)),) if reason else ()
    notice = Element("decline", ns.MUC_USER, {"from": str(sender.bare)}, words)
    for session in [jid for jid in room.by_session if jid.bare == inviter.bare] or [inviter.bare]:
        header = {"from": room.address, "to": str(session), "id": room.token()}
        payload = (Element("x", ns.MUC_USER, {}, (notice,)),)
        room.output.append((session, Element("message", ns.CLIENT, header, payload)))
