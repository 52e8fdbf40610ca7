"""XEP-0077: people change their password, and, where the settings allow it, make and remove accounts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from moim.chat.accounts import Session
from moim.chat.feature import Feature, Iq, IqHandler, IqKey, Payload
from moim.errors import Conflict, MoimError, ProtocolError, Refused, UsageError
from moim.net.listener import client_key
from moim.net.rate import RateLimit
from moim.proto.xmpp import Element, StanzaError, error_reply, ns, prepare_local, result

_MAX_NAME = 255
_CHANGES_BURST = 5
_CHANGE_SECONDS = 60.0

_log = logging.getLogger("moim.chat.registration")


class Registrar(Protocol):
    """Where accounts are kept. An ``address`` is ``local@domain``."""

    async def set_password(self, address: str, password: str) -> None:
        """Gives an account another password. Raises UsageError for one that is too weak."""
        ...

    async def add(self, address: str, password: str) -> object:
        """Makes an account. Raises Conflict when there is one, UsageError for a bad name or password."""
        ...

    async def remove(self, address: str) -> None:
        """Removes an account with everything that belongs to it."""
        ...


class Registration:
    """Answers ``jabber:iq:register``: for accounts about themselves, and for strangers where ``open_to_strangers``.

    ``changes`` tells of a bare JID or a domain whether passwords may be changed there. ``per_hour`` bounds the accounts
    that one client address makes. ``farewell`` sends a last element to a session and ends it.
    """

    def __init__(
        self,
        registrar: Registrar,
        *,
        open_to_strangers: Callable[[str], bool],
        changes: Callable[[str], bool],
        per_hour: float,
        farewell: Callable[[Session, Element], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registrar = registrar
        self._open = open_to_strangers
        self._may_change = changes
        self._farewell = farewell
        self._clock = clock
        self._made = RateLimit(per_s=per_hour / 3600, burst=max(1.0, per_hour))
        self._changed = RateLimit(per_s=1 / _CHANGE_SECONDS, burst=_CHANGES_BURST)
        self.changing: set[Session] = set()
        """Sessions whose own change is under way: they do not end because of it before they heard the outcome."""
        handlers: dict[IqKey, IqHandler] = {
            ("get", ns.REGISTER, "query"): self._get,
            ("set", ns.REGISTER, "query"): self._set,
        }
        self.feature = Feature(
            name="XEP-0077 in-band registration",
            domain_vars=lambda domain: (ns.REGISTER,) if changes(domain) or open_to_strangers(domain) else (),
            server_iq=handlers,
            account_iq=handlers,
        )

    # --- people who are signed in -------------------------------------------------------------------------------

    def _get(self, iq: Iq) -> Payload:
        session = self._asker(iq)
        return (
            _query(
                Element("registered", ns.REGISTER),
                Element("username", ns.REGISTER, {}, (session.full.local,)),
                Element("password", ns.REGISTER),
            ),
        )

    async def _set(self, iq: Iq) -> Payload:
        session = self._asker(iq)
        if iq.payload.find("remove", ns.REGISTER) is not None:
            await self._remove(session, iq)
            return ()
        name, password = _credentials(iq.payload, "bad-request")
        if _prepared(name, session.full.domain) != session.full.local:
            raise StanzaError("forbidden", "this changes the password of your own account only")
        if not self._changed.take(session.bare, self._clock()):
            raise StanzaError("resource-constraint", "the password was changed too often; wait a minute", kind="wait")
        self.changing.add(session)
        try:
            await self._registrar.set_password(session.bare, password)
        except (UsageError, Refused) as error:
            raise StanzaError("not-acceptable", str(error)) from None
        finally:
            self.changing.discard(session)
        _log.info("%s changed the password from %s", session.bare, session.connection.peer)
        return ()

    async def _remove(self, session: Session, iq: Iq) -> None:
        if not self._open(session.full.domain):
            raise StanzaError("not-allowed", "accounts are removed by the administrator here")
        self.changing.add(session)
        try:
            await self._registrar.remove(session.bare)
        finally:
            self.changing.discard(session)
        _log.info("%s removed the account from %s", session.bare, session.connection.peer)
        self._farewell(session, result(iq.stanza))

    def _asker(self, iq: Iq) -> Session:
        if iq.session is None or (iq.to.local and not iq.own):
            raise StanzaError("forbidden", "only the account's owner may do this")
        if not (self._may_change(iq.session.bare) or self._open(iq.session.full.domain)):
            raise StanzaError("service-unavailable")
        return iq.session

    # --- strangers ----------------------------------------------------------------------------------------------

    async def stranger(self, iq: Element, domain: str, peer: str) -> Element:
        """Answers a request from before the sign-in, on a stream to ``domain``, from the IP address ``peer``."""
        try:
            payload = await self._stranger(iq, domain, peer)
        except StanzaError as error:
            refusal = error
        except MoimError as error:
            _log.error("an account cannot be made: %s", error)
            refusal = StanzaError("internal-server-error", "the server cannot do this at the moment", kind="wait")
        else:
            return result(iq, *payload)
        _log.warning("a registration from %s was refused: %s", peer, refusal.text or refusal.condition)
        return error_reply(iq, refusal) or result(iq)

    async def _stranger(self, iq: Element, domain: str, peer: str) -> Payload:
        query = iq.find("query", ns.REGISTER)
        if not self._open(domain) or query is None or not iq.get("id"):
            raise StanzaError("not-allowed" if query is not None else "bad-request", "accounts are not made this way")
        if iq.get("type") == "get":
            hint = Element("instructions", ns.REGISTER, {}, ("Choose a name and a password.",))
            return (_query(hint, Element("username", ns.REGISTER), Element("password", ns.REGISTER)),)
        name, password = _credentials(query, "not-acceptable")
        local = _prepared(name, domain)
        if not self._made.take(client_key(peer), self._clock()):
            raise StanzaError("resource-constraint", "too many accounts from your address; wait a while", kind="wait")
        try:
            await self._registrar.add(f"{local}@{domain}", password)
        except Conflict:
            raise StanzaError("conflict", "the name is taken") from None
        except UsageError as error:
            raise StanzaError("not-acceptable", str(error)) from None
        _log.info("%s@%s was made from %s", local, domain, peer)
        return ()


def _query(*children: Element) -> Element:
    return Element("query", ns.REGISTER, {}, children)


def _credentials(query: Element, missing: str) -> tuple[str, str]:
    """Name and password. Raises StanzaError ``missing`` without one of them (XEP-0077 sections 3.1 and 3.3)."""
    name, password = query.find("username", ns.REGISTER), query.find("password", ns.REGISTER)
    if name is None or password is None or not name.text.strip() or not password.text:
        raise StanzaError(missing, "a name and a password are needed")
    return name.text.strip(), password.text


def _prepared(name: str, domain: str) -> str:
    """The account's canonical name; some write the whole address."""
    local = name.removesuffix(f"@{domain}")
    try:
        if len(local) > _MAX_NAME:
            raise ProtocolError("the name is too long")
        return prepare_local(local)
    except ProtocolError as error:
        raise StanzaError("not-acceptable", error.message) from None
