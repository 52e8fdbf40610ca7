"""Who is there (RFC 6121 section 4): initial presence, broadcast, probes, directed presence, and the end of it all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence

from moim.chat.accounts import Account, Accounts, Session
from moim.chat.block_lists import BlockLists, matches
from moim.chat.feature import Feature, hooks
from moim.chat.plane import Plane
from moim.chat.rosters import Rosters
from moim.chat.subscribing import waiting_requests
from moim.proto.xmpp import Element, Jid, StanzaError, presence, priority_of

Batch = list[tuple[int, Element]]


class Presence:
    """Keeps what every session shows, and who is shown it."""

    def __init__(
        self,
        domains: Container[str],
        *,
        accounts: Accounts,
        plane: Plane,
        rosters: Rosters,
        block_lists: BlockLists,
        features: Sequence[Feature],
        remote: Callable[[Element], None],
        max_directed: int,
    ) -> None:
        self._domains = domains
        self._accounts = accounts
        self._plane = plane
        self._rosters = rosters
        self._block_lists = block_lists
        self._remote = remote
        self._max_directed = max_directed
        self._before_available = hooks(features, lambda feature: feature.before_available)
        self._on_presence = hooks(features, lambda feature: feature.on_presence)
        self._on_available = hooks(features, lambda feature: feature.on_available)
        self._on_unavailable = hooks(features, lambda feature: feature.on_unavailable)

    def broadcast(self, session: Session, stanza: Element) -> Awaitable[None] | None:
        """A session's presence without ``to``. Raises StanzaError for a priority that is none.

        What has to be waited for is awaitable; usually there is nothing.
        """
        if stanza.get("type") == "unavailable":
            shown = session.presence is not None
            self._leave(session, stanza)
            if shown:  # who leaves hears it, too (RFC 6121 section 4.5.2)
                self._plane.send(session.sid, [stanza.with_attrs({"to": str(session.full)})])
            return None
        priority, account = priority_of(stanza), session.full_account
        account.roster = account.roster or self._rosters.at_hand(account.bare)
        waiting = [work for before in self._before_available if (work := before(session, priority)) is not None]
        if waiting or account.roster is None:
            return self._show_later(session, stanza, priority, waiting)
        return self._show(session, stanza, priority)

    async def _show_later(
        self, session: Session, stanza: Element, priority: int, waiting: Sequence[Awaitable[None]]
    ) -> None:
        account = session.full_account
        for work in waiting:
            await work
        account.roster = account.roster or await self._rosters.get(account.bare)
        if not session.gone and (after := self._show(session, stanza, priority)) is not None:
            await after

    def _show(self, session: Session, stanza: Element, priority: int) -> Awaitable[None] | None:
        account = session.full_account
        initial = session.presence is None
        stanza = self._dressed(session, stanza)
        session.presence = stanza
        session.priority = priority
        self._plane.presence(session.sid, priority)
        self._accounts.changed(session)
        self._spread(account, stanza)
        if initial:
            self._introduce(session)
        works = [work for after in self._on_available if (work := after(session, initial)) is not None]
        return _each(works) if works else None

    def _dressed(self, session: Session, stanza: Element) -> Element:
        for dress in self._on_presence:
            stanza = dress(session, stanza)
        return stanza

    def refresh(self, owner: str) -> None:
        """Shows the sessions of an account again: what a feature adds to their presence has changed."""
        account = self._accounts.get(owner)
        for session in tuple(account.available()) if account is not None else ():
            if account is None or session.presence is None or session.node:
                continue  # other nodes dress their own
            stanza = session.presence = self._dressed(session, session.presence)
            self._accounts.changed(session)
            self._spread(account, stanza)

    def _introduce(self, session: Session) -> None:
        """What a session learns when it becomes available: its own others, its contacts, and who asked meanwhile."""
        account = session.full_account
        batch: Batch = [
            (session.sid, other.presence.with_attrs({"to": str(session.full)}))
            for other in account.available()
            if other is not session and other.presence is not None
        ]
        roster = account.roster
        if roster is not None:
            for contact in roster.watched():
                if self._block_lists.blocks(account.bare, Jid.parse(contact)):
                    continue
                if self._is_local(contact):
                    batch.extend((session.sid, shown) for shown in self.shown_by(contact, to=session.full))
                else:
                    self._remote(presence(account.bare, contact, "probe"))
            batch.extend((session.sid, request) for request in waiting_requests(roster))
        self._plane.send_many(batch)

    def shown_by(self, contact: str, *, to: Jid) -> list[Element]:
        """The presence of a local contact's sessions, as far as ``to`` may see it (RFC 6121 section 4.3.2)."""
        account = self._accounts.get(contact)
        if account is None or account.roster is None or not account.roster.item(str(to.bare)).state.seen:
            return []
        return [
            session.presence.with_attrs({"to": str(to)})
            for session in account.available()
            if session.presence is not None and not self._block_lists.parted(session.full, to)
        ]

    def directed(self, session: Session, stanza: Element, to: Jid) -> None:
        """Presence to one address, available or not. Raises StanzaError when too many are shown it already."""
        target = str(to)
        account = session.full_account
        if stanza.get("type") is None:
            stanza = self._dressed(session, stanza)
        if stanza.get("type") == "unavailable":
            session.directed.pop(target, None)
        elif session.presence is None or not self._sees_anyway(account, to):
            if target not in session.directed and len(session.directed) >= self._max_directed:
                raise StanzaError("policy-violation", "directed presence is shown to too many addresses", kind="wait")
            session.directed[target] = None
        self.deliver(stanza.with_attrs({"to": target}), to)

    def probe(self, session: Session, to: Jid) -> None:
        """A client asks for a contact's presence again; it hears what it may see."""
        if self._is_local(str(to)):
            shown = self.shown_by(str(to.bare), to=session.full)
            self._plane.send_many([(session.sid, stanza) for stanza in shown])

    async def probed(self, sender: Jid, owner: Jid, *, exists: bool) -> None:
        """Another domain asks for the presence of an account (RFC 6121 section 4.3.2).

        Who may not see it hears the same whether the account is there or not; who is blocked sees it as not there.
        """
        bare, asker = str(owner), str(sender.bare)
        roster = await self._rosters.get(bare) if exists else None
        if roster is None or not roster.item(asker).state.seen:
            self._remote(presence(bare, asker, "unsubscribed"))
            return
        shown = [
            session.presence.with_attrs({"to": asker})
            for session in self._accounts.available(bare)
            if session.presence is not None and not self._block_lists.parted(session.full, sender)
        ]
        for stanza in shown or [presence(bare, asker, "unavailable")]:
            self._remote(stanza)

    def hide(self, owner: str, addresses: frozenset[str]) -> None:
        """Those whom the owner is about to block see its sessions leave, as far as they saw them."""
        account = self._accounts.get(owner)
        if account is None:
            return
        subscribers = set(account.roster.subscribers()) if account.roster is not None else set()
        for session in tuple(account.available()):
            for target in subscribers | session.directed.keys():
                if matches(addresses, Jid.parse(target)):
                    session.directed.pop(target, None)
                    self.deliver(presence(str(session.full), target, "unavailable"), Jid.parse(target))

    def unhide(self, owner: str, addresses: frozenset[str]) -> None:
        """Those whom the owner blocks no more, and the owner, see what their subscriptions show."""
        account = self._accounts.get(owner)
        if account is None or account.roster is None:
            return
        subscribers = [contact for contact in account.roster.subscribers() if matches(addresses, Jid.parse(contact))]
        watched = [contact for contact in account.roster.watched() if matches(addresses, Jid.parse(contact))]
        for session in tuple(account.available()):
            if session.presence is None:
                continue
            for contact in subscribers:
                self.deliver(session.presence.with_attrs({"to": contact}), Jid.parse(contact))
            for contact in watched:
                if self._is_local(contact):
                    self.probe(session, Jid.parse(contact))
                else:
                    self._remote(presence(account.bare, contact, "probe"))

    def gone(self, session: Session) -> None:
        """The connection ended without goodbye: everybody who saw the session hears that it is gone."""
        self._leave(session, presence(str(session.full), "", "unavailable").with_attrs({"to": None}))

    def _leave(self, session: Session, stanza: Element) -> None:
        account = session.full_account
        directed, session.directed = session.directed, {}
        was_available = session.presence is not None
        session.presence = None
        session.priority = 0
        self._plane.presence(session.sid, None)
        self._accounts.changed(session)
        if was_available:
            self._spread(account, stanza)
            for hook in self._on_unavailable:
                hook(session, stanza)
        for target in directed:
            to = Jid.parse(target)
            if not (was_available and self._sees_anyway(account, to)):
                self.deliver(stanza.with_attrs({"to": target}), to)

    def _spread(self, account: Account, stanza: Element) -> None:
        """What a session shows goes to all who see the account's presence, and to its own sessions that are there."""
        self._tell_subscribers(account, stanza)
        self._plane.send_many([(own.sid, stanza.with_attrs({"to": str(own.full)})) for own in account.available()])

    def _tell_subscribers(self, account: Account, stanza: Element) -> None:
        roster = account.roster
        if roster is None:
            return
        batch: Batch = []
        sender = Jid.parse(stanza.get("from") or account.bare)
        for contact in roster.subscribers():
            if not self._is_local(contact):
                if not self._block_lists.blocks(account.bare, Jid.parse(contact)):
                    self._remote(stanza.with_attrs({"to": contact}))
                continue
            shown: Element | None = None
            for session in self._accounts.available(contact):
                if self._block_lists.parted(sender, session.full):
                    continue
                shown = shown or stanza.with_attrs({"to": contact})
                batch.append((session.sid, shown))
        self._plane.send_many(batch)

    def _sees_anyway(self, account: Account, to: Jid) -> bool:
        return to.is_bare and account.roster is not None and account.roster.item(str(to)).state.seen

    def deliver(self, stanza: Element, to: Jid) -> None:
        """Presence to an account or a session, here or at another domain, unless one of the two blocks the other."""
        sender = Jid.parse(stanza.get("from") or to.domain)
        if self._block_lists.parted(sender, to):
            return
        if to.domain not in self._domains:
            self._remote(stanza)
        elif to.resource:
            session = self._accounts.session(to)
            if session is not None:
                self._plane.send(session.sid, [stanza])
        elif to.local:
            sessions = self._accounts.available(str(to))
            self._plane.send_many([(s.sid, stanza) for s in sessions if not self._block_lists.parted(sender, s.full)])

    def _is_local(self, contact: str) -> bool:
        return contact.rpartition("@")[2].partition("/")[0] in self._domains


async def _each(works: Sequence[Awaitable[None]]) -> None:
    for work in works:
        await work
