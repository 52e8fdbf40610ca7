"""This node's part in a subcluster: it tells the other nodes of its sessions, carries stanzas to theirs, and notices
when one of them is gone.

Every node knows every session of the subcluster (``shadows.py``) and decides for its own clients alone; what it decides
about other nodes' sessions goes over the links. Caches are told what to read again, after the write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from moim.bus import Bus, BusChanged
from moim.chat.accounts import Accounts, Session
from moim.chat.archive import Archive
from moim.chat.block_lists import BlockLists
from moim.chat.blocking import Blocking
from moim.chat.cluster import codec
from moim.chat.cluster.link import Began, Item, Link, Received, read
from moim.chat.cluster.membership import Membership, View
from moim.chat.cluster.shadows import Shadows
from moim.chat.pep import Pep
from moim.chat.plane import Batch, Plane
from moim.chat.presence import Presence
from moim.chat.rosters import Rosters
from moim.chat.routing import Router
from moim.chat.sessions import Sessions
from moim.errors import MoimError
from moim.model import ServiceStatus
from moim.proto.xmpp import Element, Jid, StanzaError, message_type, stream_error
from moim.store import Store

_TICK_SECONDS = 0.5
_READY_SECONDS = 5.0
_BYE_SECONDS = 0.5
_MAX_INBOX = 100_000

_log = logging.getLogger("moim.chat.cluster")


class Home(Protocol):
    """A part of the server that one node runs for all: group chat."""

    async def look(self, view: View) -> None:
        """Who holds what may have changed."""
        ...

    async def lost(self) -> None:
        """This node was taken for dead: it holds nothing any more."""
        ...

    def arrived(self, stanza: Element) -> None:
        """Another node sends a stanza for it."""
        ...

    def dead(self, sessions: Sequence[Jid]) -> None:
        """These sessions are gone with their node."""
        ...


class Parts(Protocol):
    """What the cluster needs of the chat room."""

    accounts: Accounts
    archive: Archive | None
    plane: Plane
    rosters: Rosters
    block_lists: BlockLists
    blocking: Blocking
    pep: Pep
    presence: Presence
    router: Router
    sessions: Sessions


class Cluster:
    """One node. ``peers`` are the others' names; ``seconds`` is how long the lease of a silent node lasts."""

    def __init__(
        self,
        node: str,
        peers: Sequence[str],
        *,
        store: Store,
        bus: Bus,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self.peers = tuple(peers)
        self._bus = bus
        self._clock = clock
        self.membership = Membership(
            store, node, seconds=seconds, heard=self._heard, changed=self._changed, lost=self._lost, clock=clock
        )
        self._links: dict[str, Link] = {}
        self._inboxes: dict[str, asyncio.Queue[Began | Received]] = {}
        self._live: dict[str, asyncio.Event] = {}
        self._stale: dict[str, set[Jid]] = {}
        self._bound_at: dict[Session, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._cancels: list[Callable[[], None]] = []
        self._flush_due = False
        self._idle = asyncio.Event()
        self._parts: Parts | None = None
        self._shadows: Shadows | None = None
        self.home: Home | None = None
        self._handlers: dict[str, Callable[[str, Item], Awaitable[None] | None]] = {
            codec.SESSION: self._session,
            codec.GONE: self._session_gone,
            codec.LIVE: self._told_all,
            codec.DELIVER: self._deliver,
            codec.FAN_OUT: self._fan_out,
            codec.COPY: self._copy,
            codec.END: self._end,
            codec.COMPONENT: self._component,
            codec.ROSTER: self._roster,
            codec.BLOCKED: self._blocked,
            codec.ARCHIVED: self._archived,
            codec.EVENT: self._event,
            codec.FREE: self._free,
            codec.BYE: self._bye,
        }

    # --- life ---------------------------------------------------------------------------------------------------

    def attach(self, parts: Parts) -> None:
        """Binds this to the chat room's parts, before anybody is connected."""
        self._parts = parts
        self._shadows = Shadows(parts.accounts, parts.plane)
        parts.accounts.watch = self
        parts.plane.elsewhere = self
        parts.sessions.elsewhere = self._end_elsewhere
        parts.rosters.on_written = lambda owner, contact: self.tell_all([codec.ROSTER, owner, contact])
        parts.block_lists.on_written = lambda owner: self.tell_all([codec.BLOCKED, owner])
        if parts.archive is not None:
            parts.archive.preferences.on_written = lambda owner: self.tell_all([codec.ARCHIVED, owner])
        parts.pep.on_sent = lambda owner, node, config, change: self.tell_all(
            [codec.EVENT, owner, node, config, change.to_xml("") if change is not None else ""]
        )

    async def start(self) -> None:
        """Takes part from here on; returns when the sessions of all other live nodes are known, or after a while.

        Raises Unavailable when the database does not answer.
        """
        await self.membership.start()
        for peer in self.peers:
            self._links[peer] = Link(self.node, peer, self.membership.epoch)
            self._inboxes[peer] = asyncio.Queue(_MAX_INBOX)
            self._live[peer] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._work(peer), name=f"chat:from-{peer}"))
        self._cancels = [
            self._bus.listen(f"chat.{self.node}", self._message),
            self._bus.subscribe(BusChanged, self._bus_changed),
        ]
        self._tasks.append(asyncio.create_task(self._run(), name="chat:cluster"))
        waiting = [self._live[peer].wait() for peer in self.peers if peer in self.membership.view.live]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waiting), _READY_SECONDS)
        await self._changed(self.membership.view)

    async def stop(self) -> None:
        """Leaves in good order: the others take over at once."""
        self._idle.clear()
        self.tell_all([codec.BYE])
        self._flush()
        if self._bus.connected and any(self._bus_waits()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _BYE_SECONDS)
        for cancel in self._cancels:
            cancel()
        self._cancels = []
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.membership.stop()

    def health(self, node: str) -> list[ServiceStatus]:
        """The links."""
        found = []
        for peer, link in self._links.items():
            up = self._clock() - link.heard_at < 10 * _TICK_SECONDS
            detail = "" if up else "silent"
            found.append(ServiceStatus(f"link-{peer}", node, "bus", peer, 0, "running" if up else "degraded", detail))
        return found

    def alive(self) -> list[str]:
        """The other nodes that live, by name."""
        return sorted(node for node, link in self._links.items() if link.begun)

    async def _run(self) -> None:
        while True:
            now = self._clock()
            for link in self._links.values():
                link.tick(now)
            self._flush()
            await asyncio.sleep(_TICK_SECONDS)

    def _bus_waits(self) -> list[bool]:
        return [not link.idle for link in self._links.values() if link.begun]

    def _heard(self, node: str) -> float:
        link = self._links.get(node)
        return link.heard_at if link is not None else float("-inf")

    async def _bus_changed(self, fact: BusChanged) -> None:
        if fact.up:
            now = self._clock()
            for link in self._links.values():
                link.repeat(now)
            self._flush()

    # --- sending ------------------------------------------------------------------------------------------------

    def tell(self, node: str, item: Item) -> bool:
        """Sends an item to one node; False when that node is not there, or too much waits for it."""
        link = self._links.get(node)
        if link is None or not link.send(item):
            return False
        self._flush_soon()
        return True

    def tell_all(self, item: Item) -> None:
        """Sends an item to every node that is there."""
        for node in self._links:
            self.tell(node, item)

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        now = self._clock()
        for node, link in self._links.items():
            link.flush(now)
            while link.output:
                self._bus.send(f"chat.{node}", link.output.popleft())

    def send(self, batch: Batch) -> None:
        """Stanzas for sessions of other nodes, by their negative numbers; the same one for many is written once."""
        assert self._shadows is not None
        open_items: dict[str, tuple[Element, list[str]]] = {}
        for sid, stanza in batch:
            session = self._shadows.of(sid)
            if session is None:
                continue
            known = open_items.get(session.node)
            if known is not None and known[0] is stanza:
                known[1].append(str(session.full))
                continue
            if known is not None:
                self._send_stanza(session.node, *known)
            open_items[session.node] = (stanza, [str(session.full)])
        for node, (stanza, targets) in open_items.items():
            self._send_stanza(node, stanza, targets)

    def fan_out(self, element: Element, sids: Sequence[int]) -> None:
        """One stanza for many sessions of other nodes, each with its own address as ``to``."""
        assert self._shadows is not None
        targets: dict[str, list[str]] = {}
        for sid in sids:
            if (session := self._shadows.of(sid)) is not None:
                targets.setdefault(session.node, []).append(str(session.full))
        for node, addresses in targets.items():
            if not self.tell(node, [codec.FAN_OUT, element.to_xml(""), addresses]):
                for address in addresses:
                    self._missed(element.with_attrs({"to": address}), Jid.parse(address))

    def copy(self, messages: Sequence[Element]) -> None:
        """The carbons of messages, for other nodes' sessions of their two accounts."""
        accounts = self._needed().accounts
        for message in messages:
            nodes: set[str] = set()
            for address in (message.get("from"), message.get("to")):
                account = accounts.get((address or "").partition("/")[0])
                if account is not None:
                    nodes.update(session.node for session in account.sessions.values() if session.node)
            for node in nodes:
                self.tell(node, [codec.COPY, message.to_xml("")])

    def _send_stanza(self, node: str, stanza: Element, targets: list[str]) -> None:
        covered = self._covered(node, stanza)
        if not self.tell(node, [codec.DELIVER, stanza.to_xml(""), targets, covered]):
            for target in targets:
                self._missed(stanza, Jid.parse(target), covered=covered)

    def _covered(self, node: str, stanza: Element) -> bool:
        """Whether sessions that ``node`` does not hold get the same message: then none is lost with that node's."""
        to = stanza.get("to") or ""
        if stanza.name != "message" or not to or "/" in to:
            return False
        account = self._needed().accounts.get(to)
        return account is not None and any(session.node != node for session in account.receiving())

    def _end_elsewhere(self, session: Session, error: Element | None) -> None:
        """Another node's session is to end; its address is free at once."""
        self.tell(session.node, [codec.END, str(session.full), error.to_xml("") if error is not None else ""])
        self._drop([session])

    # --- this node's sessions (what ``Accounts`` tells) ---------------------------------------------------------

    def bound(self, session: Session) -> None:
        """A session got its address."""
        if session.node or self._shadows is None:
            return
        self._bound_at[session] = time.time()
        self._shadows.tap(session.bare)
        self.changed(session)

    def changed(self, session: Session) -> None:
        """What others have to know of a session changed."""
        if not session.node and session.jid is not None:
            self.tell_all(self._state(session))

    def gone(self, session: Session) -> None:
        """A session lost its address."""
        if not session.node:
            self._bound_at.pop(session, None)
            self.tell_all([codec.GONE, str(session.full)])

    def _state(self, session: Session) -> Item:
        state = {
            "presence": session.presence.to_xml("") if session.presence is not None else None,
            "priority": session.priority,
            "interested": session.interested,
            "at": self._bound_at.get(session, 0.0),
        }
        return [codec.SESSION, str(session.full), state]

    # --- receiving ----------------------------------------------------------------------------------------------

    def _message(self, body: bytes) -> None:
        try:
            document = read(body)
            link = self._links.get(document["from"])
            if link is None:
                raise ValueError("it comes from no node of this site")
            events = link.receive(document, self._clock())
        except (ValueError, RecursionError) as error:
            _log.warning("something came over the bus that is no message of a node, and was dropped: %s", error)
            return
        if not any(self._bus_waits()):
            self._idle.set()
        for event in events:
            try:
                self._inboxes[link.peer].put_nowait(event)
            except asyncio.QueueFull:
                _log.error("the node %s says more than can be worked on; some of it is lost", link.peer)
        self._flush_soon()

    async def _work(self, peer: str) -> None:
        inbox = self._inboxes[peer]
        while True:
            event = await inbox.get()
            if isinstance(event, Began):
                await self._began(peer, event)
                continue
            for item in event.items:
                try:
                    handler = self._handlers.get(item[0])
                    work = handler(peer, item) if handler is not None else None
                    if work is not None:
                        await work
                except (MoimError, ValueError) as error:
                    _log.error("'%s' of the node %s could not be handled: %s", str(item[0])[:32], peer, error)
                except Exception:
                    _log.exception("'%s' of the node %s could not be handled", str(item[0])[:32], peer)

    async def _began(self, peer: str, event: Began) -> None:
        parts = self._needed()
        _log.info("the node %s is there", peer)
        self._stale[peer] = {session.full for session in self._of(peer)}
        for account in parts.accounts:
            for session in account.sessions.values():
                if not session.node:
                    self.tell(peer, self._state(session))
        self.tell(peer, [codec.LIVE])
        self._reroute(event.undelivered)
        if self.home is not None:
            await self.home.look(self.membership.view)

    async def _session(self, peer: str, item: Item) -> None:
        parts, shadows = self._needed(), self._need_shadows()
        jid = codec.jid(item, 1)
        state = item[2] if len(item) > 2 else None
        if not isinstance(state, dict):
            raise ValueError("a session has a state")
        holder = parts.accounts.session(jid)
        if holder is not None and holder.node != peer:
            if not holder.node and not self._is_newer(peer, state, holder):
                return
            error = stream_error("conflict", "the resource was bound by a newer connection")
            parts.sessions.end(holder, error)
        roster = None
        if state.get("presence") and ((known := parts.accounts.get(str(jid.bare))) is None or known.roster is None):
            roster = await parts.rosters.get(str(jid.bare))
        session = shadows.add(peer, jid)
        was_available = session.available
        shadows.update(session, state, roster)
        stale = self._stale.get(peer)
        if stale is not None:
            stale.discard(jid)
            if session.presence is not None and not was_available:
                # Its own node told of it when it came, but perhaps before this node could hear it.
                self._show_here(session, session.presence)

    def _is_newer(self, peer: str, state: dict[str, object], holder: Session) -> bool:
        at = state.get("at")
        theirs = float(at) if isinstance(at, int | float) else 0.0
        return (theirs, peer) > (self._bound_at.get(holder, 0.0), self.node)

    def _session_gone(self, peer: str, item: Item) -> None:
        session = self._need_shadows().get(peer, codec.jid(item, 1))
        if session is not None:
            self._need_shadows().remove(session)

    def _told_all(self, peer: str, _item: Item) -> None:
        parts = self._needed()
        vanished = [parts.accounts.session(jid) for jid in self._stale.pop(peer, set())]
        self._drop([session for session in vanished if session is not None and session.node == peer])
        self._live[peer].set()

    def _deliver(self, _peer: str, item: Item) -> None:
        parts = self._needed()
        stanza, batch, missed = codec.element(item, 1), [], []
        for jid in codec.jids(item, 2):
            session = parts.accounts.session(jid)
            if session is not None and not session.node:
                batch.append((session.sid, stanza))
            else:
                missed.append(jid)
        parts.plane.send_many(batch)
        for jid in missed:
            self._missed(stanza, jid, covered=bool(batch) or codec.flag(item, 3))

    def _fan_out(self, _peer: str, item: Item) -> None:
        parts = self._needed()
        stanza, sids = codec.element(item, 1), []
        for jid in codec.jids(item, 2):
            session = parts.accounts.session(jid)
            if session is not None and not session.node:
                sids.append(session.sid)
            else:
                self._missed(stanza.with_attrs({"to": str(jid)}), jid)
        parts.plane.fan_out(stanza, sids)

    def _copy(self, _peer: str, item: Item) -> None:
        self._needed().plane.copy_here([codec.element(item, 1)])

    def _end(self, _peer: str, item: Item) -> None:
        parts = self._needed()
        session = parts.accounts.session(codec.jid(item, 1))
        if session is not None and not session.node:
            parts.sessions.end(session, codec.element(item, 2) if codec.text(item, 2) else None)

    def _component(self, _peer: str, item: Item) -> None:
        if self.home is not None:
            self.home.arrived(codec.element(item, 1))

    async def _roster(self, _peer: str, item: Item) -> None:
        await self._needed().rosters.reload(codec.text(item, 1), codec.text(item, 2))

    async def _blocked(self, _peer: str, item: Item) -> None:
        await self._needed().blocking.reload(codec.text(item, 1))

    async def _archived(self, _peer: str, item: Item) -> None:
        archive = self._needed().archive
        if archive is not None:
            await archive.preferences.reload(codec.text(item, 1))

    async def _event(self, _peer: str, item: Item) -> None:
        change = codec.element(item, 4) if codec.text(item, 4) else None
        await self._needed().pep.happened(codec.text(item, 1), codec.text(item, 2), codec.text(item, 3), change)

    async def _free(self, _peer: str, _item: Item) -> None:
        if self.home is not None:
            await self.membership.beat()

    def _bye(self, peer: str, _item: Item) -> None:
        _log.info("the node %s leaves", peer)
        self._bury(peer)

    # --- the end of a node --------------------------------------------------------------------------------------

    async def _changed(self, view: View) -> None:
        for peer, link in self._links.items():
            if link.begun and view.live.get(peer, view.late.get(peer)) is None:
                self._bury(peer)
        if self.home is not None:
            await self.home.look(view)

    async def _lost(self) -> None:
        undelivered: list[Item] = []
        for peer, link in self._links.items():
            undelivered.extend(link.reset(0))
            self._links[peer] = Link(self.node, peer, self.membership.epoch)
        if self.home is not None:
            await self.home.lost()
        self._reroute(undelivered)

    def _bury(self, peer: str) -> None:
        undelivered = self._links[peer].bury()
        self._live[peer].clear()
        self._stale.pop(peer, None)
        sessions = list(self._of(peer))
        self._drop(sessions)
        _log.warning("the node %s is gone, and %d sessions with it", peer, len(sessions))
        self._reroute(undelivered)

    def _drop(self, sessions: Sequence[Session]) -> None:
        """Sessions of another node that ended without a word: who saw them hears that they are gone."""
        parts, shadows = self._needed(), self._need_shadows()
        for session in sessions:
            if session.available:
                parts.presence.gone(session)
            shadows.remove(session)
        if self.home is not None and sessions:
            self.home.dead([session.full for session in sessions])

    def _reroute(self, items: Sequence[Item]) -> None:
        """What a node did not confirm: messages find another way or wait on disk, requests are answered."""
        for item in items:
            try:
                if item[0] == codec.DELIVER:
                    stanza, covered = codec.element(item, 1), codec.flag(item, 3)
                    for number, jid in enumerate(codec.jids(item, 2)):
                        self._missed(stanza, jid, covered=covered or number > 0)
                elif item[0] == codec.FAN_OUT:
                    stanza = codec.element(item, 1)
                    for jid in codec.jids(item, 2):
                        self._missed(stanza.with_attrs({"to": str(jid)}), jid)
                elif item[0] == codec.COMPONENT and self.home is not None:
                    self.home.arrived(codec.element(item, 1))
            except ValueError as error:
                _log.error("what a node did not confirm is lost: %s", error)

    def _missed(self, stanza: Element, session: Jid, *, covered: bool = False) -> None:
        """A stanza was for a session that is not there any more; ``covered``: others of the account have it."""
        parts = self._needed()
        to = stanza.get("to") or ""
        if stanza.name == "message":
            if message_type(stanza) == "error" or any(c.ns == "urn:xmpp:carbons:2" for c in stanza.elements()):
                return
            if covered and "/" not in to:
                return
            parts.router.again(stanza, Jid.parse(to) if to else session)
        elif stanza.name == "iq" and stanza.get("type") in ("get", "set") and stanza.get("from"):
            parts.router.reply(stanza, StanzaError("service-unavailable"))

    def _show_here(self, session: Session, shown: Element) -> None:
        """Shows another node's session to the sessions of this node that may see it."""
        parts = self._needed()
        account = session.full_account
        if account.roster is None:
            return
        batch = []
        for contact in (account.bare, *account.roster.subscribers()):
            for own in parts.accounts.available(contact):
                if not own.node and not parts.block_lists.parted(session.full, own.full):
                    batch.append(
                        (own.sid, shown.with_attrs({"to": contact if contact != account.bare else str(own.full)}))
                    )
        parts.plane.send_many(batch)

    def _of(self, peer: str) -> list[Session]:
        return list(self._need_shadows().on(peer))

    def _needed(self) -> Parts:
        if self._parts is None:
            raise RuntimeError("the cluster is not attached")
        return self._parts

    def _need_shadows(self) -> Shadows:
        if self._shadows is None:
            raise RuntimeError("the cluster is not attached")
        return self._shadows
