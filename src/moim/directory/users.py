"""The people of a site: add, find, change, remove. Facts go out after the commit."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from moim.bus import Bus
from moim.directory import devices as device_rows
from moim.directory.adoption import ALL_HASHES, Adoption, common_hashes
from moim.directory.devices import Device
from moim.directory.passwords import Hasher, Verifiers, check_policy
from moim.directory.profile import FIELDS, Profile, canonical, checked_fields
from moim.directory.sign_in import Account, AccountCache, SignIn
from moim.directory.tables import credentials, devices, sign_ins, users
from moim.errors import Conflict, NotFound, UsageError
from moim.model import Address, UserChanged, UserRemoved
from moim.proto.xmpp.scram import ScramHash, ScramVerifier
from moim.store import Store

PAGE = 1000
_ORDER = (users.c.domain, users.c.local)


@dataclass(frozen=True, slots=True)
class NewUser:
    """A person to be added, checked: the verifiers are None for an account without a password."""

    address: Address
    fields: Mapping[str, str]
    verifiers: Verifiers | None


@dataclass(frozen=True, slots=True)
class Match:
    """One condition of a search: ``how`` the field compares with ``text``, letters' case aside."""

    fields: tuple[str, ...]
    how: str
    """``prefix``, ``suffix``, ``part`` or ``whole``"""
    text: str


class Users:
    """The directory as other rooms see it. Addresses are texts (``alice@example.com``) or Address values."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        domains: Sequence[str],
        hasher: Hasher,
        *,
        policies: Collection[str] = (),
        password_min_length: int = 8,
        remember_sign_in: float = 300,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.domains = tuple(domains)
        """Those that there are people of, the service domain first."""
        self._policies = policies
        self._store = store
        self._bus = bus
        self._hasher = hasher
        self._min_length = password_min_length
        self._accounts = AccountCache(store, bus, _account)
        self.sign_in = SignIn(store, self._accounts, hasher, self.domains, remember=remember_sign_in, clock=clock)
        self.sign_in.on_known_better = self._look_at_hashes
        self.adoption = Adoption(store, hasher, self.domains, self)
        """Accounts that come from another server or go to one."""
        self._hashes: frozenset[ScramHash] = ALL_HASHES

    async def read_ahead(self, *, alone: bool = False) -> None:
        """Has the accounts at hand that signed in last, so that they do not wait for the database.

        ``alone``: no other node writes, so that what is known of everybody is known for good.
        """
        await self._accounts.fill(
            lambda connection, limit: _recent_accounts(connection, self.domains, limit), alone=alone
        )
        await self._look_at_hashes()

    async def _look_at_hashes(self) -> None:
        self._hashes = await self._store.read(common_hashes)

    # What chat, the web app and the edge ask.

    async def scram(self, address: str, mechanism: ScramHash) -> ScramVerifier | None:
        """A user's SCRAM verifier, or None when they do not exist, are disabled or have no password."""
        return await self.sign_in.scram(address, mechanism)

    def known_scram(self, address: str, mechanism: ScramHash) -> ScramVerifier | None:
        """The same when it is at hand without waiting; None also when it has to be looked up."""
        return self.sign_in.known_scram(address, mechanism)

    def nobody(self, address: str) -> bool:
        """Whether there is surely no such account; False when that would have to be looked up."""
        return self.sign_in.nobody(address)

    def scram_hashes(self) -> Collection[ScramHash]:
        """The hashes with which everybody can sign in: after an import one may be missing until passwords are seen."""
        return self._hashes

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        """Whether the password is right; ``source`` is the client's IP address.

        Raises LimitExceeded while the account or source has to wait, Unavailable when too many checks are under way.
        """
        return await self.sign_in.check(address, password, source=source)

    async def profile(self, address: Address | str) -> Profile | None:
        """A person, or None."""
        try:
            account = await self._accounts.get(self._address(address))
        except UsageError:
            return None
        return account.profile if account is not None else None

    async def addresses(self) -> list[Address]:
        """Every address: domain after domain, sorted."""
        query = sa.select(users.c.local, users.c.domain).where(users.c.domain.in_(self.domains)).order_by(*_ORDER)
        return await self._store.read(lambda connection: [Address(*row) for row in connection.execute(query)])

    async def policies(self, *, departments: bool) -> list[tuple[Address, str, str]]:
        """Everybody with a policy of their own, or also with a department: address, policy, department."""
        named = sa.or_(users.c.policy != "", users.c.department != "") if departments else users.c.policy != ""
        query = sa.select(users.c.local, users.c.domain, users.c.policy, users.c.department)
        query = query.where(named, users.c.domain.in_(self.domains))

        def work(connection: sa.Connection) -> list[tuple[Address, str, str]]:
            return [(Address(r.local, r.domain), r.policy, r.department) for r in connection.execute(query)]

        return await self._store.read(work)

    # What administrators and UDS ask.

    async def get(self, address: Address | str) -> Profile:
        """A person. Raises NotFound."""
        wanted = self._address(address)
        found = await self.profile(wanted)
        if found is None:
            raise _unknown(wanted)
        return found

    async def page(
        self, *, offset: int = 0, limit: int = PAGE, matches: Sequence[Match] = ()
    ) -> tuple[list[Profile], int]:
        """One page of people by address, and how many there are in all."""
        where = sa.and_(users.c.domain.in_(self.domains), *(_condition(match) for match in matches))

        def work(connection: sa.Connection) -> tuple[list[Profile], int]:
            total = connection.scalar(sa.select(sa.func.count()).select_from(users).where(where)) or 0
            page = sa.select(users).where(where).order_by(*_ORDER).offset(offset).limit(min(limit, PAGE))
            return [_profile(row) for row in connection.execute(page)], total

        return await self._store.read(work)

    async def by_email(self, email: str) -> Profile | None:
        """The person whose address this is, else the one with it as their e-mail address."""
        if (own := await self.profile(email)) is not None:
            return own
        found, _ = await self.page(limit=1, matches=[Match(("email",), "whole", email)])
        return found[0] if found else None

    async def devices(self, profile: Profile) -> Sequence[Device]:
        """A person's devices."""
        return await self._store.read(lambda connection: device_rows.of_user(connection, profile.id))

    async def device_named(self, name: str) -> tuple[Device, Profile] | None:
        """A device by its name (``CSFALICE``), and its owner."""

        def work(connection: sa.Connection) -> tuple[Device, Profile] | None:
            found = device_rows.by_name(connection, name)
            if found is None:
                return None
            device, owner = found
            return device, _profile(connection.execute(sa.select(users).where(users.c.id == owner)).one())

        return await self._store.read(work)

    async def add(self, address: Address | str, password: str | None = None, **fields: str) -> Profile:
        """Adds a person; without a password they cannot sign in. ``fields`` are those of ``profile.FIELDS``.

        Raises UsageError for what cannot be taken and Conflict when the address exists.
        """
        wanted = self._address(address)
        values = self.checked(fields)
        verifiers = None
        if password is not None:
            check_policy(password, min_length=self._min_length)
            verifiers = await self._hasher.derive(password)
        failed = await self.insert([NewUser(wanted, values, verifiers)])
        if failed:
            raise Conflict(f"{wanted} exists already", hint=f"change the password with: moim user passwd {wanted}")
        return await self.get(wanted)

    async def insert(self, new: Sequence[NewUser], *, all_or_nothing: bool = False) -> list[Address]:
        """Stores people in one commit and tells the bus. Returns the addresses that exist already and were left out.

        With ``all_or_nothing`` one such address keeps all of them out.
        """
        now = int(time.time())
        taken = await self._store.write(lambda connection: _insert(connection, new, now, all_or_nothing))
        if any(user.verifiers is not None and not user.verifiers.complete for user in new):
            await self._look_at_hashes()
        if not (taken and all_or_nothing):
            for user in new:
                if user.address not in taken:
                    await self._bus.publish(UserChanged(user.address, password_changed=user.verifiers is not None))
        return sorted(taken)

    async def add_adopted(self, address: Address, fields: Mapping[str, str], verifiers: Verifiers | None) -> bool:
        """Adds a person whose password another server kept; False when the address exists."""
        return not await self.insert([NewUser(address, fields, verifiers)])

    async def taken(self, addresses: Sequence[Address]) -> set[Address]:
        """Which of these addresses exist."""
        return await self._store.read(lambda connection: _taken(connection, addresses))

    async def update(self, address: Address | str, changes: Mapping[str, Any]) -> Profile:
        """Changes fields, and ``disabled`` (bool); what is not named stays. Raises NotFound, UsageError."""
        wanted = self._address(address)
        rest = dict(changes)
        values: dict[str, Any] = {}
        if "disabled" in rest:
            values["disabled"] = rest.pop("disabled")
            if not isinstance(values["disabled"], bool):
                raise UsageError("disabled is true or false")
        for field, value in rest.items():
            if not isinstance(value, str):
                raise UsageError(f"{field} is a text", hint=f"fields: {', '.join((*FIELDS, 'disabled'))}")
        values |= self.checked(rest)
        values["updated_at"] = int(time.time())
        statement = users.update().where(users.c.domain == wanted.domain, users.c.local == wanted.local).values(values)
        if not await self._store.write(lambda connection: connection.execute(statement).rowcount):
            raise _unknown(wanted)
        # Who is disabled loses their sessions, as when the password changes.
        await self._bus.publish(UserChanged(wanted, password_changed=values.get("disabled", False)))
        return await self.get(wanted)

    async def set_password(self, address: Address | str, password: str) -> None:
        """Gives a person another password. Raises NotFound, UsageError."""
        wanted = self._address(address)
        check_policy(password, min_length=self._min_length)
        profile = await self.get(wanted)
        verifiers = await self._hasher.derive(password)
        now = int(time.time())

        def work(connection: sa.Connection) -> None:
            if not connection.scalar(sa.select(sa.exists().where(users.c.id == profile.id))):
                raise _unknown(wanted)
            connection.execute(credentials.delete().where(credentials.c.user_id == profile.id))
            connection.execute(credentials.insert().values(_credential_row(profile.id, verifiers, now)))

        await self._store.write(work)
        await self._bus.publish(UserChanged(wanted, password_changed=True))

    async def remove(self, address: Address | str) -> None:
        """Removes a person with their password and devices. Raises NotFound."""
        wanted = self._address(address)
        statement = users.delete().where(users.c.domain == wanted.domain, users.c.local == wanted.local)
        if not await self._store.write(lambda connection: connection.execute(statement).rowcount):
            raise _unknown(wanted)
        await self._bus.publish(UserRemoved(wanted))

    async def verifiers(self, address: Address) -> Verifiers | None:
        """What is kept of a user's password, whether they may sign in or not; None when there is nothing."""
        account = await self._accounts.get(address)
        return account.verifiers if account is not None else None

    def checked(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Values for the store, as of ``checked_fields``; a policy has to be there. Raises UsageError."""
        values = checked_fields(fields)
        if (policy := values.get("policy")) and policy not in self._policies:
            known = f"there are: {', '.join(self._policies)}" if self._policies else "there is none yet"
            raise UsageError(
                f"there is no policy '{policy}'", hint=f"{known}; add [chat.policies.NAME] to moim.toml for another"
            )
        return values

    def _address(self, address: Address | str) -> Address:
        return canonical(address, self.domains)


def _unknown(address: Address) -> NotFound:
    return NotFound(f"there is no user {address}", hint="see them all with: moim user list")


def _profile(row: sa.Row[Any]) -> Profile:
    values = row._asdict()
    return Profile(address=Address(values.pop("local"), values.pop("domain")), **values)


_accounts = sa.select(users, credentials.c.scram_sha256, credentials.c.scram_sha1, credentials.c.argon2)
_one_account = _accounts.select_from(users.outerjoin(credentials)).where(
    users.c.domain == sa.bindparam("domain_"), users.c.local == sa.bindparam("local_")
)


def _account(connection: sa.Connection, address: Address) -> Account | None:
    row = connection.execute(_one_account, {"domain_": address.domain, "local_": address.local}).one_or_none()
    return _account_of(row) if row is not None else None


def _recent_accounts(connection: sa.Connection, domains: Sequence[str], limit: int) -> list[Account]:
    everybody = _accounts.select_from(users.outerjoin(credentials).outerjoin(sign_ins))
    query = everybody.where(users.c.domain.in_(domains))
    query = query.order_by(sa.func.coalesce(sign_ins.c.succeeded_at, 0).desc(), users.c.id).limit(limit)
    return [_account_of(row) for row in connection.execute(query)]


def _account_of(row: sa.Row[Any]) -> Account:
    values = row._asdict()
    kept = [values.pop(name) for name in ("scram_sha256", "scram_sha1", "argon2")]
    profile = Profile(address=Address(values.pop("local"), values.pop("domain")), **values)
    return Account(profile, Verifiers(*kept) if kept[0] is not None else None)


def _condition(match: Match) -> sa.ColumnElement[bool]:
    if match.how == "whole":
        return sa.or_(*(sa.func.lower(users.c[field]) == match.text.lower() for field in match.fields))
    escaped = match.text.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    before = "%" if match.how in ("suffix", "part") else ""
    after = "%" if match.how in ("prefix", "part") else ""
    pattern = f"{before}{escaped}{after}"
    return sa.or_(*(sa.func.lower(users.c[field]).like(pattern, escape="\\") for field in match.fields))


def _taken(connection: sa.Connection, addresses: Sequence[Address]) -> set[Address]:
    found: set[Address] = set()
    for start in range(0, len(addresses), 500):  # SQLite bounds the parameters of one statement
        part = [address.local for address in addresses[start : start + 500]]
        query = sa.select(users.c.local, users.c.domain).where(users.c.local.in_(part))
        found.update(Address(*row) for row in connection.execute(query))
    return found.intersection(addresses)


def _insert(connection: sa.Connection, new: Sequence[NewUser], now: int, all_or_nothing: bool) -> set[Address]:
    taken = _taken(connection, [user.address for user in new])
    if taken and all_or_nothing:
        return taken
    for user in new:
        if user.address in taken:
            continue
        user_id = uuid.uuid4().hex
        row = {"id": user_id, "local": user.address.local, "domain": user.address.domain} | dict(user.fields)
        connection.execute(users.insert().values(row | {"created_at": now, "updated_at": now}))
        if user.verifiers is not None:
            connection.execute(credentials.insert().values(_credential_row(user_id, user.verifiers, now)))
        shown = user.fields.get("display_name") or user.address.local
        client = device_rows.new_client(connection, user_id, user.address, shown)
        connection.execute(devices.insert().values(client))
    return taken


def _credential_row(user_id: str, verifiers: Verifiers, now: int) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "scram_sha256": verifiers.scram_sha256,
        "scram_sha1": verifiers.scram_sha1,
        "argon2": verifiers.argon2,
        "changed_at": now,
    }
