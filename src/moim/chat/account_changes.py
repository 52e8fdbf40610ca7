"""What follows when the directory changes: contacts that come and go, passwords that change, accounts that end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence

from moim.chat.accounts import Accounts, Session
from moim.chat.contacts import Changes, People
from moim.chat.fast import FastTokens
from moim.chat.feature import Feature, hooks
from moim.chat.policies import Policies
from moim.chat.registration import Registration
from moim.chat.roster import RosterPushes
from moim.chat.rosters import Item, Roster, Rosters
from moim.chat.sessions import Sessions
from moim.proto.xmpp import Element, stream_error

AccountGone = Callable[[str], Awaitable[None]]


class AccountChanges:
    """Ends sessions, tells rosters, and lets every part forget the accounts that are gone."""

    def __init__(
        self,
        *,
        accounts: Accounts,
        people: People,
        rosters: Rosters,
        pushes: RosterPushes,
        sessions: Sessions,
        tokens: FastTokens | None,
        registration: Registration | None,
        features: Sequence[Feature],
        policies: Policies,
        also: Sequence[AccountGone] = (),
    ) -> None:
        self._accounts = accounts
        self._people = people
        self._rosters = rosters
        self._pushes = pushes
        self._sessions = sessions
        self._tokens = tokens
        self._registration = registration
        self._policies = policies
        self._on_policy = hooks(features, lambda feature: feature.on_policy)
        self._gone = (*(feature.on_account_removed for feature in features if feature.on_account_removed), *also)

    def bound(self, session: Session) -> Awaitable[None] | None:
        """A session begins: the list of people is read anew where it is old, or does not know this one."""
        if self._people.fresh(time.monotonic()) and session.bare in self._people:
            return None
        return self._look_again(session)

    async def _look_again(self, session: Session) -> None:
        await self.tell(await self._people.refresh(time.monotonic()))
        if session.bare not in self._people:
            await self.tell(await self._people.changed(session.bare))

    async def tell(self, changes: Changes) -> None:
        """Shows everybody who is connected what changed among their default contacts."""
        for account in self._accounts:
            if account.roster is None:
                continue
            for bare in changes.shown:
                if bare not in account.roster.stored and (item := account.roster.item(bare)).listed:
                    self._pushes.push(account.roster, item)
        for bare in changes.gone:
            # Only the directory's own word deletes what is stored: a list may come up short for other reasons.
            self._forget(bare, [])

    async def look_at_policy(self, bare: str) -> None:
        """The directory told that an account has changed: another policy may count for it. Raises Unavailable."""
        if await self._policies.changed(bare):
            self._tell_of_policy(bare)

    async def look_at_policies(self) -> None:
        """The same for everybody, when changes may have been missed. Raises Unavailable."""
        for bare in await self._policies.load():
            self._tell_of_policy(bare)

    def _tell_of_policy(self, bare: str) -> None:
        for hook in self._on_policy:
            hook(bare)

    async def password_changed(self, bare: str) -> None:
        """The account has another password or may not sign in any more: its sessions end, and so do its tokens."""
        error = stream_error("not-authorized", "the password of the account was changed")
        self._sessions.end_account(bare, error, spare=self._changing())
        if self._tokens is not None:
            await self._tokens.revoke(bare)

    async def remove(self, bare: str) -> None:
        """The account is gone: its sessions end, and everything that was stored for it or about it goes."""
        losing = await self._rosters.drop(bare)
        self._forget(bare, losing)
        for gone in self._gone:
            await gone(bare)

    def _forget(self, bare: str, losing: list[Roster]) -> None:
        self._sessions.end_account(bare, account_removed(), spare=self._changing())
        for account in self._accounts:
            roster = account.roster
            if roster is not None and roster not in losing and roster.item(bare).listed and bare not in roster.stored:
                losing.append(roster)
        self._people.removed(bare)
        self._policies.removed(bare)
        for roster in losing:
            self._pushes.push(roster, Item(bare))

    def _changing(self) -> Collection[Session]:
        return self._registration.changing if self._registration is not None else ()


def account_removed() -> Element:
    """What a session is told when its account is gone."""
    return stream_error("not-authorized", "the account was removed")
