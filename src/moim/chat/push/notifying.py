"""XEP-0357: programs ask to be woken, and are told through their makers' servers when a message waits for them.

A message waits when nobody is there for it, and for a program that is not connected though another one of the person
is. What a maker's server learns is only that something came, unless the administrator lets it learn more. A program
that is connected is not woken; one whose connection is lost but not given up is, for what comes meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Coroutine, Iterable, Sequence
from typing import Any, Literal

from moim.chat.accounts import Session
from moim.chat.archive.rows import Record
from moim.chat.feature import Feature, Iq, Luggage, Payload
from moim.chat.plane import Plane
from moim.chat.push.registrations import Key, Registration, Registrations
from moim.errors import LimitExceeded, MoimError, ProtocolError
from moim.net.rate import RateLimit
from moim.proto.xmpp import Element, Jid, StanzaError, message_type, ns, read_condition
from moim.proto.xmpp.dataform import Field, form, read_form

Summary = Literal["none", "count", "sender", "body"]
"""How much a maker's server is told: each word includes the ones before it."""

Deliver = Callable[[Sequence[tuple[Jid, Element]]], None]

_MAX_TEXT = 4096
_MAX_ASKED = 10_000
_MAX_HEARD = 2_000
_FAILURES = 10
_TAP = "push"
_FINAL = frozenset(
    {
        "item-not-found",
        "gone",
        "forbidden",
        "not-allowed",
        "not-authorized",
        "not-acceptable",
        "feature-not-implemented",
    }
)
_PUBLISH_OPTIONS = f"{ns.PUBSUB}#publish-options"
_WAKING = frozenset(
    {
        (ns.OMEMO, "encrypted"),
        (ns.OMEMO_AXOLOTL, "encrypted"),
        (ns.DIRECT_INVITATION, "x"),
        ("urn:xmpp:jingle-message:0", "propose"),
    }
)

_log = logging.getLogger("moim.chat.push")


def wakes(message: Element) -> bool:
    """Whether a message is worth waking somebody: words, a call or an invitation, not what is only about the moment."""
    if message_type(message) not in ("normal", "chat", "groupchat"):
        return False
    for child in message.elements():
        if (child.ns, child.name) in _WAKING:
            return True
        if (child.ns, child.name) == (ns.CLIENT, "body") and child.text:
            return True
        if (child.ns, child.name) == (ns.MUC_USER, "x") and child.find("invite", ns.MUC_USER) is not None:
            return True
    return False


class Push:
    """The feature. ``may`` tells who has it, by bare JID; ``deliver`` sends stanzas on; ``per_minute`` bounds what one
    registration is told."""

    def __init__(
        self,
        domains: Container[str],
        registrations: Registrations,
        *,
        plane: Plane,
        may: Callable[[str], bool],
        deliver: Deliver,
        summary: Summary,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registrations = registrations
        self._domains = domains
        self._plane = plane
        self._may = may
        self._deliver = deliver
        self._summary = summary
        self._clock = clock
        self._rate = RateLimit(per_s=per_minute / 60, burst=max(3, per_minute / 6))
        self._enabled: dict[str, dict[Session, set[Key]]] = {}
        self._asleep: set[Session] = set()
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._waiting: dict[str, tuple[Element, int]] = {}
        self._heard: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._late: dict[tuple[str, Key], asyncio.TimerHandle] = {}
        self._asked: OrderedDict[str, Registration] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self.feature = Feature(
            name="XEP-0357 push notifications",
            account_vars=(ns.PUSH,),
            offered=may,
            account_iq={("set", ns.PUSH, "enable"): self._enable, ("set", ns.PUSH, "disable"): self._disable},
            on_start=registrations.start,
            on_stop=self._stop,
            on_available=self._available,
            on_incoming=self.incoming,
            on_spread=self.spread,
            on_detached=self.detached,
            on_resumed=self.resumed,
            on_outside_answer=self._answered,
            on_gone=self._gone,
            luggage=Luggage(lambda session: sorted(self._enabled.get(session.bare, {}).get(session, ())), self._unpack),
            on_account_removed=registrations.remove,
        )

    async def _stop(self) -> None:
        for timer in self._late.values():
            timer.cancel()
        self._late.clear()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.registrations.stop()

    # --- what programs ask for ----------------------------------------------------------------------------------

    async def _enable(self, iq: Iq) -> Payload:
        session = iq.owner
        if not self._may(session.bare):
            raise StanzaError("service-unavailable", "your programs are not woken")
        service = self._service(iq.payload)
        node = iq.payload.get("node") or ""
        options = iq.payload.find("x", ns.DATA_FORMS)
        text = ""
        if options is not None:
            kind, _ = read_form(options)
            if kind != _PUBLISH_OPTIONS:
                raise StanzaError("bad-request", "the form is not one of publish-options")
            text = options.to_xml("")
        if len(text) > _MAX_TEXT or len(node) > _MAX_TEXT:
            raise StanzaError("not-acceptable", f"node and options may have {_MAX_TEXT} characters")
        registration = Registration(session.bare, str(service), node, text)
        try:
            await self.registrations.add(registration)
        except LimitExceeded as error:
            raise StanzaError("resource-constraint", error.message) from None
        if not session.gone:
            self._enabled.setdefault(session.bare, {}).setdefault(session, set()).add(registration.key)
        return ()

    def _service(self, payload: Element) -> Jid:
        try:
            service = Jid.parse(payload.get("jid") or "")
        except ProtocolError:
            raise StanzaError("jid-malformed", "the 'jid' of an app server is missing or none") from None
        if service.domain in self._domains and not service.resource:
            raise StanzaError("not-allowed", "accounts of this server are no app servers")
        return service

    async def _disable(self, iq: Iq) -> Payload:
        session = iq.owner
        service, node = str(self._service(iq.payload)), iq.payload.get("node")
        await self.registrations.remove(session.bare, service, node)
        for keys in self._enabled.get(session.bare, {}).values():
            keys.difference_update({key for key in keys if key[0] == service and node in (None, key[1])})
        return ()

    # --- who is there -------------------------------------------------------------------------------------------

    def _available(self, session: Session, _first: bool) -> None:
        self._counts.pop(session.bare, None)

    def detached(self, session: Session) -> None:
        """The connection of a session is lost, and may come back (XEP-0198): its program is woken for what comes.

        Also for what went out to it last: a phone that was put to sleep confirms nothing, and nobody notices at once.
        """
        if session not in self._enabled.get(session.bare, {}):
            return
        self._asleep.add(session)
        self._plane.tap(session.sid, True, _TAP)
        missed = [message for message in session.unconfirmed if wakes(message)]
        if missed:
            self._spawn(self._tell(session.bare, missed[-1], len(missed), self._enabled[session.bare][session]))

    def resumed(self, session: Session) -> None:
        """The program is connected again."""
        if session in self._asleep:
            self._asleep.discard(session)
            self._plane.tap(session.sid, False, _TAP)

    def _unpack(self, session: Session, packed: Any) -> None:
        if packed:
            self._enabled.setdefault(session.bare, {})[session] = {(service, node) for service, node in packed}

    def _gone(self, session: Session) -> None:
        self._asleep.discard(session)
        sessions = self._enabled.get(session.bare)
        if sessions is not None:
            sessions.pop(session, None)
            if not sessions:
                del self._enabled[session.bare]

    def _connected(self, owner: str) -> Collection[Key]:
        sessions = self._enabled.get(owner, {})
        return {key for session, keys in sessions.items() if session not in self._asleep for key in keys}

    # --- what comes in ------------------------------------------------------------------------------------------

    def recorded(self, records: Iterable[Record]) -> None:
        """Messages that the plane delivered by its table and that belong into archives: see ``incoming``."""
        for _, sender, to, owners, message in records:
            owner = to.partition("/")[0]
            if owner in self.registrations and owner in owners:
                self.incoming(owner, message.with_attrs({"from": sender}))

    def spread(self, message: Element, to: Container[Jid]) -> None:
        """A room's message to the sessions of these full JIDs: those without a connection are woken."""
        if self._asleep and wakes(message):
            for session in self._asleep:
                if session.full in to:
                    self.incoming(session.bare, message)

    def incoming(self, owner: str, message: Element) -> None:
        """A message for an account, whether anybody is there or not: programs that are not connected are woken."""
        if owner not in self.registrations or not wakes(message) or self._heard_before(owner, message):
            return
        before = self._waiting.get(owner)
        if before is None:
            self._spawn(self._tell(owner))
        # Those that come while the registrations are read are told together.
        self._waiting[owner] = (message, before[1] + 1 if before is not None else 1)

    def _heard_before(self, owner: str, message: Element) -> bool:
        """Whether a message came both ways: through Python, and as a record of the plane's."""
        identifier = message.get("id")
        if not identifier:
            return False
        key = (owner, message.get("from") or "", identifier)
        if key in self._heard:
            return True
        self._heard[key] = None
        while len(self._heard) > _MAX_HEARD:
            self._heard.popitem(last=False)
        return False

    async def _tell(
        self, owner: str, message: Element | None = None, count: int = 0, only: Collection[Key] | None = None
    ) -> None:
        """Tells of one message, or of those that wait; ``only`` these programs, or all that are not connected."""
        try:
            found = await self.registrations.of(owner)
        except MoimError as error:
            _log.error("nobody of %s is woken: %s", owner, error)
            found = ()
        if message is None:
            message, count = self._waiting.pop(owner)
        if not self._may(owner):
            return
        connected = self._connected(owner)
        asleep = [r for r in found if r.key not in connected and (only is None or r.key in only)]
        if asleep:
            self._counts[owner] = self._counts.pop(owner, 0) + count
        while len(self._counts) > _MAX_ASKED:
            self._counts.popitem(last=False)
        for registration in asleep:
            self._notify(registration, message)

    def _notify(self, registration: Registration, message: Element) -> None:
        """Wakes one program now, or as soon as it may be woken again."""
        place = (registration.owner, registration.key)
        if place in self._late:
            return
        wait = self._rate.wait("\0".join((registration.owner, *registration.key)), self._clock())
        if wait > 0 and len(self._late) < _MAX_ASKED:
            self._late[place] = asyncio.get_running_loop().call_later(wait, self._notify_late, registration, message)
        elif wait <= 0:
            self._publish(registration, message)

    def _notify_late(self, registration: Registration, message: Element) -> None:
        del self._late[registration.owner, registration.key]
        if registration.owner in self._counts and registration.key not in self._connected(registration.owner):
            self._notify(registration, message)

    # --- what is told -------------------------------------------------------------------------------------------

    def _publish(self, registration: Registration, message: Element) -> None:
        identifier = f"push-{secrets.token_urlsafe(12)}"
        self._asked[identifier] = registration
        while len(self._asked) > _MAX_ASKED:
            self._asked.popitem(last=False)
        note = Element("notification", ns.PUSH, {}, self._summarised(registration.owner, message))
        node = {"node": registration.node} if registration.node else {}
        item = Element("item", ns.PUBSUB, {}, (note,))
        payload = [Element("publish", ns.PUBSUB, node, (item,))]
        if registration.options:
            options = Element.parse(registration.options)
            payload.append(Element("publish-options", ns.PUBSUB, {}, (options,)))
        attrs = {"type": "set", "id": identifier, "from": registration.owner, "to": registration.service}
        iq = Element("iq", ns.CLIENT, attrs, (Element("pubsub", ns.PUBSUB, {}, tuple(payload)),))
        self._deliver([(Jid.parse(registration.service), iq)])

    def _summarised(self, owner: str, message: Element) -> tuple[Element, ...]:
        if self._summary == "none":
            return ()
        fields = [Field("message-count", values=(str(self._counts.get(owner, 1)),))]
        if self._summary in ("sender", "body"):
            fields.append(Field("last-message-sender", values=(message.get("from") or "",)))
        body = message.find("body", ns.CLIENT)
        if self._summary == "body" and body is not None:
            fields.append(Field("last-message-body", values=(body.text[:_MAX_TEXT],)))
        return (form("form", ns.PUSH_SUMMARY, fields),)

    def _answered(self, owner: Jid, sender: Jid, answer: Element) -> bool:
        """What an app server says: an error may be its last word about a registration."""
        registration = self._asked.get(answer.get("id") or "")
        if registration is None or registration.owner != str(owner) or registration.service != str(sender):
            return False
        del self._asked[answer.get("id") or ""]
        if answer.get("type") == "error":
            condition, _ = read_condition(answer.find("error", ns.CLIENT), ns.STANZA_ERRORS)
            self._spawn(self._failed(registration, condition))
        elif registration.failures:
            self._spawn(self._worked(registration))
        return True

    async def _failed(self, registration: Registration, condition: str) -> None:
        try:
            most = 1 if condition in _FINAL else _FAILURES
            if await self.registrations.failed(registration, most):
                for keys in self._enabled.get(registration.owner, {}).values():
                    keys.discard(registration.key)
                _log.info(
                    "%s is not woken through %s any more: %s", registration.owner, registration.service, condition
                )
        except MoimError as error:
            _log.error("a push registration of %s could not be changed: %s", registration.owner, error)

    async def _worked(self, registration: Registration) -> None:
        try:
            await self.registrations.worked(registration)
        except MoimError as error:
            _log.error("a push registration of %s could not be changed: %s", registration.owner, error)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="chat:push")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
