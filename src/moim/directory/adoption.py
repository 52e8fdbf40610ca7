"""Accounts that come from another server, with what it kept of their passwords, and accounts that go to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import sqlalchemy as sa

from moim.directory.passwords import Hasher, Verifiers
from moim.directory.profile import canonical, checked_fields
from moim.directory.tables import credentials
from moim.errors import ProtocolError, UsageError
from moim.model import Address
from moim.proto.xmpp.scram import ScramHash, ScramVerifier, saslprep
from moim.store import Store

ALL_HASHES: Final[frozenset[ScramHash]] = frozenset(("SCRAM-SHA-256", "SCRAM-SHA-1"))
_MAX_PASSWORD = 1024

Adopted = Literal["added", "same", "other-password"]


class People(Protocol):
    """What is needed of the directory's people."""

    async def verifiers(self, address: Address) -> Verifiers | None:
        """What is kept of a user's password."""
        ...

    async def profile(self, address: Address) -> object | None:
        """A person, or None."""
        ...

    async def add_adopted(self, address: Address, fields: Mapping[str, str], verifiers: Verifiers | None) -> bool:
        """Adds a person; False when the address exists."""
        ...


class Adoption:
    """Takes accounts over. A password that came along stays, however short it is; accounts that exist keep theirs."""

    def __init__(self, store: Store, hasher: Hasher, domains: Sequence[str], people: People) -> None:
        self._store = store
        self._hasher = hasher
        self._domains = domains
        self._people = people

    async def take(
        self,
        address: Address | str,
        *,
        password: str | None = None,
        scram: Mapping[ScramHash, ScramVerifier] | None = None,
        name: str = "",
        dry_run: bool = False,
    ) -> Adopted:
        """Makes an account, or compares it with what is there. Raises UsageError for what cannot be taken.

        ``password`` counts more than ``scram``; without either, nobody can sign in until a password is set.
        """
        wanted = canonical(address, self._domains)
        fields = checked_fields({"display_name": name} if name else {})
        if password is not None:
            _check(password)
        if await self._people.profile(wanted) is not None:
            return await self._compare(wanted, password, scram or {})
        if dry_run:
            return "added"
        verifiers = None
        if password is not None:
            (verifiers,) = await self._hasher.derive_many([password])
        elif scram:
            verifiers = Verifiers.of(scram)
        if not await self._people.add_adopted(wanted, fields, verifiers):
            return await self._compare(wanted, password, scram or {})
        return "added"

    async def _compare(
        self, address: Address, password: str | None, scram: Mapping[ScramHash, ScramVerifier]
    ) -> Adopted:
        known = await self._people.verifiers(address)
        if password is not None:
            same = known is not None and (await self._hasher.check(known, password)).ok
        elif known is None:
            same = not scram
        else:
            same = all(known.scram(name) == verifier for name, verifier in scram.items())
        return "same" if same else "other-password"

    async def credentials(self, address: Address) -> Mapping[ScramHash, ScramVerifier]:
        """What another server needs so that somebody keeps their password; empty when there is none."""
        known = await self._people.verifiers(address)
        if known is None:
            return {}
        return {name: verifier for name in sorted(ALL_HASHES) if (verifier := known.scram(name)) is not None}


def _check(password: str) -> None:
    if not password or len(password.encode("utf-8", "surrogatepass")) > _MAX_PASSWORD:
        raise UsageError(f"the password is empty or longer than {_MAX_PASSWORD} bytes")
    try:
        saslprep(password)
    except ProtocolError:
        raise UsageError("the password has characters that sign-in programs do not agree on") from None


def common_hashes(connection: sa.Connection) -> frozenset[ScramHash]:
    """The hashes in which every password is known; all of them when there is none in common."""
    columns: Sequence[tuple[ScramHash, sa.Column[str]]] = (
        ("SCRAM-SHA-256", credentials.c.scram_sha256),
        ("SCRAM-SHA-1", credentials.c.scram_sha1),
    )
    found = frozenset(
        name for name, column in columns if not connection.scalar(sa.select(sa.exists().where(column == "")))
    )
    return found or ALL_HASHES
