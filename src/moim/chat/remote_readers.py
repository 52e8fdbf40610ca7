"""Personal events across domains (XEP-0163 section 4.3): what the clients of contacts elsewhere want to hear of.

A contact's client shows its capabilities in the presence that it sends to an account; they are asked for once, on the
account's behalf. A hash that vouches for the answer is believed for every client that shows it. Only contacts are
looked at, only those who see the account's presence are asked and told, and what is remembered is bounded.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from moim.chat.caps import Claim, Vouched, claim_in, question
from moim.chat.pep_events import PepEvents
from moim.chat.rosters import Rosters
from moim.proto.xmpp import Element, Jid, ns

_MAX_CLIENTS = 20_000
_MAX_CACHED = 2000
_MAX_TASKS = 1000


@dataclass(slots=True)
class _Client:
    claim: Claim
    wants: frozenset[str] | None = None
    """None until it is known."""
    asked: str = ""
    owners: set[str] = field(default_factory=set)


class RemoteReaders:
    """``send`` takes a stanza for another domain."""

    def __init__(self, events: PepEvents, *, rosters: Rosters, send: Callable[[Element], None]) -> None:
        self._events = events
        self._rosters = rosters
        self._send = send
        self._clients: OrderedDict[Jid, _Client] = OrderedDict()
        self._by_bare: dict[str, set[Jid]] = {}
        self._vouched = Vouched(_MAX_CACHED)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def wanting(self, owner: str, contact: str, node: str) -> Iterator[Jid]:
        """The clients of a contact that want to hear of a node of ``owner``."""
        for jid in tuple(self._by_bare.get(contact, ())):
            client = self._clients[jid]
            if owner not in client.owners:
                continue
            if client.wants is None:
                self._ask(owner, jid, client)  # it may hear since it was seen; the answer brings the item
            elif node in client.wants:
                yield jid

    async def introduce(self, owner: str, contact: str) -> None:
        """A contact may hear of the nodes of ``owner`` from now on: its clients that were seen get the last items."""
        for jid in tuple(self._by_bare.get(contact, ())):
            client = self._clients[jid]
            if owner not in client.owners:
                continue
            if client.wants is None:
                self._ask(owner, jid, client)
            elif client.wants:
                await self._events.introduce_remote(owner, jid, client.wants)

    def tell(self, stanza: Element) -> None:
        """Takes a stanza for one of them."""
        self._send(stanza)

    def presence(self, owner: Jid, sender: Jid, stanza: Element) -> None:
        """Somebody's presence came to an account."""
        if stanza.get("type") == "unavailable":
            for jid in [sender] if sender.resource else tuple(self._by_bare.get(str(sender), ())):
                self._lost(jid, str(owner))
        elif sender.resource and len(self._tasks) < _MAX_TASKS and (claim := claim_in(stanza)) is not None:
            self._spawn(self._shown(owner, sender, claim))

    async def _shown(self, owner: Jid, sender: Jid, claim: Claim) -> None:
        state = (await self._rosters.get(str(owner))).item(str(sender.bare)).state
        if not state.seen and not state.sees:
            return
        client = self._clients.get(sender)
        earlier: frozenset[str] | None = None
        if client is None or client.claim != claim:
            earlier = (client.wants if client is not None else None) or frozenset()
            owners = client.owners if client is not None else set()
            client = self._clients[sender] = _Client(claim, owners=owners)
            self._by_bare.setdefault(str(sender.bare), set()).add(sender)
            if len(self._clients) > _MAX_CLIENTS:
                self._forget(next(iter(self._clients)))
        self._clients.move_to_end(sender)
        new = str(owner) not in client.owners
        client.owners.add(str(owner))
        if client.wants is None:
            client.wants = self._vouched.get(claim)
        if client.wants is None and state.seen:
            self._ask(str(owner), sender, client)
        elif client.wants and new:
            await self._events.introduce_remote(str(owner), sender, client.wants)
        if client.wants and earlier is not None and (more := client.wants - earlier):
            await self._introduce(sender, tuple(client.owners - ({str(owner)} if new else set())), more)

    def _ask(self, owner: str, jid: Jid, client: _Client) -> None:
        if client.asked:
            return
        client.asked = f"caps-of-{next(self._numbers)}"
        self._send(question(client.claim, client.asked, owner, jid))

    def answer(self, owner: Jid, sender: Jid, answer: Element) -> bool:
        """An answer to an account came; whether it was asked for here."""
        client = self._clients.get(sender)
        if client is None or not client.asked or answer.get("id") != client.asked:
            return False
        client.asked, client.wants = "", frozenset()
        info = answer.find("query", ns.DISCO_INFO)
        if answer.get("type") == "result" and info is not None and str(owner) in client.owners:
            client.wants = self._vouched.learn(client.claim, info)
            if client.wants:
                self._spawn(self._introduce(sender, tuple(client.owners), client.wants))
        return True

    async def _introduce(self, sender: Jid, owners: Collection[str], wants: Collection[str]) -> None:
        for owner in sorted(owners):
            await self._events.introduce_remote(owner, sender, wants)

    def _lost(self, jid: Jid, owner: str) -> None:
        client = self._clients.get(jid)
        if client is not None:
            client.owners.discard(owner)
            if not client.owners:
                self._forget(jid)

    def _forget(self, jid: Jid) -> None:
        del self._clients[jid]
        siblings = self._by_bare[str(jid.bare)]
        siblings.discard(jid)
        if not siblings:
            del self._by_bare[str(jid.bare)]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="chat:remote-reader")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
