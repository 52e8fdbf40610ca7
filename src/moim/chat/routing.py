"""Where a stanza goes that the plane did not deliver itself: the rules of RFC 6120 section 10 and RFC 6121 section 8.

A refusal is a StanzaError, which the caller turns into the error reply; nothing here answers an error or a result.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Container, Coroutine, Mapping, Sequence
from inspect import isawaitable
from typing import Protocol

from moim.chat.accounts import Accounts, Session
from moim.chat.archive import Archive
from moim.chat.archive.rules import cleaned
from moim.chat.audience import Audience
from moim.chat.block_lists import BlockLists, matches
from moim.chat.blocking import blocked_error
from moim.chat.contacts import People
from moim.chat.custody import hold_until
from moim.chat.feature import Feature, Iq, Payload, hooks, iq_table
from moim.chat.offline import OfflineMessages, worth_keeping
from moim.chat.plane import Plane
from moim.chat.presence import Presence
from moim.chat.subscribing import Subscriptions
from moim.errors import MoimError, ProtocolError
from moim.proto.xmpp import (
    STANZAS,
    SUBSCRIPTION_TYPES,
    Element,
    Jid,
    StanzaError,
    archivable,
    check_iq,
    error_reply,
    message_type,
    ns,
    result,
)

Work = Awaitable[None] | None

_OWN_SERVERS_WORD = frozenset({ns.ROSTER, ns.BLOCKING})
"""Requests that a client gets from its own account alone."""

_log = logging.getLogger("moim.chat.routing")


class Component(Protocol):
    """A part of this server with a domain of its own."""

    def send(self, stanza: Element) -> None:
        """Takes a stanza for its domain; failures come back as error stanzas."""
        ...


class Federation(Protocol):
    """The way to other domains."""

    def send(self, stanza: Element) -> None:
        """Takes a stanza for another domain; failures come back as error stanzas."""
        ...


class Router:
    """Judges one stanza after the other. A result that is awaitable has to be awaited before the session's next.

    ``gateways`` are those components whose addresses may be contacts. ``leaves`` raises StanzaError for what an account
    (bare JID) may not send to an address elsewhere.
    """

    def __init__(
        self,
        domains: Container[str],
        *,
        accounts: Accounts,
        people: People,
        plane: Plane,
        block_lists: BlockLists,
        offline: OfflineMessages,
        archive: Archive | None,
        presence: Presence,
        subscriptions: Subscriptions,
        features: Sequence[Feature],
        federation: Federation | None,
        components: Mapping[str, Component],
        gateways: Collection[str] = (),
        leaves: Callable[[str, Jid, Element], None] = lambda owner, to, stanza: None,
    ) -> None:
        self._domains = domains
        self._accounts = accounts
        self._people = people
        self._plane = plane
        self._block_lists = block_lists
        self._offline = offline
        self._archive = archive
        self._presence = presence
        self._subscriptions = subscriptions
        self._federation = federation
        self._components = components
        self._gateways = frozenset(gateways)
        self._leaves = leaves
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_answer = hooks(features, lambda feature: feature.on_answer)
        self._on_outside_answer = hooks(features, lambda feature: feature.on_outside_answer)
        self._on_incoming = hooks(features, lambda feature: feature.on_incoming)
        self._on_spread = hooks(features, lambda feature: feature.on_spread)
        self._server_iq = iq_table(features, lambda feature: feature.server_iq)
        self._account_iq = iq_table(features, lambda feature: feature.account_iq)

    def stanza(self, session: Session, stanza: Element) -> Work:
        """A stanza of a bound local session; the plane stamped its ``from``. Raises StanzaError."""
        if stanza.ns != ns.CLIENT or stanza.name not in STANZAS:
            raise StanzaError("bad-request", "only message, presence and iq are stanzas")
        to = _address(stanza, "to")
        if (
            self._archive is not None
            and stanza.name != "message"
            and to is not None
            and self._archive.waiting(session.full, to)
        ):
            return self._in_turn(session, stanza)
        if to is not None and self._block_lists.blocks(session.bare, to):
            if stanza.name == "presence" and stanza.get("type") == "unavailable":
                return None  # they saw it leave when it began to block them
            raise blocked_error()
        if to is not None and to.domain not in self._domains:
            self._leaves(session.bare, to, stanza)
        if stanza.name == "message":
            return self._message(stanza, session.full, to or session.full.bare)
        if stanza.name == "presence":
            return self._client_presence(session, stanza, to)
        return self._iq(session, stanza, session.full, to or session.full.bare)

    async def _in_turn(self, session: Session, stanza: Element) -> None:
        """What comes after messages that wait for their commit does not overtake them (RFC 6120 section 10.1)."""
        if self._archive is not None:
            await self._archive.settled()
        work = self.stanza(session, stanza)
        if work is not None:
            await work

    def reply(self, stanza: Element, error: StanzaError, session: Session | None = None) -> None:
        """Answers ``stanza`` with an error, where one may be sent (RFC 6120 section 8.3.1).

        ``session`` is the one that sent it, when it is known and local.
        """
        reply = error_reply(stanza, error)
        if reply is None:
            return
        if session is not None:
            self._plane.send(session.sid, [reply])
            if reply.name == "message":
                self._plane.copy([reply])
            return
        sender = _address(reply, "to")
        if sender is None:
            return
        if sender.domain not in self._domains:
            self._send_out(reply)
        elif (session := self._accounts.session(sender)) is not None:
            self._plane.send(session.sid, [reply])

    def remote(self, stanza: Element) -> None:
        """Sends to another domain. Raises StanzaError for what expects an answer while there is no federation."""
        if (component := self._component(stanza)) is not None:
            component.send(stanza)
        elif self._federation is not None:
            self._federation.send(stanza)
        elif stanza.name != "presence" or stanza.get("type") == "subscribe":
            raise StanzaError("remote-server-not-found", "this server exchanges nothing with other domains")

    def _send_out(self, stanza: Element) -> None:
        if (component := self._component(stanza)) is not None:
            component.send(stanza)
        elif self._federation is not None:
            self._federation.send(stanza)

    def _component(self, stanza: Element) -> Component | None:
        if not self._components:
            return None
        to = _address(stanza, "to")
        return self._components.get(to.domain) if to is not None else None

    # --- from components ----------------------------------------------------------------------------------------

    def deliver(self, batch: Sequence[tuple[Jid, Element]]) -> None:
        """Stanzas of a component, in order, each with the address that it carries as ``to``."""
        local: list[tuple[int, Element]] = []
        for to, stanza in batch:
            if to.domain not in self._domains:
                self._send_out(stanza)
            elif to.resource and (session := self._accounts.session(to)) is not None:
                if self._archive is not None and stanza.name == "message" and archivable(stanza):
                    self._plane.send_many(local)
                    local = []
                    self._in_private(to, stanza)
                elif not self._shut_out(session, stanza):
                    local.append((session.sid, stanza))
                    self._spread(stanza, (to,))
            elif stanza.name != "presence":
                self._plane.send_many(local)
                local = []
                self._spawn(self._for_account(to, stanza))
        self._plane.send_many(local)

    def fan_out(self, stanza: Element, audience: Audience, skip: Collection[Jid] = ()) -> None:
        """One stanza of a component, without ``to``, for everybody in ``audience`` but those in ``skip``."""
        sids, others = audience.reach((self._block_lists.version, self._accounts.moves), self._reached, skip)
        if sids:
            self._plane.fan_out(stanza, sids)
            self._spread(stanza, audience)
        if others:
            self.deliver([(jid, stanza.with_attrs({"to": str(jid)})) for jid in others])

    def _spread(self, stanza: Element, to: Container[Jid]) -> None:
        if stanza.name == "message":
            for hook in self._on_spread:
                hook(stanza, to)

    def _reached(self, jid: Jid) -> int | None:
        """The session of a full JID that hears everything; what others hear is judged each time."""
        session = self._accounts.session(jid) if jid.domain in self._domains else None
        if session is None or self._block_lists.of(session.bare):
            return None
        return session.sid

    def _in_private(self, to: Jid, message: Element) -> None:
        """A component's message for a session that is there, and for its account's archive."""
        try:
            if (sender := _address(message, "from")) is not None:
                self._message(message, sender, to)
        except StanzaError as error:
            self.reply(message, error)

    def _shut_out(self, session: Session, stanza: Element) -> bool:
        """Whether the session's account blocks the sender, a whole room or one of its occupants; answers pass."""
        blocked = self._block_lists.of(session.bare)
        if not blocked or stanza.get("type") in ("result", "error"):
            return False
        sender = _address(stanza, "from")
        return sender is not None and matches(blocked, sender)

    async def from_outside(self, to: Jid, stanza: Element) -> None:
        """A message or request of another domain, for an account or for this server; the sender was proven."""
        await self._for_account(to, stanza)

    async def _for_account(self, to: Jid, stanza: Element) -> None:
        """A component's message or request for an account, or for a session that is not there."""
        try:
            sender = _address(stanza, "from")
            if sender is None:
                return
            if stanza.name == "message":
                work = self._message(stanza, sender, to)
            else:
                work = self._iq(None, stanza, sender, to)
            if work is not None:
                await work
        except StanzaError as error:
            self.reply(stanza, error)
        except MoimError as error:
            _log.error("a stanza from %s could not be handled: %s", stanza.get("from"), error)
            self.reply(stanza, StanzaError("internal-server-error", kind="wait"))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="chat:component")
        hold_until(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- messages -----------------------------------------------------------------------------------------------

    def _message(self, message: Element, sender: Jid, to: Jid) -> Work:
        message = _canonical(message, to)
        if to.domain not in self._domains:
            if self._federation is None and to.domain not in self._components:
                self.remote(message)  # it says why not
            self._keep(message, sender, to, self._away)
            return None
        kind = message_type(message)
        if self._block_lists.blocks(str(to.bare), sender):
            if kind in ("error", "headline"):
                return None
            raise StanzaError("service-unavailable")
        for hook in self._on_incoming:
            hook(str(to.bare), message)
        if to.resource and self._accounts.session(to) is not None:
            self._hand_over(message, sender, to)
            return None
        if kind == "error":
            return None
        if kind == "headline":
            if to.is_bare:
                self._plane.send_many([(session.sid, message) for session in self._receiving(to)])
            return None
        # Only a chat goes on to the account's other sessions (RFC 6121 section 8.5.3.2.1).
        if kind == "groupchat" or not to.local or (to.resource and kind != "chat"):
            raise StanzaError("service-unavailable")
        if not self._receiving(to):
            return self._store(message, sender, to)
        self._hand_over(message, sender, to)
        return None

    def _hand_over(self, message: Element, sender: Jid, to: Jid) -> None:
        """A message for somebody who is there. The plane's table decides where it knows all sessions of both."""
        if self._accounts.abroad(str(to.bare)) or self._accounts.abroad(str(sender.bare)):
            self._keep(message, sender, to, self._away)
        else:
            self._keep(message, sender, to, self._deliver, delivered=True)

    def _keep(
        self,
        message: Element,
        sender: Jid,
        to: Jid,
        go_on: Callable[[Element, Jid, Jid, frozenset[str]], None],
        *,
        delivered: bool = False,
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """Archives a message, then goes on with it; its sender hears when it cannot. See ``Archive.message``."""
        if self._archive is None:
            go_on(message, sender, to, kept)
            return

        def then(stamped: Element, owners: frozenset[str]) -> None:
            try:
                go_on(stamped, sender, to, owners)
            except StanzaError as error:
                self.reply(message, error)
            except Exception:
                _log.exception("an archived message could not go on")
                self.reply(message, StanzaError("internal-server-error"))

        def failed(error: StanzaError) -> None:
            self.reply(message, error)

        self._archive.message(message, sender, to, delivered=delivered, then=then, failed=failed, kept=kept)

    def _deliver(self, message: Element, sender: Jid, to: Jid, kept: frozenset[str]) -> None:
        """To the sessions that the message is for: by the plane's table, unless somebody's archive has it already."""
        if kept:
            self._away(message, sender, to, kept)
            return
        for missed in self._plane.deliver([message]):
            self._keep(missed, sender, to, self._away, kept=kept)

    def _away(self, message: Element, sender: Jid, to: Jid, kept: frozenset[str]) -> None:
        """To where the plane's table does not lead; for those who are away, to their offline messages."""
        self._plane.copy([cleaned(message, (str(to.bare),))])  # the sender's other devices have another archive
        if to.domain not in self._domains:
            self.remote(message)
        elif to.resource and (session := self._accounts.session(to)) is not None:
            self._plane.send(session.sid, [message])
        elif receiving := self._receiving(to):
            self._plane.send_many([(session.sid, message) for session in receiving])
        elif message_type(message) in ("normal", "chat") and worth_keeping(message):
            self._offline.keep(str(to.bare), message, archived=str(to.bare) in kept)

    def _receiving(self, to: Jid) -> list[Session]:
        account = self._accounts.get(str(to.bare))
        return account.receiving() if account is not None else []

    async def _store(self, message: Element, sender: Jid, to: Jid) -> None:
        if not await self._people.exists(to.bare):
            raise StanzaError("service-unavailable")
        self._keep(message, sender, to, self._away)

    # --- presence -----------------------------------------------------------------------------------------------

    def _client_presence(self, session: Session, stanza: Element, to: Jid | None) -> Work:
        kind = stanza.get("type")
        if kind in (None, "unavailable"):
            if to is None:
                return self._presence.broadcast(session, stanza)
            self._presence.directed(session, stanza, to)
        elif kind in SUBSCRIPTION_TYPES:
            if to is None:
                raise StanzaError("bad-request", "a subscription stanza needs an address")
            if to.domain in self._components and to.domain not in self._gateways:
                # Components keep no contact lists: what they are asked for leaves no trace in the asker's own.
                self.remote(_canonical(stanza, to))
            elif to.domain not in self._domains and self._federation is None and to.domain not in self._gateways:
                self.remote(stanza)
            elif to.local or to.domain not in self._domains:
                return self._subscriptions.sent(session.bare, to, stanza)
        elif kind == "probe":
            if to is not None:
                self._presence.probe(session, to)
        elif kind == "error":
            if to is not None and to.resource:
                self._presence.deliver(_canonical(stanza, to), to)
        else:
            raise StanzaError("bad-request", "that is not a type of presence")
        return None

    # --- requests -----------------------------------------------------------------------------------------------

    def _iq(self, session: Session | None, iq: Element, sender: Jid, to: Jid) -> Work:
        payload = check_iq(iq)
        if to.domain not in self._domains:
            self.remote(_canonical(iq, to))
            return None
        if self._block_lists.blocks(str(to.bare), sender):
            if payload is None:
                return None
            raise StanzaError("service-unavailable")
        if to.resource:
            pushed = payload is not None and payload.ns in _OWN_SERVERS_WORD and iq.get("type") == "set"
            if pushed and sender.bare != to.bare:
                # As when nobody has the resource (section 8.5.3.2.3): the answer says nothing of who is there.
                raise StanzaError("service-unavailable", "only the account's own server says this")
            target = self._accounts.session(to)
            if target is not None:
                self._plane.send(target.sid, [_canonical(iq, to)])
            elif payload is not None:
                raise StanzaError("service-unavailable")
            return None
        if payload is None:
            if to.local and (session is None or session.bare != str(to)):
                any(hook(to, sender, iq) for hook in self._on_outside_answer)
                return None
            return self._answered(session, iq)
        table = self._account_iq if to.local else self._server_iq
        handler = table.get((iq.get("type"), payload.ns, payload.name))  # type: ignore[arg-type]
        if handler is None:
            raise StanzaError("service-unavailable")
        answer = handler(Iq(iq, payload, sender, to, session))
        if isawaitable(answer):
            return self._answer_later(iq, session, answer)
        self._answer(iq, session, answer)
        return None

    def _answered(self, session: Session | None, answer: Element) -> Work:
        """The answer to a request of the server's own; what nobody asked for is dropped."""
        if session is not None:
            for hook in self._on_answer:
                work = hook(session, answer)
                if work is not None:
                    return work
        return None

    async def _answer_later(self, iq: Element, session: Session | None, answer: Awaitable[Payload]) -> None:
        self._answer(iq, session, await answer)

    def _answer(self, iq: Element, session: Session | None, payload: Payload) -> None:
        """To the very session that asked: by now another one may have its address."""
        reply = result(iq, *payload)
        if session is None:
            self._send_out(reply)
        else:
            self._plane.send(session.sid, [reply])


def _address(stanza: Element, attribute: str) -> Jid | None:
    text = stanza.get(attribute)
    if text is None:
        return None
    try:
        return Jid.parse(text)
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None


def _canonical(stanza: Element, to: Jid) -> Element:
    text = str(to)
    return stanza if stanza.get("to") == text else stanza.with_attrs({"to": text})
