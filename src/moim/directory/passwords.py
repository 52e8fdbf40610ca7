"""What is kept of a password: SCRAM verifiers for chat clients and argon2id for sign-ins that send it.

Hashing runs in threads of its own; the event loop only waits. A check does the same work whether the account
exists or not.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import argon2

from moim.errors import ProtocolError, Unavailable, UsageError
from moim.proto.xmpp.scram import ScramHash, ScramVerifier, make_verifier, saslprep

Result = TypeVar("Result")

SALT_BYTES = 16
_HASHES: tuple[ScramHash, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-1")
_MAX_BYTES = 1024
_CHUNK = 16  # passwords per task of an import: enough to make the hand-over cheap
_WAITING = 512  # checks that may wait for a thread; beyond, refusing is kinder than an answer after minutes


@dataclass(frozen=True, slots=True)
class Verifiers:
    """The columns of one user: SCRAM in the form of RFC 5803, argon2 as a PHC string or empty.

    One of the SCRAM columns is empty where another server knew no more than the other one.
    """

    scram_sha256: str
    scram_sha1: str
    argon2: str = ""

    def scram(self, mechanism: ScramHash) -> ScramVerifier | None:
        """One mechanism's verifier; None when the password is not known in that form."""
        text = self.scram_sha256 if mechanism == "SCRAM-SHA-256" else self.scram_sha1
        return _decode(text) if text else None

    @property
    def complete(self) -> bool:
        """Whether every form of SCRAM is there."""
        return bool(self.scram_sha256 and self.scram_sha1)

    @staticmethod
    def of(known: Mapping[ScramHash, ScramVerifier]) -> Verifiers:
        """What another server kept of a password."""
        return Verifiers(*(_encode(name, known[name]) if name in known else "" for name in _HASHES))


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of a check, and what to keep from now on when something is missing or has old parameters."""

    ok: bool
    better: Verifiers | None = None


def check_policy(password: str, *, min_length: int) -> None:
    """Refuses a new password that cannot be used everywhere or is too short, with UsageError."""
    if not password:
        raise UsageError("the password is empty")
    if len(password.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
        raise UsageError(f"the password is longer than {_MAX_BYTES} bytes")
    try:
        prepared = saslprep(password)
    except ProtocolError:
        raise UsageError(
            "the password has characters that sign-in programs do not agree on",
            hint="use letters, digits, punctuation; no control characters, no mixed writing directions",
        ) from None
    if len(prepared) < min_length:
        raise UsageError(f"the password has fewer than {min_length} characters")


def _encode(mechanism: ScramHash, verifier: ScramVerifier) -> str:
    salt, stored, server = (
        base64.b64encode(part).decode() for part in (verifier.salt, verifier.stored_key, verifier.server_key)
    )
    return f"{mechanism}${verifier.iterations}:{salt}${stored}:{server}"


@lru_cache(maxsize=8192)
def _decode(text: str) -> ScramVerifier:
    _, rounds_and_salt, keys = text.split("$")
    rounds, salt = rounds_and_salt.split(":")
    stored, server = keys.split(":")
    return ScramVerifier(base64.b64decode(salt), int(rounds), base64.b64decode(stored), base64.b64decode(server))


class Hasher:
    """Derives and checks in a pool of one thread per processor.

    ``argon2_memory_kib`` and ``argon2_passes`` are argon2id's m and t with p = 1 (RFC 9106).
    """

    def __init__(self, *, scram_iterations: int, argon2_memory_kib: int, argon2_passes: int) -> None:
        self._iterations = scram_iterations
        self._argon2 = argon2.PasswordHasher(argon2_passes, argon2_memory_kib, parallelism=1)
        self._pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="moim-directory-hash")
        self._waiting = 0
        nobody = secrets.token_urlsafe(16)
        self._nobody = Verifiers(
            _encode("SCRAM-SHA-256", self._scram("SCRAM-SHA-256", nobody)), "", self._argon2.hash(nobody)
        )

    def close(self) -> None:
        """Gives the threads back; checks that wait are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def derive(self, password: str) -> Verifiers:
        """All verifiers of one password. Raises Unavailable when too many wait."""
        return await self._run(lambda: self._derive(password, with_argon2=True))

    async def derive_many(self, passwords: Sequence[str]) -> list[Verifiers]:
        """The SCRAM verifiers of many passwords; their argon2 is made at the first sign-in that needs it."""
        loop = asyncio.get_running_loop()
        chunks = [passwords[start : start + _CHUNK] for start in range(0, len(passwords), _CHUNK)]
        done = await asyncio.gather(*(loop.run_in_executor(self._pool, self._derive_chunk, part) for part in chunks))
        return [one for chunk in done for one in chunk]

    async def check(self, verifiers: Verifiers | None, password: str) -> Checked:
        """Whether the password is right; for None it works as long and says no. Raises Unavailable."""
        return await self._run(lambda: self._check(verifiers, password))

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= _WAITING:
            raise Unavailable("too many sign-ins are waiting", hint="try again in a few seconds")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1

    def _scram(self, mechanism: ScramHash, password: str) -> ScramVerifier:
        return make_verifier(mechanism, password, secrets.token_bytes(SALT_BYTES), self._iterations)

    def _derive(self, password: str, *, with_argon2: bool) -> Verifiers:
        return Verifiers(
            _encode("SCRAM-SHA-256", self._scram("SCRAM-SHA-256", password)),
            _encode("SCRAM-SHA-1", self._scram("SCRAM-SHA-1", password)),
            self._argon2.hash(saslprep(password)) if with_argon2 else "",
        )

    def _derive_chunk(self, passwords: Sequence[str]) -> list[Verifiers]:
        return [self._derive(password, with_argon2=False) for password in passwords]

    def _check(self, verifiers: Verifiers | None, password: str) -> Checked:
        try:
            prepared = saslprep(password) if len(password) <= _MAX_BYTES else None
        except ProtocolError:
            prepared = None
        known = verifiers or self._nobody
        offered = prepared or ""
        scram_ok = self._check_scram(known, offered)
        argon2_ok = self._check_argon2(known.argon2 or self._nobody.argon2, offered)
        ok = verifiers is not None and prepared is not None and (argon2_ok if known.argon2 else scram_ok)
        return Checked(ok, self._better(known, offered) if ok else None)

    def _better(self, known: Verifiers, password: str) -> Verifiers | None:
        argon2_hash, forms = known.argon2, dict[str, str]()
        if not known.argon2 or self._argon2.check_needs_rehash(known.argon2):
            argon2_hash = self._argon2.hash(password)
        for name in _HASHES:
            text = known.scram_sha256 if name == "SCRAM-SHA-256" else known.scram_sha1
            forms[name] = text or _encode(name, self._scram(name, password))
        better = Verifiers(forms["SCRAM-SHA-256"], forms["SCRAM-SHA-1"], argon2_hash)
        return better if better != known else None

    def _check_scram(self, known: Verifiers, password: str) -> bool:
        name: ScramHash = "SCRAM-SHA-256" if known.scram_sha256 else "SCRAM-SHA-1"
        verifier = known.scram(name)
        if verifier is None:
            return False
        again = make_verifier(name, password, verifier.salt, verifier.iterations)
        return hmac.compare_digest(again.stored_key, verifier.stored_key)

    def _check_argon2(self, phc: str, password: str) -> bool:
        try:
            return self._argon2.verify(phc, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
