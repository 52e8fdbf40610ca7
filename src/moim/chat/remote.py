"""Stanzas of other domains (RFC 6120 section 10.3, RFC 6121 sections 3, 4 and 8): what they may ask of this one.

Their ``from`` was proven by the stream they came on. Whatever only a user's own server may say is taken out or refused:
roster pushes, carbons, stanza ids in our name. Order is kept between a domain and an account; what waits is bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from typing import Protocol

from moim.chat.contacts import People
from moim.chat.custody import Custody, hold, working_on
from moim.chat.presence import Presence
from moim.chat.routing import Component, Router
from moim.chat.subscribing import Subscriptions
from moim.errors import MoimError, ProtocolError
from moim.proto.xmpp import SUBSCRIPTION_TYPES, Element, Jid, StanzaError, ns

_MAX_WAITING = 2000
_MAX_TASKS = 5000

_log = logging.getLogger("moim.chat.remote")


class Hears(Protocol):
    """A part that looks at what other domains' clients show."""

    def presence(self, owner: Jid, sender: Jid, stanza: Element) -> None:
        """Somebody's presence came to an account."""
        ...

    def answer(self, owner: Jid, sender: Jid, answer: Element) -> bool:
        """An answer to an account itself came; whether the part had asked."""
        ...


class Gate(Protocol):
    """Keeps out what accounts did not ask for."""

    async def admits(self, sender: Jid, to: Jid, stanza: Element) -> bool:
        """Whether a stanza goes on; one that does not was answered, or is with the StanzaError that this raises.

        Raises MoimError when that cannot be told.
        """
        ...


class SharedLists(Protocol):
    """Lists of senders that other operators keep out, too."""

    def admits(self, sender: Jid, stanza: Element) -> bool:
        """Whether a stanza goes on; one that does not was answered."""
        ...

    def take(self, sender: Jid, to: Jid, stanza: Element) -> bool:
        """Whether a stanza was about such a list itself, and is done with."""
        ...


class RemoteStanzas:
    """``domains`` are the hosted ones. ``hears`` is told of presence and answers."""

    def __init__(
        self,
        domains: Container[str],
        *,
        router: Router,
        people: People,
        presence: Presence,
        subscriptions: Subscriptions,
        components: Mapping[str, Component],
        hears: Collection[Hears] = (),
        gates: Sequence[Gate] = (),
        lists: SharedLists | None = None,
    ) -> None:
        self._domains = domains
        self._router = router
        self._people = people
        self._presence = presence
        self._subscriptions = subscriptions
        self._components = components
        self._hears = hears
        self._gates = gates
        self._lists = lists
        self._inboxes: dict[tuple[str, Jid], deque[tuple[Jid, Jid, Element, Custody | None]]] = {}
        self._waiting: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, stanza: Element, over: Callable[[bool], None] | None = None) -> None:
        """One stanza, or the error that answers one of ours. Never raises.

        ``over`` is called once when a message is dealt with: it may be acknowledged, or else the stream has to end.
        """
        if over is None:
            self._take(stanza)
            return
        held = Custody(over)
        try:
            with working_on(held):
                self._take(stanza)
        finally:
            held.release()

    def _take(self, stanza: Element) -> None:
        try:
            sender, to = Jid.parse(stanza.get("from") or ""), Jid.parse(stanza.get("to") or "")
        except ProtocolError as error:
            _log.warning("a stanza of another domain has no usable address: %s", error.message)
            return
        if self._lists is not None and self._out_of_lists(self._lists, sender, to, stanza):
            return
        if (component := self._components.get(to.domain)) is not None:
            component.send(stanza)
        elif to.domain not in self._domains:
            _log.warning("%s sent a stanza to %s, which is not served here", sender.domain, to.domain)
        else:
            self._queue(sender, to, self._clean(stanza, to))

    def _out_of_lists(self, lists: SharedLists, sender: Jid, to: Jid, stanza: Element) -> bool:
        if sender.domain in self._components:
            return False
        return lists.take(sender, to, stanza) or not lists.admits(sender, stanza)

    def _queue(self, sender: Jid, to: Jid, stanza: Element) -> None:
        key = (sender.domain, to.bare)
        inbox = self._inboxes.get(key)
        if inbox is not None:
            if self._waiting[sender.domain] >= _MAX_WAITING:
                refusal = StanzaError("resource-constraint", "this server has too much of yours to work on")
                self._router.reply(stanza, refusal)
                return
            self._waiting[sender.domain] += 1
            inbox.append((sender, to, stanza, hold()))
            return
        if len(self._tasks) >= _MAX_TASKS:
            self._router.reply(stanza, StanzaError("resource-constraint", "this server is too busy", kind="wait"))
            return
        self._inboxes[key] = deque()
        task = asyncio.create_task(self._work_off(key, sender, to, stanza, hold()), name="chat:remote")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work_off(
        self, key: tuple[str, Jid], sender: Jid, to: Jid, stanza: Element, held: Custody | None
    ) -> None:
        inbox = self._inboxes[key]
        try:
            while True:
                with working_on(held):
                    await self._one(sender, to, stanza)
                if held is not None:
                    held.release()
                if not inbox:
                    break
                sender, to, stanza, held = inbox.popleft()
                self._forget(sender.domain)
        finally:
            for _ in inbox:
                self._forget(key[0])
            del self._inboxes[key]

    def _forget(self, domain: str) -> None:
        self._waiting[domain] -= 1
        if self._waiting[domain] <= 0:
            del self._waiting[domain]

    async def _one(self, sender: Jid, to: Jid, stanza: Element) -> None:
        try:
            for gate in self._gates:
                if not await gate.admits(sender, to, stanza):
                    return
            if stanza.name == "presence":
                await self._take_presence(sender, to, stanza)
            elif stanza.name == "iq" and self._was_asked_for(sender, to, stanza):
                pass
            else:
                await self._router.from_outside(to, stanza)
        except StanzaError as error:
            self._router.reply(stanza, error)
        except MoimError as error:
            _log.error("a stanza of %s could not be handled: %s", sender, error)
            self._router.reply(stanza, StanzaError("internal-server-error", kind="wait"))
        except Exception:
            _log.exception("a stanza of %s could not be handled", sender)
            self._router.reply(stanza, StanzaError("internal-server-error"))

    def _was_asked_for(self, sender: Jid, to: Jid, iq: Element) -> bool:
        if to.resource or not to.local or iq.get("type") not in ("result", "error"):
            return False
        return any(part.answer(to, sender, iq) for part in self._hears)

    async def _take_presence(self, sender: Jid, to: Jid, stanza: Element) -> None:
        kind = stanza.get("type")
        if not to.local:
            return  # the server itself has no presence and asks for none
        if kind in SUBSCRIPTION_TYPES:
            if await self._people.exists(to.bare):
                bare = stanza.with_attrs({"from": str(sender.bare), "to": str(to.bare)})
                await self._subscriptions.received(str(to.bare), bare)
        elif kind == "probe":
            await self._presence.probed(sender, to.bare, exists=await self._people.exists(to.bare))
        elif kind in (None, "unavailable", "error"):
            self._presence.deliver(stanza, to)
            if kind != "error":
                for part in self._hears:
                    part.presence(to.bare, sender, stanza)
        else:
            raise StanzaError("bad-request", "that is not a type of presence")

    def _clean(self, stanza: Element, to: Jid) -> Element:
        """Takes out what only the recipient's own server may say."""
        if stanza.name != "message":
            return stanza
        kept = [child for child in stanza.children if isinstance(child, str) or not self._forged(child, to)]
        return stanza if len(kept) == len(stanza.children) else stanza.with_children(kept)

    def _forged(self, child: Element, to: Jid) -> bool:
        if (child.ns, child.name) == (ns.ARCHIVE, "result"):
            return not to.resource  # archives elsewhere answer the very session that asked
        if child.ns == ns.CARBONS:
            return child.name != "private"  # which says that no copies are wanted (XEP-0280 section 9)
        if (child.ns, child.name) == (ns.STANZA_IDS, "stanza-id"):
            return self._ours(child.get("by"))
        by = child.get("from")
        return (child.ns, child.name) == (ns.DELAY, "delay") and by is not None and self._ours(by)

    def _ours(self, address: str | None) -> bool:
        """Whether an address is of this server, or of nobody."""
        try:
            domain = Jid.parse(address or "").domain
        except ProtocolError:
            return True
        return domain in self._domains or domain in self._components

    async def stop(self) -> None:
        """Ends the work in progress."""
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
