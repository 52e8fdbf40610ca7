"""The people of each domain as the chat room sees them, and the contacts that everybody has without adding them.

In a domain up to the limit, everybody is a contact of everybody in it, subscribed both ways, as items derived from the
directory. Nothing is stored for them: the first change that one side makes stores an item, which then counts instead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from moim.chat.hosts import Hosts
from moim.chat.users import Users
from moim.errors import ProtocolError
from moim.proto.xmpp import Jid, prepare_domain, prepare_local

_log = logging.getLogger("moim.chat.contacts")


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the directory found: bare JIDs that are new or have a new name, and those that are gone."""

    shown: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Domain:
    """The people of one domain: names by bare JID."""

    wanted: bool
    limit: int
    names: dict[str, str] = field(default_factory=dict)
    warned: bool = False

    @property
    def active(self) -> bool:
        """Whether there are default contacts: they are wanted, and the domain is small enough."""
        return self.wanted and len(self.names) <= self.limit


_NOBODY: Mapping[str, str] = MappingProxyType({})


class People:
    """The accounts of the hosted domains by bare JID, with their names while there are default contacts."""

    def __init__(self, users: Users, hosts: Hosts, *, max_age: float) -> None:
        self._users = users
        self._domains = {
            name: _Domain(host.settings.default_contacts, host.settings.default_contacts_limit)
            for name, host in hosts.items()
        }
        self._max_age = max_age
        self._looked_at: float | None = None
        self.generation = 0
        """Rises whenever the default contacts of anybody may have changed."""

    def default_contacts(self, owner: str) -> Mapping[str, str]:
        """Names by bare JID of everybody whom ``owner`` has as a contact by default; may include the owner."""
        domain = self._of(owner)
        return MappingProxyType(domain.names) if domain is not None and domain.active else _NOBODY

    def is_default_contact(self, owner: str, contact: str) -> bool:
        """Whether ``owner`` has ``contact`` without having added it."""
        domain = self._of(owner)
        return owner != contact and domain is not None and domain.active and contact in domain.names

    def name(self, bare: str) -> str:
        """The name that the directory gives, empty when none is known."""
        domain = self._of(bare)
        return domain.names[bare] if domain is not None else ""

    def _of(self, bare: object) -> _Domain | None:
        """The domain of a known account."""
        domain = self._domains.get(bare.rpartition("@")[2]) if isinstance(bare, str) else None
        return domain if domain is not None and bare in domain.names else None

    def __contains__(self, bare: object) -> bool:
        return self._of(bare) is not None

    def __iter__(self) -> Iterator[str]:
        return iter([bare for domain in self._domains.values() for bare in domain.names])

    async def exists(self, jid: Jid) -> bool:
        """Whether the bare JID is an account, also one that the directory got a moment ago."""
        bare = str(jid)
        return bare in self or (jid.domain in self._domains and await self._users.profile(bare) is not None)

    def fresh(self, now: float) -> bool:
        """Whether the last look at the directory is recent enough."""
        return self._looked_at is not None and now - self._looked_at < self._max_age

    async def refresh(self, now: float) -> Changes:
        """Looks at the directory again when the last look is too old."""
        if self.fresh(now):
            return Changes()
        self._looked_at = now
        listed: dict[str, set[str]] = {name: set() for name in self._domains}
        prepared: dict[str, str] = {}
        for address in await self._users.addresses():
            try:
                domain = prepared.get(address.domain) or prepared.setdefault(
                    address.domain, prepare_domain(address.domain)
                )
                if domain in listed:
                    listed[domain].add(str(Jid(prepare_local(address.local), domain)))
            except ProtocolError:
                _log.warning("%s cannot use chat: its name part is not possible in an XMPP address", address)
        shown: set[str] = set()
        gone: set[str] = set()
        for name, domain_of in self._domains.items():
            gone |= domain_of.names.keys() - listed[name]
            new = listed[name] - domain_of.names.keys()
            shown |= new
            for bare in new:
                domain_of.names[bare] = ""
            if domain_of.active:
                for bare in new:
                    domain_of.names[bare] = await self._look_up(bare)
            self._changed(name, bool(new))
        return Changes(frozenset(shown), frozenset(gone))

    async def changed(self, bare: str) -> Changes:
        """The directory told that an account is new or has changed."""
        domain = bare.rpartition("@")[2]
        known = self._domains[domain]
        new = bare not in known.names
        before = known.names.setdefault(bare, "")
        if not known.active:
            self._changed(domain, new)
            return Changes()
        name = await self._look_up(bare)
        known.names[bare] = name
        self._changed(domain, new or name != before)
        return Changes(frozenset((bare,))) if new or name != before else Changes()

    def removed(self, bare: str) -> None:
        """Forgets an account that is gone."""
        domain = bare.rpartition("@")[2]
        if (known := self._domains.get(domain)) is not None:
            self._changed(domain, known.names.pop(bare, None) is not None)

    async def _look_up(self, bare: str) -> str:
        profile = await self._users.profile(bare)
        return profile.display_name if profile is not None else ""

    def _changed(self, name: str, changed: bool) -> None:
        domain = self._domains[name]
        if changed:
            self.generation += 1
        if domain.wanted and not domain.active and not domain.warned:
            domain.warned = True
            _log.warning(
                "%s has more than %d users, so it has no default contacts: people add whom they need",
                name,
                domain.limit,
            )
        elif domain.active:
            domain.warned = False
