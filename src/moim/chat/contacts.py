"""The people of the domain as the chat room sees them, and the contacts that everybody has without adding them.

In a domain up to the limit, everybody is a contact of everybody, subscribed both ways, as items derived from the
directory. Nothing is stored for them: the first change that one side makes stores an item, which then counts instead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moim.chat.users import Users
from moim.errors import ProtocolError
from moim.proto.xmpp import Jid, prepare_local

_log = logging.getLogger("moim.chat.contacts")


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the directory found: bare JIDs that are new or have a new name, and those that are gone."""

    shown: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


class People:
    """The accounts of the domain by bare JID, with their names while there are default contacts."""

    def __init__(self, users: Users, domain: str, *, default_contacts: bool, limit: int, max_age: float) -> None:
        self._users = users
        self._domain = domain
        self._wanted = default_contacts
        self._limit = limit
        self._max_age = max_age
        self._names: dict[str, str] = {}
        self._looked_at: float | None = None
        self._warned = False
        self.generation = 0
        """Rises whenever the default contacts of anybody may have changed."""

    @property
    def active(self) -> bool:
        """Whether there are default contacts: they are wanted, and the domain is small enough."""
        return self._wanted and len(self._names) <= self._limit

    def default_contacts(self, owner: str) -> Mapping[str, str]:
        """Names by bare JID of everybody whom ``owner`` has as a contact by default; may include the owner."""
        return MappingProxyType(self._names) if self.active and owner in self._names else MappingProxyType({})

    def is_default_contact(self, owner: str, contact: str) -> bool:
        """Whether ``owner`` has ``contact`` without having added it."""
        return owner != contact and self.active and owner in self._names and contact in self._names

    def name(self, bare: str) -> str:
        """The name that the directory gives, empty when none is known."""
        return self._names.get(bare, "")

    def __contains__(self, bare: object) -> bool:
        return bare in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._names))

    async def exists(self, jid: Jid) -> bool:
        """Whether the bare JID is an account, also one that the directory got a moment ago."""
        if str(jid) in self._names:
            return True
        return jid.domain == self._domain and await self._users.profile(jid.local) is not None

    def fresh(self, now: float) -> bool:
        """Whether the last look at the directory is recent enough."""
        return self._looked_at is not None and now - self._looked_at < self._max_age

    async def refresh(self, now: float) -> Changes:
        """Looks at the directory again when the last look is too old."""
        if self.fresh(now):
            return Changes()
        self._looked_at = now
        listed: set[str] = set()
        for address in await self._users.addresses():
            try:
                listed.add(str(Jid(prepare_local(address.local), self._domain)))
            except ProtocolError:
                _log.warning("%s cannot use chat: its name part is not possible in an XMPP address", address)
        gone = frozenset(self._names.keys() - listed)
        new = listed - self._names.keys()
        for bare in new:
            self._names[bare] = ""
        if self.active:
            for bare in new:
                self._names[bare] = await self._look_up(bare)
        self._changed(bool(new))
        return Changes(frozenset(new), gone)

    async def changed(self, bare: str) -> Changes:
        """The directory told that an account is new or has changed."""
        new = bare not in self._names
        before = self._names.setdefault(bare, "")
        if not self.active:
            self._changed(new)
            return Changes()
        name = await self._look_up(bare)
        self._names[bare] = name
        self._changed(new or name != before)
        return Changes(frozenset((bare,))) if new or name != before else Changes()

    def removed(self, bare: str) -> None:
        """Forgets an account that is gone."""
        self._changed(self._names.pop(bare, None) is not None)

    async def _look_up(self, bare: str) -> str:
        profile = await self._users.profile(bare.partition("@")[0])
        return profile.display_name if profile is not None else ""

    def _changed(self, changed: bool) -> None:
        if changed:
            self.generation += 1
        if self._wanted and not self.active and not self._warned:
            self._warned = True
            _log.warning(
                "the domain has more than %d users, so it has no default contacts: people add whom they need",
                self._limit,
            )
        elif self.active:
            self._warned = False
