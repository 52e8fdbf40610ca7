"""Who signs in: verifiers for chat, password checks for everybody else, both from a cache that facts keep true."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from moim.bus import Bus, BusChanged
from moim.directory.passwords import Hasher, Verifiers
from moim.directory.profile import Profile, canonical
from moim.directory.rate import SignInGate
from moim.directory.tables import credentials, sign_ins, users
from moim.errors import LimitExceeded, UsageError
from moim.model import Address, UserChanged, UserRemoved
from moim.proto.xmpp.scram import ScramHash, ScramVerifier
from moim.store import Store

_ACCOUNTS = 20_000
_READ_AHEAD = 5000
_log = logging.getLogger("moim.directory.sign_in")


@dataclass(frozen=True, slots=True)
class Account:
    """A person and what is kept of their password (None when nothing is)."""

    profile: Profile
    verifiers: Verifiers | None


@dataclass(frozen=True, slots=True)
class SignIns:
    """A user's last successful sign-in (seconds since 1970, 0 for never) and the failures since."""

    succeeded_at: int = 0
    source: str = ""
    failures: int = 0


class AccountCache:
    """Accounts by address, the least recently used dropped first; an account that changed is read again.

    Where no other node writes and everybody fits, it knows without asking that an address is nobody's: so nobody finds
    out who has an account by how long an answer takes.
    """

    def __init__(self, store: Store, bus: Bus, read: Callable[[sa.Connection, Address], Account | None]) -> None:
        self._store = store
        self._read = read
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._whole = False
        self._unread: set[str] = set()  # what changed since, while the rest is whole
        self._changes = 0
        bus.subscribe(UserChanged, self._changed)
        bus.subscribe(UserRemoved, self._changed)
        bus.subscribe(BusChanged, self._bus_changed)
        self._bus = bus

    async def _changed(self, fact: UserChanged | UserRemoved) -> None:
        self.forget(fact.address)

    async def _bus_changed(self, _fact: BusChanged) -> None:
        """What other nodes changed while they could not be heard is not known: everything is read anew."""
        self._changes += 1
        self._accounts.clear()
        self._is_whole(False)

    def _is_whole(self, whole: bool) -> None:
        self._whole = whole
        self._unread.clear()

    def forget(self, address: Address) -> None:
        """Drops an account whose row changed."""
        self._changes += 1
        self._accounts.pop(str(address), None)
        if self._whole:
            self._unread.add(str(address))
            if len(self._unread) > _READ_AHEAD:
                self._is_whole(False)

    async def fill(self, recent: Callable[[sa.Connection, int], Sequence[Account]], *, alone: bool) -> None:
        """Reads accounts before anybody asks for them; ``recent`` gives those wanted most, as many as asked.

        ``alone``: no other node writes. What others write is told by the bus, which may lose a word.
        """
        before = self._changes
        accounts = await self._store.read(lambda connection: recent(connection, _READ_AHEAD))
        if before == self._changes and self._bus.connected:
            self._accounts.update((str(account.profile.address), account) for account in accounts)
            self._is_whole(alone and len(accounts) < _READ_AHEAD)

    def known(self, text: str) -> Account | None:
        """An account in the cache, by its address in canonical form."""
        return self._accounts.get(text)

    def nobody(self, text: str) -> bool:
        """Whether an address in canonical form is surely nobody's; False when that would have to be looked up."""
        return self._whole and text not in self._accounts and text not in self._unread and self._bus.connected

    async def get(self, address: Address) -> Account | None:
        """The account of a canonical address, or None."""
        text = str(address)
        if (known := self._accounts.get(text)) is not None:
            self._accounts.move_to_end(text)
            return known
        if self.nobody(text):
            return None
        before = self._changes
        account = await self._store.read(lambda connection: self._read(connection, address))
        # Else it may be older than a change, or nobody would tell of the next one.
        if before == self._changes and self._bus.connected:
            self._unread.discard(text)
            if account is not None:
                self._accounts[text] = account
                if len(self._accounts) > _ACCOUNTS:
                    self._accounts.popitem(last=False)
                    self._is_whole(False)
        return account


class SignIn:
    """Checks passwords and slows down who guesses. Every refusal is logged with its reason.

    An ``address`` is what somebody says to be, ``alice@example.com``; whatever is no address of this site is nobody's.
    """

    def __init__(
        self,
        store: Store,
        accounts: AccountCache,
        hasher: Hasher,
        domains: Sequence[str],
        *,
        remember: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._hasher = hasher
        self._domains = domains
        self._remember = remember
        self._clock = clock
        self._gate = SignInGate()
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[str, tuple[bytes, Verifiers, float]] = OrderedDict()
        self._unsaved: dict[str, SignIns] = {}
        self._running: dict[tuple[str, bytes], asyncio.Future[bool]] = {}
        self.on_known_better: Callable[[], Awaitable[None]] = _nothing
        """Hears that a password is now known in every form of SCRAM."""

    async def scram(self, address: str, mechanism: ScramHash) -> ScramVerifier | None:
        """The verifier of a user who may sign in, or None."""
        account = await self._account(address)
        if account is None or account.verifiers is None or account.profile.disabled:
            return None
        return account.verifiers.scram(mechanism)

    def known_scram(self, address: str, mechanism: ScramHash) -> ScramVerifier | None:
        """The same from the cache alone; None also for an account that is not in it."""
        account = self._accounts.known(address)
        if account is None or account.verifiers is None or account.profile.disabled:
            return None
        return account.verifiers.scram(mechanism)

    def nobody(self, address: str) -> bool:
        """Whether there is surely no such account; False when that would have to be looked up."""
        return self._accounts.nobody(address)

    async def check(self, address: str, password: str, *, source: str = "") -> bool:
        """Whether the password is right. Raises LimitExceeded while this account or source has to wait."""
        name = self._name(address)
        digest = self._digest(name, password)
        running = self._running.get((source, digest))
        if running is None:  # a client that asks several things at once makes one attempt, not several
            running = asyncio.ensure_future(self._check(name, password, digest, source))
            self._running[source, digest] = running
            running.add_done_callback(lambda done: self._ended((source, digest), done))
        return await asyncio.shield(running)

    def _ended(self, key: tuple[str, bytes], done: asyncio.Future[bool]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # taken here too, since who asked may have gone meanwhile

    async def _check(self, name: str, password: str, digest: bytes, source: str) -> bool:
        self.begin(name, source)
        account = await self._account(name)
        verifiers = account.verifiers if account is not None and not account.profile.disabled else None
        if verifiers is not None and self._remembered(name, verifiers, digest):
            ok = True
        else:
            checked = await self._hasher.check(verifiers, password)
            ok = checked.ok
            if account is not None and verifiers is not None and checked.better is not None:
                verifiers = await self._keep_better(account, verifiers, checked.better)
        if ok and account is not None and verifiers is not None:
            self._remember_right(name, verifiers, digest)
            self.succeeded(name, source, account.profile.id)
            return True
        reason = "no such user" if account is None else "disabled" if account.profile.disabled else "wrong password"
        self.failed(name, source, reason, account.profile.id if account is not None else "")
        return False

    def begin(self, address: str, source: str) -> None:
        """Counts an attempt, which ends in ``succeeded`` or ``failed``; raises LimitExceeded when it must wait."""
        wait = self._gate.begin(self._name(address), source, self._clock())
        if wait > 0:
            _log.warning("refused the sign-in of %r from %s: too many failures", self._name(address), source or "?")
            raise LimitExceeded("too many failed sign-ins", hint=f"try again in {max(round(wait), 1)} seconds")

    def succeeded(self, address: str, source: str, user_id: str) -> None:
        """An attempt that ``begin`` let through was right."""
        self._gate.succeeded(self._name(address), source)
        self._unsaved[user_id] = SignIns(int(time.time()), source[:64], 0)

    def failed(self, address: str, source: str, reason: str, user_id: str = "") -> None:
        """An attempt that ``begin`` let through was wrong."""
        self._gate.failed(self._name(address), source, self._clock())
        _log.warning("refused the sign-in of %r from %s: %s", self._name(address), source or "?", reason)
        if user_id:
            known = self._unsaved.get(user_id, SignIns(-1))
            self._unsaved[user_id] = SignIns(known.succeeded_at, known.source, known.failures + 1)

    async def history(self, user_id: str) -> SignIns:
        """A user's sign-ins so far."""
        await self.save()
        query = sa.select(sign_ins.c.succeeded_at, sign_ins.c.source, sign_ins.c.failures).where(
            sign_ins.c.user_id == user_id
        )
        row = await self._store.read(lambda connection: connection.execute(query).one_or_none())
        return SignIns(*row) if row is not None else SignIns()

    async def save(self) -> None:
        """Writes what was counted since the last time; called every few seconds and at the end."""
        if self._unsaved:
            counted, self._unsaved = self._unsaved, {}
            await self._store.write(lambda connection: _save(connection, counted))

    async def _account(self, address: str) -> Account | None:
        try:
            return await self._accounts.get(canonical(address, self._domains))
        except UsageError:
            return None

    def _name(self, address: str) -> str:
        """The one form of an address that attempts are counted under, also when it is no usable one."""
        try:
            return str(canonical(address, self._domains))
        except UsageError:
            return address[:64].lower()

    def _digest(self, name: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{name}\0{password}".encode("utf-8", "surrogatepass"), hashlib.sha256)

    def _remembered(self, name: str, verifiers: Verifiers, digest: bytes) -> bool:
        known = self._right.get(name)
        if known is None:
            return False
        right, of, until = known
        # Verifiers are new whenever the password is, also when no fact of the change has come yet.
        if of != verifiers or until < self._clock():
            del self._right[name]
            return False
        return hmac.compare_digest(right, digest)

    def _remember_right(self, name: str, verifiers: Verifiers, digest: bytes) -> None:
        if self._remember <= 0 or name in self._right:
            return
        self._right[name] = (digest, verifiers, self._clock() + self._remember)
        if len(self._right) > _ACCOUNTS:
            self._right.popitem(last=False)

    async def _keep_better(self, account: Account, old: Verifiers, better: Verifiers) -> Verifiers:
        # The condition keeps a password that changed meanwhile from getting the old one's hash.
        statement = (
            credentials.update()
            .where(
                credentials.c.user_id == account.profile.id,
                credentials.c.scram_sha256 == old.scram_sha256,
                credentials.c.scram_sha1 == old.scram_sha1,
            )
            .values(scram_sha256=better.scram_sha256, scram_sha1=better.scram_sha1, argon2=better.argon2)
        )
        await self._store.write(lambda connection: connection.execute(statement))
        self._accounts.forget(account.profile.address)
        if (old.scram_sha256, old.scram_sha1) != (better.scram_sha256, better.scram_sha1):
            await self.on_known_better()
        return better


async def _nothing() -> None:
    """Nobody has to hear it."""


def _save(connection: sa.Connection, counted: dict[str, SignIns]) -> None:
    there = set(connection.scalars(sa.select(users.c.id).where(users.c.id.in_(counted))))
    for user_id, news in counted.items():
        if user_id not in there:
            continue
        insert = sqlite.insert(sign_ins)
        if news.succeeded_at >= 0:
            values = {"succeeded_at": news.succeeded_at, "source": news.source, "failures": news.failures}
            statement = insert.values(user_id=user_id, **values).on_conflict_do_update(
                index_elements=["user_id"], set_=values
            )
        else:  # failures only: the last success stays
            statement = insert.values(user_id=user_id, failures=news.failures).on_conflict_do_update(
                index_elements=["user_id"], set_={"failures": sign_ins.c.failures + news.failures}
            )
        connection.execute(statement)
