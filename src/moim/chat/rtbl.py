"""Real-time block lists: addresses that other operators found to send spam, from pubsub nodes that the settings name.

An item's id is the SHA-256 of a bare JID or of a domain, in hexadecimal. The list is read when the server starts and
again every few hours, and follows the service's notifications in between (XEP-0060 sections 6.1, 6.5 and 7.1). While
the service is away, what was learnt counts on. Nothing but its own answers and notifications is believed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

from moim.chat.refusals import Refusals
from moim.errors import ConfigError, ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns, read_condition

_ANSWER_SECONDS = 60.0
_AGAIN_SECONDS = 6 * 3600.0
_FIRST_RETRY = 30.0
_LONGEST_RETRY = 3600.0
_PAGE = 1000
_MAX_PAGES = 200
_MAX_ENTRIES = 200_000
_HASH = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger("moim.chat.rtbl")


@dataclass(frozen=True, slots=True)
class Source:
    """A pubsub node with a list."""

    service: Jid
    node: str


def source(uri: str) -> Source:
    """The node that ``xmpp:SERVICE?node=NODE`` names. Raises ConfigError."""
    match = re.fullmatch(r"xmpp:([^?#]+)\?(?:[a-z]*;)?(?:[^#;]*;)*?node=([^;#]{1,3000})", uri)
    if match is None:
        raise ConfigError(f"chat.shared_block_lists: '{uri}' is no list", hint="write xmpp:SERVICE?node=NODE")
    try:
        return Source(Jid.parse(unquote(match[1])), unquote(match[2]))
    except ProtocolError as error:
        raise ConfigError(f"chat.shared_block_lists: '{uri}' has no address: {error.message}") from error


@lru_cache(maxsize=16_384)
def digest(text: str) -> str:
    """How a list writes a bare JID or a domain."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class _List:
    source: Source
    entries: set[str] = field(default_factory=set)
    coming: set[str] | None = None
    """What a new reading found so far, until it is complete."""
    waiting: str = ""
    answer: asyncio.Future[Element] | None = None


class SharedBlockLists:
    """``send`` takes a stanza for another domain; ``domain`` is who subscribes, for all."""

    def __init__(
        self,
        domain: str,
        sources: Sequence[Source],
        *,
        send: Callable[[Element], None],
        refusals: Refusals,
        retry: float = _FIRST_RETRY,
    ) -> None:
        self._domain = domain
        self._lists = [_List(found) for found in dict.fromkeys(sources)]
        self._send = send
        self._refusals = refusals
        self._retry = retry
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to read the lists, and to keep them."""
        self._tasks = [asyncio.create_task(self._keep(one), name="chat:rtbl") for one in self._lists]

    async def stop(self) -> None:
        """Follows the lists no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def __len__(self) -> int:
        return sum(len(one.entries) for one in self._lists)

    def lists(self, sender: Jid) -> bool:
        """Whether the sender or its domain is on a list; the services that keep lists are not, whatever they say."""
        if any(sender.domain == one.source.service.domain for one in self._lists):
            return False
        bare, domain = digest(str(sender.bare)), digest(sender.domain)
        return any(bare in one.entries or domain in one.entries for one in self._lists)

    def admits(self, sender: Jid, stanza: Element) -> bool:
        """Whether a stanza of another domain goes on: what comes from a listed address is refused, but may leave."""
        if not self.lists(sender):
            return True
        if stanza.name == "presence" and stanza.get("type") in ("unavailable", "unsubscribe", "unsubscribed"):
            return True
        error = StanzaError("forbidden", "your address is on a block list that this server uses")
        self._refusals.refuse("block list", sender, stanza, error, "the sender is on a shared block list")
        if stanza.name == "presence" and stanza.find("x", ns.MUC) is not None:
            self._refusals.answer(sender, stanza, error)  # who enters a room waits for a word
        return False

    # --- what services say --------------------------------------------------------------------------------------

    def take(self, sender: Jid, to: Jid, stanza: Element) -> bool:
        """Whether a stanza was for a list here: an answer that is waited for, or a notification of a known node."""
        if to.local or to.domain != self._domain:
            return False
        mine = [one for one in self._lists if one.source.service == sender]
        if stanza.name == "iq" and stanza.get("type") in ("result", "error"):
            for one in mine:
                if one.waiting and stanza.get("id") == one.waiting and one.answer is not None:
                    if not one.answer.done():
                        one.answer.set_result(stanza)
                    return True
            return False
        event = stanza.find("event", ns.PUBSUB_EVENT) if stanza.name == "message" and mine else None
        if event is None or stanza.get("type") == "error":
            return False
        for change in event.elements():
            for one in mine:
                if change.ns == ns.PUBSUB_EVENT and change.get("node") == one.source.node:
                    _apply(one, change)
        return True

    # --- keeping a list -----------------------------------------------------------------------------------------

    async def _keep(self, one: _List) -> None:
        wait = self._retry
        while True:
            try:
                await self._read(one)
            except (TimeoutError, StanzaError) as error:
                why = error.message if isinstance(error, StanzaError) else "it does not answer"
                _log.warning(
                    "the block list %s of %s could not be read: %s; %d entries known before count on",
                    one.source.node, one.source.service, why, len(one.entries),
                )  # fmt: skip
                pause, wait = wait, min(wait * 2, _LONGEST_RETRY)
            else:
                _log.info("the block list %s of %s: %d entries", one.source.node, one.source.service, len(one.entries))
                pause, wait = _AGAIN_SECONDS, self._retry
            await asyncio.sleep(pause * random.uniform(0.9, 1.1))  # noqa: S311  # so that not all ask at once

    async def _read(self, one: _List) -> None:
        """Subscribes, then reads every page. Raises TimeoutError or StanzaError; then nothing changed."""
        subscribe = Element("subscribe", ns.PUBSUB, {"node": one.source.node, "jid": self._domain})
        await self._ask(one, "set", Element("pubsub", ns.PUBSUB, {}, (subscribe,)))
        one.coming = set()
        try:
            after = ""
            for _ in range(_MAX_PAGES):
                answer = await self._ask(one, "get", _page(one.source.node, after))
                last = _take_page(one, answer)
                if not last or last == after:
                    break
                after = last
            one.entries = one.coming
        finally:
            one.coming = None

    async def _ask(self, one: _List, kind: str, payload: Element) -> Element:
        one.waiting = f"rtbl-{random.SystemRandom().getrandbits(64):016x}"
        one.answer = asyncio.get_running_loop().create_future()
        attrs = {"type": kind, "id": one.waiting, "from": self._domain, "to": str(one.source.service)}
        try:
            self._send(Element("iq", ns.CLIENT, attrs, (payload,)))
            answer = await asyncio.wait_for(one.answer, _ANSWER_SECONDS)
        finally:
            one.waiting, one.answer = "", None
        if answer.get("type") == "error":
            condition, _ = read_condition(answer.find("error"), ns.STANZA_ERRORS)
            raise StanzaError("undefined-condition", f"it answered {condition}")
        return answer


def _page(node: str, after: str) -> Element:
    items = Element("items", ns.PUBSUB, {"node": node})
    size = Element("max", ns.RSM, {}, (str(_PAGE),))
    page = (size, Element("after", ns.RSM, {}, (after,))) if after else (size,)
    return Element("pubsub", ns.PUBSUB, {}, (items, Element("set", ns.RSM, {}, page)))


def _take_page(one: _List, answer: Element) -> str:
    """Adds the items of a page; what the next page comes after, empty when there is none."""
    pubsub = answer.find("pubsub", ns.PUBSUB)
    items = pubsub.find("items", ns.PUBSUB) if pubsub is not None else None
    if pubsub is None or items is None or items.get("node") != one.source.node:
        raise StanzaError("undefined-condition", "it answered with something else than items")
    found = [item.get("id") or "" for item in items.elements() if item.name == "item"]
    _add(one.coming, found)
    page = pubsub.find("set", ns.RSM)
    last = page.find("last", ns.RSM) if page is not None else None
    return last.text if last is not None and found else ""


def _apply(one: _List, change: Element) -> None:
    for entries in (one.entries, one.coming):
        if entries is None:
            continue
        if change.name in ("purge", "delete"):
            entries.clear()
        elif change.name == "items":
            _add(entries, [x.get("id") or "" for x in change.elements() if x.name == "item"])
            entries.difference_update((x.get("id") or "").lower() for x in change.elements() if x.name == "retract")


def _add(entries: set[str] | None, ids: Sequence[str]) -> None:
    for identifier in ids:
        if entries is not None and len(entries) < _MAX_ENTRIES and _HASH.fullmatch(identifier.lower()):
            entries.add(identifier.lower())
