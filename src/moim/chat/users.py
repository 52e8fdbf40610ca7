"""What the chat room needs of others: people from the directory, and the certificate that its listeners present."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from moim.model import Address
from moim.proto.xmpp.scram import ScramHash, Verifier


class Profile(Protocol):
    """What is shown of a person, and what decides which policy counts for them."""

    @property
    def display_name(self) -> str: ...
    @property
    def policy(self) -> str: ...
    @property
    def department(self) -> str: ...


class Users(Protocol):
    """The people of every hosted domain. An ``address`` is a bare JID; nobody has one of another domain."""

    async def scram(self, address: str, mechanism: ScramHash) -> Verifier | None:
        """The SCRAM verifier of an account that may sign in; None for anybody else."""
        ...

    def known_scram(self, address: str, mechanism: ScramHash) -> Verifier | None:
        """The same when it is at hand without waiting; None also when it has to be looked up."""
        ...

    def nobody(self, address: str) -> bool:
        """Whether there is surely no such account; False when that would have to be looked up."""
        ...

    def scram_hashes(self) -> Collection[ScramHash]:
        """The hashes of SCRAM with which everybody can sign in; never none."""
        ...

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        """Whether this is the account's password; takes as long for accounts that do not exist.

        ``source`` is the client's IP address.
        """
        ...

    async def profile(self, address: str) -> Profile | None:
        """What is shown of an account; None when there is none."""
        ...

    async def addresses(self) -> Sequence[Address]:
        """Every account."""
        ...

    async def policies(self, *, departments: bool) -> Sequence[tuple[Address, str, str]]:
        """Everybody with a policy of their own, or also with a department: address, policy, department."""
        ...

    async def update(self, address: Address | str, changes: Mapping[str, object]) -> object:
        """Changes fields of a person. Raises MoimError with a sentence."""
        ...

    async def add(self, address: Address | str, password: str | None = None) -> object:
        """Adds a person. Raises MoimError with a sentence: the address is taken, the password too short."""
        ...

    async def set_password(self, address: Address | str, password: str) -> None:
        """Gives a person another password, which ends their sessions. Raises MoimError."""
        ...

    async def remove(self, address: Address | str) -> None:
        """Removes a person; ``UserRemoved`` is told. Raises MoimError."""
        ...


class CertificateFiles(Protocol):
    """Where a certificate chain and its key are, both PEM."""

    @property
    def chain(self) -> Path: ...
    @property
    def key(self) -> Path: ...
