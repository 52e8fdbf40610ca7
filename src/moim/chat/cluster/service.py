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
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Protocol

from moim.bus import Bus
from moim.chat.accounts import Accounts, Session
from moim.chat.archive import Archive
from moim.chat.block_lists import BlockLists
from moim.chat.blocking import Blocking
from moim.chat.cluster import codec
from moim.chat.cluster.carrying import Carrier
from moim.chat.cluster.handing_over import HandingOver
from moim.chat.cluster.link import Item
from moim.chat.cluster.links import Handler, Links
from moim.chat.cluster.membership import Membership, View
from moim.chat.cluster.shadows import Shadows
from moim.chat.feature import Feature
from moim.chat.offline import OfflineMessages
from moim.chat.pep import Pep
from moim.chat.plane import Plane
from moim.chat.presence import Presence
from moim.chat.rosters import Rosters
from moim.chat.sessions import Sessions
from moim.chat.stream_management import StreamManagement
from moim.chat.undelivered import Undelivered
from moim.errors import MoimError
from moim.model import ServiceStatus
from moim.proto.xmpp import Element, Jid, presence, stream_error
from moim.store import Store

_READY_SECONDS = 5.0
_BYE_SECONDS = 0.5

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
    offline: OfflineMessages
    pep: Pep
    presence: Presence
    undelivered: Undelivered
    sessions: Sessions
    management: StreamManagement

    @property
    def domains(self) -> Container[str]:
        """The hosted domains."""
        ...

    @property
    def features(self) -> Sequence[Feature]:
        """Everything that the room has been composed of."""
        ...


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
        self.links = Links(node, peers, bus=bus, handle=self._handle, began=self._began, clock=clock)
        self.membership = Membership(
            store, node, seconds=seconds, heard=self.links.heard, changed=self._changed, lost=self._lost, clock=clock
        )
        self._live = {peer: asyncio.Event() for peer in peers}
        self._stale: dict[str, set[Jid]] = {}
        self._undelivered: dict[str, Sequence[Item]] = {}
        self._bound_at: dict[Session, float] = {}
        self._parts: Parts | None = None
        self._shadows: Shadows | None = None
        self.home: Home | None = None
        self._carrier: Carrier | None = None
        self._moving: HandingOver | None = None
        self._handlers: dict[str, Handler] = {
            codec.SESSION: self._session,
            codec.GONE: self._session_gone,
            codec.LIVE: self._told_all,
            codec.END: self._end,
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
        carrier = self._carrier = Carrier(
            self.links,
            self._shadows,
            accounts=parts.accounts,
            plane=parts.plane,
            undelivered=parts.undelivered,
            arrived=self._arrived,
        )
        moving = self._moving = HandingOver(
            self.links,
            self._shadows,
            parts,
            at=lambda session: self._bound_at.get(session, 0.0),
            came=self._came,
            left=self._went,
        )
        self._handlers |= {
            codec.WANT: moving.wanted,
            codec.KEPT: moving.kept,
            codec.MOVED: moving.arrived,
            codec.SENT: moving.sent,
            codec.SETTLED: moving.settled,
            codec.ECHO: moving.echo,
            codec.DELIVER: carrier.deliver,
            codec.FAN_OUT: carrier.deliver_to_each,
            codec.COPY: carrier.copied,
            codec.COMPONENT: carrier.component,
        }
        parts.accounts.watch = self
        parts.plane.elsewhere = carrier
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
        self.links.start(self.membership.epoch)
        waiting = [self._live[peer].wait() for peer in self.peers if peer in self.membership.view.live]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waiting), _READY_SECONDS)
        await self._changed(self.membership.view)

    async def stop(self) -> None:
        """Leaves in good order: the others take over at once."""
        self.tell_all([codec.BYE])
        await self.links.stop(_BYE_SECONDS)
        await self.membership.stop()

    def health(self, node: str) -> list[ServiceStatus]:
        """The links: a node runs without the others, so each counts as running, with a word about its silence."""
        return [
            ServiceStatus(f"link-{peer}", node, "bus", peer, 0, "running", "not heard of" if silent else "")
            for peer, silent in self.links.silent()
        ]

    def alive(self) -> list[str]:
        """The other nodes that live, by name."""
        return self.links.there()

    def tell(self, node: str, item: Item) -> bool:
        """Sends an item to one node; False when that node is not there, or too much waits for it."""
        return self.links.tell(node, item)

    def tell_all(self, item: Item) -> None:
        """Sends an item to every node that is there."""
        self.links.tell_all(item)

    def _handle(self, peer: str, item: Item) -> Awaitable[None] | None:
        handler = self._handlers.get(item[0]) if isinstance(item[0], str) else None
        return handler(peer, item) if handler is not None else None

    def _arrived(self, stanza: Element) -> None:
        if self.home is not None:
            self.home.arrived(stanza)

    # --- sessions of other nodes ---------------------------------------------------------------------------------

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
            self._tell_of(session)

    def _came(self, session: Session, at: float) -> None:
        self._bound_at[session] = at
        self._tell_of(session, moved=True)

    def _went(self, session: Session) -> None:
        self._bound_at.pop(session, None)

    async def give(self, session: Session, node: str, error: Element) -> bool:
        """Lets a session go on at another node, after ending its connection with ``error``; whether it does."""
        return self._moving is not None and await self._moving.give(session, node, error)

    def gone(self, session: Session) -> None:
        """A session lost its address."""
        if not session.node:
            self._bound_at.pop(session, None)
            self.tell_all([codec.GONE, str(session.full)])

    def _tell_of(self, session: Session, *, moved: bool = False) -> None:
        for peer in self.links.lives():
            self.tell(peer, self._state(session, peer, moved=moved))

    def _state(self, session: Session, peer: str, *, moved: bool = False) -> Item:
        state = {
            "presence": session.presence.to_xml("") if session.presence is not None else None,
            "priority": session.priority,
            "interested": session.interested,
            "at": self._bound_at.get(session, 0.0),
            "moved": moved,
            "blind": not self._live[peer].is_set(),
        }
        return [codec.SESSION, str(session.full), state]

    # --- receiving ----------------------------------------------------------------------------------------------

    async def _began(self, peer: str, undelivered: Sequence[Item]) -> None:
        parts = self._needed()
        _log.info("the node %s is there", peer)
        self._live[peer].clear()
        if self._moving is not None:
            parts.undelivered.take(self._moving.gone(peer))
        self._stale[peer] = {session.full for session in self._of(peer)}
        for account in parts.accounts:
            for session in account.sessions.values():
                if not session.node:
                    self.tell(peer, self._state(session, peer))
        self.tell(peer, [codec.LIVE])
        self._undelivered[peer] = [*self._undelivered.get(peer, ()), *undelivered]
        if peer not in self.links.lives():  # it died before this was worked on
            self._reroute(self._undelivered.pop(peer))
        if self.home is not None:
            await self.home.look(self.membership.view)

    async def _session(self, peer: str, item: Item) -> None:
        parts, shadows = self._needed(), self._need_shadows()
        jid = codec.jid(item, 1)
        bare = self._ours(jid)
        state = Shadows.read(item[2] if len(item) > 2 else None)
        holder = parts.accounts.session(jid)
        if holder is not None and holder.node not in ("", peer) and state.moved:
            holder.node = peer
        elif holder is not None and holder.node != peer:
            if not holder.node and (state.at, peer) <= (self._bound_at.get(holder, 0.0), self.node):
                return
            error = stream_error("conflict", "the resource was bound by a newer connection")
            parts.sessions.end(holder, error)
        session, roster = shadows.add(peer, jid), None
        if state.presence is not None and session.full_account.roster is None:
            try:
                roster = await parts.rosters.get(bare)
            except MoimError as error:
                _log.error("the contact list of %s cannot be read: %s", bare, error)
            if session.gone or session.node != peer:
                return
        before, received = session.presence, session.receives
        shadows.update(session, state, roster)
        stale = self._stale.get(peer)
        if stale is not None:
            stale.discard(jid)
        if (stale is not None or state.blind) and before != session.presence:
            # Its own node told of it when that happened, but not everybody here, or before this node could hear it.
            left = presence(str(jid), "", "unavailable").with_attrs({"to": None})
            self._show_here(session, session.presence or left)
        if session.receives and not received:
            await parts.offline.came_elsewhere(session)

    def _session_gone(self, peer: str, item: Item) -> None:
        session = self._need_shadows().get(peer, codec.jid(item, 1))
        if session is not None:
            self._need_shadows().remove(session)

    def _told_all(self, peer: str, _item: Item) -> None:
        parts = self._needed()
        vanished = [parts.accounts.session(jid) for jid in self._stale.pop(peer, set())]
        self._drop([session for session in vanished if session is not None and session.node == peer])
        self._reroute(self._undelivered.pop(peer, ()))
        self._live[peer].set()

    def _end(self, _peer: str, item: Item) -> None:
        parts, jid = self._needed(), codec.jid(item, 1)
        if self._moving is not None:
            self._moving.hurry(jid)
        session = parts.accounts.session(jid)
        if session is not None and not session.node:
            parts.sessions.end(session, codec.element(item, 2) if codec.text(item, 2) else None)

    def _ours(self, jid: Jid) -> str:
        """The bare form of an address of somebody of this site. Raises ValueError for any other."""
        if not jid.local or jid.domain not in self._needed().domains:
            raise ValueError(f"{str(jid)[:100]!r} is nobody's address here")
        return str(jid.bare)

    def _owner(self, item: Item) -> str:
        return self._ours(codec.jid(item, 1))

    async def _roster(self, _peer: str, item: Item) -> None:
        await self._needed().rosters.reload(self._owner(item), str(codec.jid(item, 2)))

    async def _blocked(self, _peer: str, item: Item) -> None:
        await self._needed().blocking.reload(self._owner(item))

    async def _archived(self, _peer: str, item: Item) -> None:
        archive = self._needed().archive
        if archive is not None:
            await archive.preferences.reload(self._owner(item))

    async def _event(self, _peer: str, item: Item) -> None:
        change = codec.element(item, 4) if codec.text(item, 4) else None
        await self._needed().pep.happened(self._owner(item), codec.text(item, 2), codec.text(item, 3), change)

    async def _free(self, _peer: str, _item: Item) -> None:
        if self.home is not None:
            await self.membership.beat()

    def _bye(self, peer: str, _item: Item) -> None:
        if peer in self.links.there():
            _log.info("the node %s leaves", peer)
            self._bury(peer)

    # --- the end of a node --------------------------------------------------------------------------------------

    async def _changed(self, view: View) -> None:
        for peer, epoch in self.links.lives().items():
            if view.over(peer, epoch):
                self._bury(peer)
        if self.home is not None:
            await self.home.look(view)

    async def _lost(self) -> None:
        for peer, undelivered in self.links.renew(self.membership.epoch):
            # That node lives on, and its clients do: what was for them comes before what is said from now on.
            for item in undelivered:
                if item[0] not in codec.LASTING or not self.tell(peer, item):
                    self._reroute([item])
        if self.home is not None:
            await self.home.lost()

    def _bury(self, peer: str) -> None:
        undelivered = [*self._undelivered.pop(peer, ()), *self.links.bury(peer)]
        left = self._moving.gone(peer) if self._moving is not None else []
        self._live[peer].clear()
        self._stale.pop(peer, None)
        sessions = list(self._of(peer))
        self._drop(sessions)
        _log.warning("the node %s is gone, and %d sessions with it", peer, len(sessions))
        self._reroute(undelivered)
        self._needed().undelivered.take(left)

    def _reroute(self, items: Sequence[Item]) -> None:
        if self._carrier is not None:
            self._carrier.reroute(items)

    def _drop(self, sessions: Sequence[Session]) -> None:
        """Sessions of another node that ended without a word: who saw them hears that they are gone."""
        parts, shadows = self._needed(), self._need_shadows()
        for session in sessions:
            if session.available:
                parts.presence.gone(session)
            shadows.remove(session)
        if self.home is not None and sessions:
            self.home.dead([session.full for session in sessions])

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
