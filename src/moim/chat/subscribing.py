"""Asking to see somebody's presence, and the answers (RFC 6121 section 3): the table's transitions, carried out.

Each side of a subscription is worked on under its own roster's lock, never both at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from dataclasses import replace
from typing import cast

from moim.chat.accounts import Accounts
from moim.chat.block_lists import BlockLists
from moim.chat.contacts import People
from moim.chat.plane import Plane
from moim.chat.roster import RosterPushes
from moim.chat.rosters import Item, Roster, Rosters
from moim.chat.subscriptions import Action, inbound, outbound
from moim.proto.xmpp import Element, Jid, ns, presence

_REQUEST_BYTES = 4096


class Subscriptions:
    """Carries the four subscription stanzas between local rosters, and to and from other domains by ``remote``."""

    def __init__(
        self,
        domains: Container[str],
        *,
        accounts: Accounts,
        people: People,
        plane: Plane,
        rosters: Rosters,
        block_lists: BlockLists,
        pushes: RosterPushes,
        remote: Callable[[Element], None],
        max_items: Callable[[str], int],
    ) -> None:
        self._domains = domains
        self._accounts = accounts
        self._people = people
        self._plane = plane
        self._rosters = rosters
        self._block_lists = block_lists
        self._pushes = pushes
        self._remote = remote
        self._max_items = max_items
        self.on_seen: Callable[[str, str], Awaitable[None]] | None = None
        """Hears that an account (bare JID) is seen by a contact from now on."""

    async def sent(self, owner: str, contact: Jid, stanza: Element) -> None:
        """The owner of a local account sent a subscription stanza to ``contact``."""
        action = cast(Action, stanza.get("type"))
        bare = str(contact.bare)
        if bare == owner:
            return
        roster = await self._rosters.get(owner)

        def decide(before: Item) -> Item:
            state, routed = outbound(before.state, action)
            after = before.with_state(state)
            if action == "subscribe":
                after = replace(after, listed=True)
            elif action == "subscribed":
                # Without a request that waits, this approves one ahead of time (RFC 6121 section 3.4).
                ahead = not routed and (before.approved or not before.state.seen)
                after = replace(after, approved=ahead, listed=True)
            elif action == "unsubscribed":
                after = replace(after, approved=False)
            return after

        async with roster.lock:
            before, after = await self._rosters.change(roster, bare, decide)
            self._push(roster, before, after)
        _, routed = outbound(before.state, action)
        if not routed:
            return
        if action == "unsubscribed" and before.state.seen:
            self._show_unavailable(owner, bare)
        await self._route(stanza.with_attrs({"from": owner, "to": bare}), contact)
        if after.state.seen and not before.state.seen:
            await self._seen(owner, bare)

    async def received(self, owner: str, stanza: Element) -> None:
        """A subscription stanza for a local account arrived; ``from`` and ``to`` are bare."""
        action = cast(Action, stanza.get("type"))
        contact = stanza.get("from") or ""
        blocked = self._block_lists.blocks(owner, Jid.parse(contact))
        if blocked and action in ("subscribe", "subscribed"):
            return
        roster = await self._rosters.get(owner)
        answer: Action | None = None
        delivered = False

        def decide(before: Item) -> Item:
            nonlocal answer, delivered
            answer = None
            state, delivered = inbound(before.state, action)
            if action == "subscribe" and before.state.seen:
                answer = "subscribed"
            elif action == "subscribe" and before.approved and delivered:
                answer, delivered = "subscribed", False
                state, _ = outbound(state, "subscribed")
            elif action == "unsubscribe" and before.state.seen:
                answer = "unsubscribed"
            request = _request(stanza) if action == "subscribe" else None
            after = before.with_state(state, request)
            if answer == "subscribed":
                after = replace(after, approved=False)
            most = 2 * self._max_items(roster.owner)
            if after.request is not None and before.request is None and len(roster.stored) > most:
                answer, delivered = None, False
                return before
            return after

        async with roster.lock:
            before, after = await self._rosters.change(roster, contact, decide)
            if delivered and not blocked:
                # Before the push, which clients understand by it (RFC 6121 sections 3.1.6, 3.2.3 and 3.3.3).
                self._deliver(roster, stanza, to_available=action == "subscribe")
            self._push(roster, before, after)
        if answer == "subscribed":
            await self._route(presence(owner, contact, answer), Jid.parse(contact))
            await self._seen(owner, contact)
        elif answer == "unsubscribed":
            self._show_unavailable(owner, contact)
            if not self._is_local(Jid.parse(contact)):
                await self._route(presence(owner, contact, answer), Jid.parse(contact))

    async def after_removal(self, owner: str, item: Item) -> None:
        """The owner removed ``item`` from the list: both directions of the subscription end (RFC 6121 2.5)."""
        contact = Jid.parse(item.contact)
        if item.state.seen:
            self._show_unavailable(owner, item.contact)
        if item.state.seen or item.state.pending_in:
            await self._route(presence(owner, item.contact, "unsubscribed"), contact)
        if item.state.sees or item.state.pending_out:
            await self._route(presence(owner, item.contact, "unsubscribe"), contact)

    def _push(self, roster: Roster, before: Item, after: Item) -> None:
        if after.listed and replace(after, request=None) != replace(before, request=None):
            self._pushes.push(roster, after)

    async def _route(self, stanza: Element, contact: Jid) -> None:
        if self._is_local(contact):
            if await self._people.exists(contact.bare):
                await self.received(str(contact.bare), stanza)
        else:
            self._remote(stanza)

    def _is_local(self, contact: Jid) -> bool:
        return contact.domain in self._domains and bool(contact.local)

    def _deliver(self, roster: Roster, stanza: Element, *, to_available: bool) -> None:
        account = self._accounts.get(roster.owner)
        if account is None:
            return
        if to_available:
            sessions = list(account.available())
        else:
            sessions = [session for session in account.sessions.values() if session.interested]
        self._plane.send_many([(session.sid, stanza) for session in sessions])

    async def _seen(self, owner: str, contact: str) -> None:
        self._show(owner, contact)
        if self.on_seen is not None:
            await self.on_seen(owner, contact)

    def _show(self, owner: str, contact: str) -> None:
        """Shows the owner's present sessions to a contact that may see them from now on."""
        for session in self._accounts.available(owner):
            if session.presence is not None:
                session.directed.pop(contact, None)
                self._send_presence(session.presence.with_attrs({"to": contact}), contact)

    def _show_unavailable(self, owner: str, contact: str) -> None:
        for session in self._accounts.available(owner):
            self._send_presence(presence(str(session.full), contact, "unavailable"), contact)

    def _send_presence(self, stanza: Element, contact: str) -> None:
        sender = Jid.parse(stanza.get("from") or contact)
        if self._block_lists.parted(sender, Jid.parse(contact)):
            return
        if self._is_local(Jid.parse(contact)):
            self._plane.send_many([(session.sid, stanza) for session in self._accounts.available(contact)])
        else:
            self._remote(stanza)


def _request(stanza: Element) -> str:
    """What is kept of a request until the owner answers: all of it when small, else the bare request."""
    text = stanza.to_xml("")
    if len(text.encode()) > _REQUEST_BYTES:
        text = stanza.with_children(()).to_xml("")
    return text


def waiting_requests(roster: Roster) -> list[Element]:
    """The requests that wait for the owner, as they came."""
    found = []
    for item in roster.requests():
        if item.request:
            found.append(Element.parse(item.request))
        else:
            found.append(
                Element("presence", ns.CLIENT, {"from": item.contact, "to": roster.owner, "type": "subscribe"})
            )
    return found
