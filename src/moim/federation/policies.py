"""What is exchanged with which domain, and what its streams have to fulfil: the settings, and what admins set on top.

Changes are on disk before they count, and count for the next stream; who changes a policy ends the domain's streams.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import sqlalchemy as sa

from moim.errors import NotFound, UsageError
from moim.federation import tables
from moim.federation.settings import Settings, impossible, pattern
from moim.model import domain_name
from moim.proto.xmpp.s2s import Keys, Rules, Use
from moim.store import Store

Access = Literal["allow", "deny"]

PROBER = "federation-check.invalid"
"""Who opens streams to this site when it checks itself: a name that nobody can have (RFC 2606). It proves nothing."""

_MAX_POLICIES = 10_000
_SECRET = "dialback"  # noqa: S105 - its name


@dataclass(frozen=True, slots=True)
class Override:
    """What is set for one domain; None leaves a value to the settings."""

    access: Access | None = None
    tls: Use | None = None
    certificates: Use | None = None
    dialback: bool | None = None
    server_auth_only: bool | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Override:
        """From JSON. Raises UsageError naming the key that cannot be."""
        allowed: dict[str, tuple[Any, ...]] = {
            "access": get_args(Access),
            "tls": get_args(Use),
            "certificates": get_args(Use),
            "dialback": (True, False),
            "server_auth_only": (True, False),
        }
        if unknown := sorted(given.keys() - allowed.keys()):
            raise UsageError(f"a policy has no '{unknown[0]}'", hint=f"it has {', '.join(allowed)}")
        for key, value in given.items():
            if value is not None and not any(value is one or value == one for one in allowed[key]):
                words = ", ".join(str(one).lower() for one in allowed[key])
                raise UsageError(f"'{key}' cannot be '{value}'", hint=f"it is one of {words}")
        return cls(**given)

    def as_json(self) -> dict[str, Any]:
        """The keys that are set."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Policy:
    """What counts for one domain. ``refusal`` is a sentence when nothing is exchanged with it."""

    tls: Use
    certificates: Use
    dialback: bool
    server_auth_only: bool
    refusal: str = ""

    @property
    def rules(self) -> Rules:
        """The same for a stream's machine."""
        return Rules(self.tls, self.certificates, self.dialback, self.refusal)

    def as_json(self) -> dict[str, Any]:
        """For the admin API."""
        return asdict(self) | {"access": "deny" if self.refusal else "allow"}


class Policies:
    """Every policy of the site. Call ``load`` before anything else."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._overrides: dict[str, Override] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> set[str]:
        """Reads what is set for single domains: those for which it is not what it was. Raises Unavailable."""
        names = [field.name for field in fields(Override)]
        async with self._changing:
            rows = await self._store.read(lambda connection: connection.execute(sa.select(tables.policies)).all())
            before = self._overrides
            self._overrides = {row.domain: Override(*(getattr(row, name) for name in names)) for row in rows}
        return {domain for domain, _ in before.items() ^ self._overrides.items()}

    async def keys(self) -> Keys:
        """Dialback's keys, from a secret that all nodes of the site share."""
        table = tables.secrets

        def work(connection: sa.Connection) -> bytes:
            found = connection.scalar(sa.select(table.c.value).where(table.c.name == _SECRET))
            if found is None:
                found = secrets.token_bytes(32)
                connection.execute(sa.insert(table).values(name=_SECRET, value=found))
            return bytes(found)

        return Keys(await self._store.write(work))

    def of(self, domain: str) -> Policy:
        """What counts for a domain, in any form of it; the general rules for an empty one."""
        s = self._settings
        general = Policy(s.tls, s.certificates, s.dialback, s.server_auth_only)
        if not domain:
            return general
        try:
            name = domain_name(domain.strip("[]"))
        except UsageError:
            return replace(general, refusal=f"'{domain}' is no domain of the DNS")
        if name == PROBER:
            return replace(general, certificates="off", dialback=False)
        override = self._override(name)
        found = replace(general, refusal=self._refusal(name, override.access if override is not None else None))
        if override is None:
            return found
        set_here = {key: value for key, value in override.as_json().items() if key != "access"}
        return replace(found, **set_here)

    def _override(self, name: str) -> Override | None:
        if (exact := self._overrides.get(name)) is not None:
            return exact
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            if (above := self._overrides.get(f"*.{rest}")) is not None:
                return above
        return None

    def _refusal(self, name: str, access: Access | None) -> str:
        if access == "allow":
            return ""
        if access == "deny" or _listed(name, self._settings.deny):
            return f"this site exchanges nothing with {name}"
        if self._settings.mode == "allow-list" and not _listed(name, self._settings.allow):
            return f"{name} is not on this site's list of domains"
        return ""

    def overrides(self) -> Mapping[str, Override]:
        """What is set for single domains."""
        return dict(sorted(self._overrides.items()))

    async def put(self, domain: str, override: Override) -> str:
        """Sets a domain's policy; gives the domain's canonical form. Raises UsageError when it cannot be fulfilled."""
        name = pattern(domain)
        s = self._settings
        problem = impossible(
            override.tls or s.tls,
            override.certificates or s.certificates,
            s.dialback if override.dialback is None else override.dialback,
        )
        if problem is not None:
            raise UsageError(problem)
        if name not in self._overrides and len(self._overrides) >= _MAX_POLICIES:
            raise UsageError(f"there are {_MAX_POLICIES} policies already", hint="use *. for whole domains")
        table, values = tables.policies, asdict(override) | {"changed_at": int(time.time())}

        def work(connection: sa.Connection) -> None:
            changed = connection.execute(sa.update(table).where(table.c.domain == name).values(**values))
            if changed.rowcount == 0:
                connection.execute(sa.insert(table).values(domain=name, **values))

        async with self._changing:
            await self._store.write(work)
            self._overrides[name] = override
        return name

    async def delete(self, domain: str) -> str:
        """Leaves a domain to the settings again; gives its canonical form. Raises NotFound."""
        name = pattern(domain)
        if name not in self._overrides:
            raise NotFound(f"nothing is set for {name}")
        gone = sa.delete(tables.policies).where(tables.policies.c.domain == name)
        async with self._changing:
            await self._store.write(lambda connection: connection.execute(gone) and None)
            self._overrides.pop(name, None)
        return name


def _listed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name == one or (one.startswith("*.") and name.endswith(one[1:])) for one in patterns)
