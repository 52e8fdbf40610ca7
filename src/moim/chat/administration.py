"""XEP-0133 service administration: what administrators do with any XMPP client, as ad-hoc commands of the server."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from moim.chat.accounts import Account, Accounts, Session
from moim.chat.commands import Asked, Command, Outcome, Values
from moim.chat.plane import Plane
from moim.chat.rosters import Rosters
from moim.chat.users import Users
from moim.errors import ConfigError, ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns, stream_error
from moim.proto.xmpp.dataform import Field

_ADMIN: Final = "http://jabber.org/protocol/admin"
_POLICY: Final = "urn:moim:policy"
_MAX_LISTED: Final = 1000
_LISTED: Final = ("25", "50", "75", "100", "150", "200", "none")
_MAX_NAMED: Final = 100

_log = logging.getLogger("moim.chat.administration")
_numbers = itertools.count(1)


def administrators(settings: Mapping[str, Sequence[str]]) -> Callable[[Jid, str], bool]:
    """Who may administer which domain. Raises ConfigError for what is no address of a person."""
    known = set()
    for domain, text in ((domain, text) for domain, addresses in settings.items() for text in addresses):
        try:
            jid = Jid.parse(text)
        except ProtocolError as error:
            raise ConfigError(f"chat.admins: '{text}' is not an address: {error.message}") from error
        if not jid.local or jid.resource:
            raise ConfigError(f"chat.admins: '{text}' is not the address of a person", hint="write name@domain")
        known.add((jid, domain))
    return lambda jid, domain: (jid, domain) in known


class Administration:
    """The commands. ``policies`` are named.

    ``end_account`` ends every session of a bare JID with a stream error, ``end`` a single one.
    """

    def __init__(
        self,
        *,
        users: Users,
        accounts: Accounts,
        rosters: Rosters,
        plane: Plane,
        end_account: Callable[[str, Element], None],
        end: Callable[[Session, Element], None],
        policies: Collection[str] = (),
    ) -> None:
        self._users = users
        self._accounts = accounts
        self._rosters = rosters
        self._plane = plane
        self._end_account = end_account
        self._end_session = end
        account = Field("accountjid", "jid-single", label="Address", required=True)
        several = Field("accountjids", "jid-multi", label="Addresses", required=True)
        password = Field("password", "text-private", label="Password", required=True)
        given = Field(
            "policy", "list-single", label="Policy", options=(("none", ""), *((name, name) for name in policies))
        )
        again = Field("password-verify", "text-private", label="Password once more", required=True)
        most = Field(
            "max_items",
            "list-single",
            ("none",),
            "Show at most",
            options=tuple(("all" if value == "none" else value, value) for value in _LISTED),
        )
        announcement = Field("announcement", "text-multi", label="Text", required=True)
        self.commands: tuple[Command, ...] = (
            self._make("add-user", "Add a person", self._add, (account, password, again)),
            self._make("delete-user", "Remove people", self._delete, (several,)),
            self._make("change-user-password", "Change a password", self._password, (account, password)),
            self._make("end-user-session", "End people's sessions", self._end, (several,)),
            self._make("user-stats", "Who a person is connected as", self._stats, (account,)),
            self._make("get-registered-users-num", "Count the accounts", self._count_accounts),
            self._make("get-online-users-num", "Count who is online", self._count_online),
            self._make("get-registered-users-list", "List the accounts", self._list_accounts, (most,)),
            self._make("get-online-users-list", "List who is online", self._list_online, (most,)),
            self._make("announce", "Tell everybody who is online", self._announce, (announcement,)),
        )
        if policies:
            giving = Command(_POLICY, "Give a person a policy", self._policy, (account, given), _POLICY)
            self.commands = (*self.commands, giving)

    @staticmethod
    def _make(
        name: str, title: str, run: Callable[[Asked, Values], Awaitable[Outcome]], fields: tuple[Field, ...] = ()
    ) -> Command:
        return Command(f"{_ADMIN}#{name}", title, run, fields, _ADMIN)

    async def _add(self, asked: Asked, values: Values) -> Outcome:
        address, password = self._account(asked, values), _one(values, "password")
        if password != _one(values, "password-verify"):
            raise StanzaError("not-acceptable", "the two passwords differ")
        await self._users.add(address, password)
        _log.info("%s added %s", asked.by, address)
        return Outcome(f"{address} was added")

    async def _delete(self, asked: Asked, values: Values) -> Outcome:
        named = self._several(asked, values)
        for address in named:
            await self._users.remove(address)
            _log.info("%s removed %s", asked.by, address)
        return Outcome(f"removed: {', '.join(named)}")

    async def _password(self, asked: Asked, values: Values) -> Outcome:
        address = self._account(asked, values)
        await self._users.set_password(address, _one(values, "password"))
        _log.info("%s changed the password of %s", asked.by, address)
        return Outcome(f"the password of {address} was changed")

    async def _policy(self, asked: Asked, values: Values) -> Outcome:
        address, name = self._account(asked, values), next(iter(values.get("policy", ())), "")
        await self._users.update(address, {"policy": name})
        _log.info("%s gave %s %s", asked.by, address, f"the policy '{name}'" if name else "no policy")
        return Outcome(f"{address} has the policy '{name}'" if name else f"{address} has no policy")

    async def _end(self, asked: Asked, values: Values) -> Outcome:
        """XEP-0133 section 4.5: all sessions of an account, or with a resource that one alone."""
        named = [self._jid(asked, name) for name in self._named(values)]
        error = stream_error("policy-violation", "an administrator ended the session")
        for jid in named:
            account = self._accounts.get(str(jid.bare))
            sessions = tuple(account.sessions.values()) if account is not None else ()
            meant = [session for session in sessions if not jid.resource or session.full == jid]
            if jid.resource and not meant:
                raise StanzaError("item-not-found", f"{jid} is not connected")
            for session in meant:  # those at other nodes as well
                self._end_session(session, error)
            if not jid.resource:
                self._end_account(str(jid), error)  # what is not bound yet
            _log.info("%s ended the %s of %s", asked.by, "session" if jid.resource else "sessions", jid)
        return Outcome(f"no longer connected: {', '.join(map(str, named))}")

    async def _stats(self, asked: Asked, values: Values) -> Outcome:
        address = self._account(asked, values)
        if address not in await self._registered(asked):
            raise StanzaError("item-not-found", f"there is no account {address}")
        account = self._accounts.get(address)
        sessions = tuple(account.sessions.items()) if account is not None else ()
        roster = await self._rosters.get(address)
        return Outcome(
            fields=(
                Field("accountjid", "jid-single", (address,), "Address"),
                Field("rostersize", values=(str(sum(1 for item in roster.items() if item.listed)),), label="Contacts"),
                Field("onlineresources", "text-multi", tuple(name for name, _ in sessions), "Connected as"),
                Field("ipaddresses", "text-multi", tuple(s.connection.peer for _, s in sessions), "From"),
            )
        )

    async def _count_accounts(self, asked: Asked, values: Values) -> Outcome:
        return _number("registeredusersnum", len(await self._registered(asked)), "Accounts")

    async def _count_online(self, asked: Asked, values: Values) -> Outcome:
        return _number("onlineusersnum", len(self._online(asked)), "Online")

    async def _list_accounts(self, asked: Asked, values: Values) -> Outcome:
        return _listed("registereduserjids", await self._registered(asked), values)

    async def _list_online(self, asked: Asked, values: Values) -> Outcome:
        return _listed("onlineuserjids", [account.bare for account in self._online(asked)], values)

    async def _announce(self, asked: Asked, values: Values) -> Outcome:
        text = "\n".join(values["announcement"]).strip()
        body = Element("body", ns.CLIENT, {}, (text,))
        told = [session for account in self._online(asked) for session in account.available()]
        identifier = f"announcement-{next(_numbers)}"
        shared = {"from": asked.domain, "type": "headline", "id": identifier}
        self._plane.send_many(
            [(s.sid, Element("message", ns.CLIENT, shared | {"to": str(s.full)}, (body,))) for s in told]
        )
        _log.info("%s told everybody who is online (%d sessions): %s", asked.by, len(told), text[:200])
        return Outcome(f"sent to {len(told)} sessions")

    async def _registered(self, asked: Asked) -> list[str]:
        """The accounts of the domain that was asked."""
        known = [Jid.parse(str(address)) for address in await self._users.addresses()]
        return [str(jid) for jid in known if jid.domain == asked.domain]

    def _online(self, asked: Asked) -> list[Account]:
        return [account for account in self._accounts if account.jid.domain == asked.domain]

    def _account(self, asked: Asked, values: Values) -> str:
        return self._address(asked, _one(values, "accountjid"))

    def _several(self, asked: Asked, values: Values) -> list[str]:
        return list(dict.fromkeys(self._address(asked, name) for name in self._named(values)))

    @staticmethod
    def _named(values: Values) -> list[str]:
        named = values["accountjids"]
        if len(named) > _MAX_NAMED:
            raise StanzaError("not-acceptable", f"name at most {_MAX_NAMED} addresses at once")
        return [name for name in named if name.strip()]

    def _address(self, asked: Asked, text: str) -> str:
        jid = self._jid(asked, text)
        if jid.resource:
            raise StanzaError("not-acceptable", f"'{text}' is not an account of {asked.domain}")
        return str(jid)

    @staticmethod
    def _jid(asked: Asked, text: str) -> Jid:
        try:
            jid = Jid.parse(text.strip())
        except ProtocolError as error:
            raise StanzaError("jid-malformed", f"'{text}' is not an address") from error
        if jid.domain != asked.domain or not jid.local:
            raise StanzaError("not-acceptable", f"'{text}' is not an account of {asked.domain}")
        return jid


def _one(values: Values, var: str) -> str:
    return values[var][0]


def _number(var: str, number: int, label: str) -> Outcome:
    return Outcome(fields=(Field(var, values=(str(number),), label=label),))


def _listed(var: str, addresses: Sequence[str], values: Values) -> Outcome:
    wanted = next(iter(values.get("max_items", ())), "none")
    if wanted not in _LISTED:
        raise StanzaError("not-acceptable", f"max_items is one of these: {', '.join(_LISTED)}")
    shown = sorted(addresses)[: _MAX_LISTED if wanted == "none" else int(wanted)]
    rest = len(addresses) - len(shown)
    note = f"and {rest} more" if rest else ""
    return Outcome(note, (Field(var, "text-multi", tuple(shown), "Addresses"),))
