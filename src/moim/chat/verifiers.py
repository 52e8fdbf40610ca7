"""What sign-in needs to know of an account, asked so that the answer never tells whether the account exists."""

from __future__ import annotations

from collections.abc import Iterable

from moim.chat.users import Users
from moim.proto.xmpp import made_up_verifier
from moim.proto.xmpp.scram import ScramHash, Verifier

_HASHES: tuple[ScramHash, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-1")
_SALT_SIZE = 16
_ITERATIONS = 10_000
_SAMPLES = 5


class Verifiers:
    """The directory's verifiers, and made-up ones of the same shape for names that it does not know."""

    def __init__(self, users: Users, secret: bytes) -> None:
        self._users = users
        self._secret = secret
        self._shapes: dict[str, tuple[int, int]] = {}

    async def learn(self, accounts: Iterable[str]) -> None:
        """Looks at some real accounts, so that made-up verifiers have salts and counts of the same size."""
        for _, account in zip(range(_SAMPLES), accounts, strict=False):
            for mechanism in _HASHES:
                self._remember(mechanism, await self._users.scram(account, mechanism))

    def _remember(self, mechanism: str, verifier: Verifier | None) -> None:
        if verifier is not None:
            self._shapes[mechanism] = (len(verifier.salt), verifier.iterations)

    def known(self, account: str, mechanism: ScramHash) -> Verifier | None:
        """The verifier of an account that the directory has at hand, as quickly a made-up one for a name that it knows
        to be nobody's; None when it has to be asked."""
        if self._users.nobody(account):
            return self._made_up(account, mechanism)
        return self._users.known_scram(account, mechanism)

    async def verifier(self, account: str, mechanism: ScramHash) -> Verifier:
        """The verifier of an account, or a made-up one that no password fits."""
        found = await self._users.scram(account, mechanism)
        if found is not None:
            self._shapes.setdefault(mechanism, (len(found.salt), found.iterations))
            return found
        return self._made_up(account, mechanism)

    def _made_up(self, account: str, mechanism: ScramHash) -> Verifier:
        salt_size, iterations = self._shapes.get(mechanism, (_SALT_SIZE, _ITERATIONS))
        return made_up_verifier(mechanism, account, self._secret, salt_size=salt_size, iterations=iterations)

    async def check(self, account: str, password: str, source: str) -> bool:
        """Whether this is the account's password; ``source`` is the client's IP address."""
        return await self._users.verify_password(account, password, source=source)
