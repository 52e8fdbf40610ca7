"""XEP-0191 blocking command: people decide from whom they hear nothing, and who hears nothing of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, Protocol

from moim.chat.accounts import Accounts, Session
from moim.chat.block_lists import BlockLists
from moim.chat.feature import Feature, Iq, Luggage, Payload
from moim.chat.locks import Locks
from moim.chat.plane import Plane
from moim.chat.spam_reports import SpamReports, read
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, iq_set, ns

_MOST_NAMED: Final = 10_000


class Visibility(Protocol):
    """How presence follows a change of a list."""

    def hide(self, owner: str, addresses: frozenset[str]) -> None:
        """Those who match an address see the account's sessions leave."""
        ...

    def unhide(self, owner: str, addresses: frozenset[str]) -> None:
        """Those who match an address, and the account, see again what they may see of each other."""
        ...


def blocked_error() -> StanzaError:
    """The answer to a stanza for somebody whom its sender blocks (XEP-0191 section 3.3)."""
    return StanzaError(
        "not-acceptable", "you block this address", kind="cancel", application=Element("blocked", ns.BLOCKING_ERRORS)
    )


class Blocking:
    """Answers ``urn:xmpp:blocking`` for an account's own sessions, and tells those that asked of every change."""

    def __init__(
        self,
        lists: BlockLists,
        *,
        accounts: Accounts,
        plane: Plane,
        visibility: Visibility,
        reports: SpamReports,
        max_items: Callable[[str], int],
    ) -> None:
        self._lists = lists
        self._accounts = accounts
        self._plane = plane
        self._visibility = visibility
        self._reports = reports
        self._max_items = max_items
        self._interested: set[Session] = set()
        self._locks = Locks()
        self._numbers = itertools.count(1)
        self.feature = Feature(
            name="XEP-0191 blocking",
            server_vars=(ns.BLOCKING,),
            account_vars=(ns.BLOCKING,),
            account_iq={
                ("get", ns.BLOCKING, "blocklist"): self._get,
                ("set", ns.BLOCKING, "block"): self._block,
                ("set", ns.BLOCKING, "unblock"): self._unblock,
            },
            on_start=lists.load,
            on_bind=self._bound,
            on_gone=self._interested.discard,
            luggage=Luggage(lambda session: session in self._interested or None, self._unpack),
            on_account_removed=lists.drop,
        )

    def _bound(self, session: Session) -> None:
        if self._lists.of(session.bare):
            self._plane.tap(session.sid, True, "blocking")

    def _unpack(self, session: Session, _: object) -> None:
        self._interested.add(session)

    def _get(self, iq: Iq) -> Payload:
        session = iq.owner
        self._interested.add(session)
        return (Element("blocklist", ns.BLOCKING, {}, _items(self._lists.of(session.bare))),)

    async def _block(self, iq: Iq) -> Payload:
        owner = iq.owner.bare
        most = self._max_items(owner)
        named = _addresses(iq.payload, most)
        if not named:
            raise StanzaError("bad-request", "a block request names at least one address")
        reports = read(iq.payload)
        async with self._locks.of(owner):
            added = named - self._lists.of(owner)
            if len(self._lists.of(owner)) + len(added) > most:
                raise StanzaError("resource-constraint", f"an account may block {most} addresses")
            await self._lists.write(owner, add=added)
            self._tap(owner, True)
            self._visibility.hide(owner, added)
            self._lists.apply(owner, add=added)
            self._push(owner, "block", named)
        self._reports.take(iq.sender, reports)
        return ()

    async def _unblock(self, iq: Iq) -> Payload:
        owner = iq.owner.bare
        named = _addresses(iq.payload, _MOST_NAMED)
        async with self._locks.of(owner):
            taken = self._lists.of(owner) & named if named else self._lists.of(owner)
            await self._lists.write(owner, take=taken)
            self._lists.apply(owner, take=taken)
            if not self._lists.of(owner):
                self._tap(owner, False)
            self._push(owner, "unblock", named)
            self._visibility.unhide(owner, taken)
        return ()

    async def reload(self, owner: str) -> None:
        """Another node wrote the list, and showed or hid what follows: it counts here too. Raises Unavailable."""
        async with self._locks.of(owner):
            after, before = await self._lists.read(owner), self._lists.of(owner)
            self._tap(owner, bool(after))
            self._lists.apply(owner, add=after - before, take=before - after)
            if after - before:
                self._push(owner, "block", after - before)
            if before - after:
                self._push(owner, "unblock", before - after)

    def _tap(self, owner: str, on: bool) -> None:
        account = self._accounts.get(owner)
        for session in account.sessions.values() if account is not None else ():
            self._plane.tap(session.sid, on, "blocking")

    def _push(self, owner: str, name: str, addresses: frozenset[str]) -> None:
        account = self._accounts.get(owner)
        if account is None:
            return
        change = Element(name, ns.BLOCKING, {}, _items(addresses))
        sessions = [session for session in account.sessions.values() if session in self._interested]
        self._plane.send_many([(s.sid, iq_set(f"block-{next(self._numbers)}", str(s.full), change)) for s in sessions])


def _items(addresses: frozenset[str]) -> tuple[Element, ...]:
    return tuple(Element("item", ns.BLOCKING, {"jid": address}) for address in sorted(addresses))


def _addresses(payload: Element, most: int) -> frozenset[str]:
    items = [child for child in payload.elements() if (child.ns, child.name) == (ns.BLOCKING, "item")]
    if len(items) > most:
        raise StanzaError("resource-constraint", f"an account may block {most} addresses")
    try:
        return frozenset(str(Jid.parse(item.get("jid") or "")) for item in items)
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None
