"""Requests from one occupant to another, by nickname (XEP-0045), and the room's own word to a self-ping (XEP-0410)."""

from __future__ import annotations

from collections.abc import Callable

from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns, result

_MAX_WAITING = 10_000


class Relay:
    """Carries requests in the asker's room name, and the answers back. Only who was asked may answer."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token
        self._waiting: dict[str, tuple[Element, Jid, Jid]] = {}

    def ask(self, room: Room, sender: Jid, nick: str, iq: Element, payload: Element) -> tuple[Jid, Element]:
        """What to send to whom. Raises StanzaError when the room does not carry it."""
        if payload.ns in (ns.DISCO_INFO, ns.DISCO_ITEMS) and sender not in room.by_session:
            raise StanzaError("bad-request", "only occupants of the room ask about each other")  # XEP-0045 section 6.6
        asker = room.occupant(sender)
        if asker.nick == nick and payload.ns == ns.PING:
            return sender, result(iq)
        target = room.occupants.get(nick)
        if target is None:
            raise StanzaError("item-not-found", "nobody in the room has this nickname")
        to = target.jid
        if payload.ns == ns.VCARD:
            if iq.get("type") != "get":
                raise StanzaError("not-allowed", "a vCard is changed by its owner")
            to = target.bare  # the account's own, which its server answers
        identifier = self._token()
        self._waiting[identifier] = (iq, sender, to)
        if len(self._waiting) > _MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        attrs = {"from": f"{room.address}/{asker.nick}", "to": str(to), "id": identifier}
        return to, iq.with_attrs(attrs)

    def answer(self, sender: Jid, iq: Element) -> tuple[Jid, Element] | None:
        """What to send to whom when ``iq`` answers a request that was carried; None when it does not."""
        identifier = iq.get("id") or ""
        request, asker, asked = self._waiting.get(identifier, (None, None, None))
        if request is None or asker is None or asked != sender:
            return None
        del self._waiting[identifier]
        attrs = {"from": request.get("to"), "to": str(asker), "id": request.get("id")}
        return asker, _without_address(iq).with_attrs(attrs)


def _without_address(iq: Element) -> Element:
    """A vCard without the address of its owner, which most people in a room are not shown."""
    vcard = iq.find("vCard", ns.VCARD)
    if vcard is None:
        return iq
    kept = [child for child in vcard.children if isinstance(child, str) or child.name != "JABBERID"]
    return iq.with_children((vcard.with_children(kept),))
