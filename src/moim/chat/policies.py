"""What counts for a person: by their own policy, else their department's, else as their domain or the site has it.

Policies are named in the settings; the directory knows who has which. What follows for everybody who has one is in
memory, so that each part asks at the moment when it matters, and a change counts from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from moim.chat.hosts import Hosts
from moim.chat.settings import PersonSettings, Settings, department_key
from moim.chat.users import Users
from moim.errors import ProtocolError
from moim.model import Address
from moim.proto.xmpp import Jid, prepare_domain, prepare_local

_AT_ONCE: Final = 500
"""People who are looked at before others have their turn: some milliseconds."""

_log = logging.getLogger("moim.chat.policies")


@dataclass(frozen=True, slots=True)
class Given:
    """A person's policy, empty for none, and whether it is theirs or their department's.

    ``missing`` is one that the directory names and the settings do not have: it says nothing.
    """

    name: str = ""
    by: Literal["", "person", "department"] = ""
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """A value that counts for a person. ``source``: ``policy sales``, ``domain x.test``, ``site`` or ``default``."""

    key: str
    value: Any
    source: str


class Policies:
    """The policies of ``settings``, and who has them. ``users`` is the directory."""

    def __init__(self, users: Users, hosts: Hosts, settings: Settings) -> None:
        self._users = users
        self._hosts = hosts
        self._site = settings
        self.named = settings.policies
        """What each policy says."""
        self._departments = {
            department_key(department): name
            for name, policy in settings.policies.items()
            for department in policy.departments
        }
        self._resolved: dict[tuple[str, str], Settings] = {}
        self._given: dict[str, Settings] = {}
        self._changing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._touched: set[str] | None = None

    def of(self, address: str) -> Settings:
        """What counts for a bare JID, or in a domain; either is of this site."""
        return self._given.get(address) or self._hosts.settings(address)

    def __iter__(self) -> Iterator[str]:
        """The bare JIDs of everybody with a policy."""
        return iter(tuple(self._given))

    def any(self, wanted: Callable[[PersonSettings], bool]) -> bool:
        """Whether something is wanted anywhere: in a domain, or by a policy in one."""
        for domain, host in self._hosts.items():
            if wanted(host.settings) or any(wanted(self.resolved(domain, name)) for name in self.named):
                return True
        return False

    def resolved(self, domain: str, policy: str) -> Settings:
        """What a policy makes of a domain's settings."""
        found = self._resolved.get((domain, policy))
        if found is None:
            own = self.named[policy]
            update = {key: getattr(own, key) for key in own.model_fields_set if key in PersonSettings.model_fields}
            found = self._resolved[domain, policy] = self._hosts[domain].settings.model_copy(update=update)
        return found

    def which(self, policy: str, department: str) -> Given:
        """The policy of somebody for whom the directory has these, either empty."""
        if policy in self.named:
            return Given(policy, "person")
        by_department = self._departments.get(department_key(department)) if department else None
        if by_department is not None:
            return Given(by_department, "department", policy)
        return Given(missing=policy)

    def limits(self, domain: str, policy: str) -> list[Limit]:
        """Everything that counts for somebody of a domain with a policy, or with none, and where it is from."""
        found = []
        own = self.named[policy].model_fields_set if policy else frozenset[str]()
        settings = self.resolved(domain, policy) if policy else self._hosts[domain].settings
        for key in PersonSettings.model_fields:
            if key in own:
                source = f"policy {policy}"
            elif key in self._hosts[domain].own:
                source = f"domain {domain}"
            else:
                source = "site" if key in self._site.model_fields_set else "default"
            found.append(Limit(key, getattr(settings, key), source))
        return found

    async def load(self) -> frozenset[str]:
        """Reads who has a policy: the bare JIDs for whom something else counts now. Raises Unavailable."""
        async with self._reading:
            return await self._load()

    async def _load(self) -> frozenset[str]:
        touched = self._touched = set()
        found: dict[str, Settings] = {}
        missing: Counter[str] = Counter()
        rows = await self._users.policies(departments=bool(self._departments))
        for number, (address, policy, department) in enumerate(rows, 1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # others have their turn
            given = self.which(policy, department)
            if given.name and (bare := bare_jid(address)) is not None and bare.rpartition("@")[2] in self._hosts:
                found[bare] = self.resolved(bare.rpartition("@")[2], given.name)
            if given.missing:
                missing[given.missing] += 1
        self._touched = None
        for bare in touched:  # changed while everybody was read: known better already
            found.pop(bare, None)
            if bare in self._given:
                found[bare] = self._given[bare]
        before, self._given = self._given, found
        for name, people in missing.items():
            _log.warning(
                "%d people have the policy '%s', which moim.toml does not have: what their domain has counts for them",
                people,
                name,
            )
        return frozenset(bare for bare in before.keys() | found.keys() if before.get(bare) is not found.get(bare))

    async def changed(self, bare: str) -> bool:
        """The directory told that a person has changed: whether something else counts for them. Raises Unavailable."""
        if not self.named:
            return False
        async with self._changing:  # of two changes the later one is read last
            profile = await self._users.profile(bare)
            given = self.which(profile.policy, profile.department) if profile is not None else Given()
            before = self._given.pop(bare, None)
            if given.name:
                self._given[bare] = self.resolved(bare.rpartition("@")[2], given.name)
            self._touch(bare)
        if self._given.get(bare) is before:
            return False
        _log.info("%s has %s from now on", bare, f"the policy '{given.name}'" if given.name else "no policy")
        return True

    def removed(self, bare: str) -> None:
        """Forgets an account that is gone."""
        self._given.pop(bare, None)
        self._touch(bare)

    def _touch(self, bare: str) -> None:
        if self._touched is not None:
            self._touched.add(bare)


def bare_jid(address: Address) -> str | None:
    """The bare JID of an address of the directory; None for one that cannot be used in chat."""
    text = str(address)
    if text.isascii() and text == text.lower() and "xn--" not in address.domain:
        return text  # the directory has prepared it
    try:
        return str(Jid(prepare_local(address.local), prepare_domain(address.domain)))
    except ProtocolError:
        return None
