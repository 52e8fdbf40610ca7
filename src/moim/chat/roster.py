"""The contact list on the wire (RFC 6121 section 2): get with versioning, set, remove, and pushes."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace

from moim.chat.accounts import Accounts, Session
from moim.chat.feature import Feature, Iq, Payload
from moim.chat.plane import Plane
from moim.chat.rosters import Item, Roster, Rosters
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, iq_set, ns

_MAX_NAME = 1023
_MAX_GROUPS = 64

AfterRemoval = Callable[[str, Item], Awaitable[None]]


def item_element(item: Item) -> Element:
    """An item as clients see it."""
    attrs = {"jid": item.contact, "subscription": item.subscription}
    if item.name:
        attrs["name"] = item.name
    if item.ask:
        attrs["ask"] = "subscribe"
    if item.approved:
        attrs["approved"] = "true"
    return Element("item", ns.ROSTER, attrs, tuple(Element("group", ns.ROSTER, {}, (g,)) for g in item.groups))


class RosterPushes:
    """Tells the sessions that asked for the list of every change to it."""

    def __init__(self, accounts: Accounts, plane: Plane) -> None:
        self._accounts = accounts
        self._plane = plane
        self._numbers = itertools.count(1)

    def begin(self, session: Session) -> None:
        """The session asked for the list, and hears of changes from now on."""
        if not session.interested:
            session.interested = True
            self._accounts.changed(session)

    def push(self, roster: Roster, item: Item) -> None:
        """Pushes the item as it is now; an unlisted one as removed."""
        account = self._accounts.get(roster.owner)
        if account is None:
            return
        if item.listed:
            element = item_element(item)
        else:
            element = Element("item", ns.ROSTER, {"jid": item.contact, "subscription": "remove"})
        query: Element | None = None
        batch = []
        for session in account.sessions.values():
            if session.interested:
                query = query or Element("query", ns.ROSTER, {"ver": roster.version}, (element,))
                batch.append((session.sid, iq_set(f"push-{next(self._numbers)}", str(session.full), query)))
        self._plane.send_many(batch)


class RosterRequests:
    """Answers ``jabber:iq:roster`` for the account's own sessions.

    ``max_items`` bounds the list of a bare JID; ``after_removal(owner, item)`` ends the subscriptions that the removed
    item had.
    """

    def __init__(
        self, rosters: Rosters, pushes: RosterPushes, *, max_items: Callable[[str], int], after_removal: AfterRemoval
    ) -> None:
        self._rosters = rosters
        self._pushes = pushes
        self._max_items = max_items
        self._after_removal = after_removal
        self.feature = Feature(
            name="RFC 6121 roster",
            on_start=self._rosters.start,
            account_iq={("get", ns.ROSTER, "query"): self._get, ("set", ns.ROSTER, "query"): self._set},
            stream_features=(Element("ver", ns.ROSTER_VERSIONING), Element("sub", ns.PRE_APPROVAL)),
        )

    async def _get(self, iq: Iq) -> Payload:
        session = iq.owner
        roster = await self._rosters.get(session.bare)
        session.full_account.roster = roster
        self._pushes.begin(session)
        known = iq.payload.get("ver")
        if known is None:
            return (Element("query", ns.ROSTER, {}, tuple(item_element(item) for item in roster.items())),)
        if known == roster.version:
            return ()
        items = tuple(item_element(item) for item in roster.items())
        return (Element("query", ns.ROSTER, {"ver": roster.version}, items),)

    async def _set(self, iq: Iq) -> Payload:
        session = iq.owner
        items = [child for child in iq.payload.elements() if (child.ns, child.name) == (ns.ROSTER, "item")]
        if len(items) != 1:
            raise StanzaError("bad-request", "a roster set has exactly one item")
        contact = _contact(items[0], session)
        roster = await self._rosters.get(session.bare)
        if items[0].get("subscription") == "remove":
            await self._remove(roster, contact)
            return ()
        name, groups = _name(items[0]), _groups(items[0])
        async with roster.lock:
            if contact not in roster.stored and len(roster.stored) >= self._max_items(session.bare):
                raise StanzaError("resource-constraint", "the contact list is full")
            _, after = await self._rosters.change(
                roster, contact, lambda before: replace(before, name=name, groups=groups, listed=True)
            )
            self._pushes.push(roster, after)
        return ()

    async def _remove(self, roster: Roster, contact: str) -> None:
        async with roster.lock:
            item, _ = await self._rosters.change(roster, contact, _removed)
            self._pushes.push(roster, Item(contact))
        await self._after_removal(roster.owner, item)


def _removed(item: Item) -> Item:
    if not item.listed:
        raise StanzaError("item-not-found", "there is no such contact in the list")
    return Item(item.contact)


def _contact(item: Element, session: Session) -> str:
    try:
        jid = Jid.parse(item.get("jid") or "").bare
    except ProtocolError as error:
        raise StanzaError("jid-malformed" if item.get("jid") else "bad-request", error.message) from None
    if str(jid) == session.bare:
        raise StanzaError("not-allowed", "an account cannot be its own contact")
    return str(jid)


def _name(item: Element) -> str:
    name = item.get("name") or ""
    if len(name.encode()) > _MAX_NAME:
        raise StanzaError("not-acceptable", "the contact's name is too long")
    return name


def _groups(item: Element) -> tuple[str, ...]:
    groups = [child.text for child in item.elements() if (child.ns, child.name) == (ns.ROSTER, "group")]
    if len(set(groups)) != len(groups):
        raise StanzaError("bad-request", "a contact is in a group only once")
    if len(groups) > _MAX_GROUPS or any(not group or len(group.encode()) > _MAX_NAME for group in groups):
        raise StanzaError("not-acceptable", "a group's name is empty or too long, or there are too many groups")
    return tuple(sorted(groups))
