"""Group chat in a subcluster: one node runs it, by a lease; the others hand it what is for the rooms.

When the node that runs it is gone, another one takes the lease and goes on from the database: rooms as they were, with
everybody in them who is still connected somewhere. What comes in between waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Container, Sequence
from typing import TypeVar, cast

import sqlalchemy as sa

from moim.chat.accounts import Accounts
from moim.chat.cluster import codec
from moim.chat.cluster.membership import View
from moim.chat.cluster.seats import Seats
from moim.chat.cluster.service import Cluster
from moim.chat.custody import Custody, hold, working_on
from moim.chat.rooms import RoomServices
from moim.errors import MoimError
from moim.proto.xmpp import Element, Jid, StanzaError
from moim.store import Store

LEASE = "rooms"
_MAX_WAITING = 10_000

Result = TypeVar("Result")
MakeRooms = Callable[[Store, Seats], RoomServices]

_log = logging.getLogger("moim.chat.cluster")


class RoomsHome:
    """A component for ``hosts`` that is the rooms' here or leads to them. ``refuse`` answers a stanza with an error."""

    def __init__(
        self,
        hosts: Collection[str],
        domains: Container[str],
        make: MakeRooms,
        *,
        cluster: Cluster,
        store: Store,
        accounts: Accounts,
        refuse: Callable[[Element, StanzaError], None],
    ) -> None:
        self.hosts = hosts
        self._domains = domains
        self._make = make
        self._cluster = cluster
        self._store = store
        self._accounts = accounts
        self._refuse = refuse
        self._rooms: RoomServices | None = None
        self._seats: Seats | None = None
        self._holder = ""
        self._waiting: deque[tuple[Element, Custody | None]] = deque()
        self._lock = asyncio.Lock()
        self._stopped = False
        cluster.home = self

    async def start(self) -> None:
        """The cluster says when it is this node's turn."""

    async def stop(self) -> None:
        """Lets go: another node goes on at once, if there is one; else everybody hears that the service stops."""
        async with self._lock:
            self._stopped = True
            rooms, self._rooms = self._rooms, None
            if rooms is None:
                return
            if not self._cluster.alive():
                await rooms.stop()
                return
            await rooms.hand_over()
            if self._seats is not None:
                await self._seats.drain()
            try:
                await self._cluster.membership.release(LEASE)
            except MoimError as error:
                _log.error("the rooms could not be released: %s", error)
            self._cluster.tell_all([codec.FREE, LEASE])

    def addresses(self) -> list[str]:
        """Every room that this node runs."""
        return self._rooms.addresses() if self._rooms is not None else []

    async def account_removed(self, bare: str) -> None:
        """Takes a removed account's affiliations. Raises MoimError when the database does not take it."""
        if self._rooms is not None:
            await self._rooms.account_removed(bare)

    # --- stanzas ------------------------------------------------------------------------------------------------

    def send(self, stanza: Element) -> None:
        """Takes a stanza of this node's clients, or from other domains."""
        if self._rooms is not None:
            self._rooms.send(stanza)
        elif not self._holder or not self._cluster.tell(self._holder, [codec.COMPONENT, stanza.to_xml("")]):
            self._wait(stanza)

    def arrived(self, stanza: Element) -> None:
        """Takes a stanza that another node has for the rooms."""
        if self._rooms is not None:
            self._rooms.send(stanza)
        else:
            self._wait(stanza)

    def _wait(self, stanza: Element) -> None:
        if len(self._waiting) >= _MAX_WAITING or self._stopped:
            self._refuse(stanza, StanzaError("resource-constraint", "group chat moves to another node", kind="wait"))
        else:
            self._waiting.append((stanza, hold()))

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for stanza, held in waiting:
            with working_on(held):
                self.send(stanza)
            if held is not None:
                held.release()

    # --- who runs it --------------------------------------------------------------------------------------------

    async def look(self, view: View) -> None:
        """The lease may have changed hands, or be free."""
        async with self._lock:
            if self._stopped:
                return
            node, epoch = view.leases.get(LEASE, ("", 0))
            lives = node and {**view.late, **view.live}.get(node) == epoch
            mine = lives and (node, epoch) == (self._cluster.node, self._cluster.membership.epoch)
            if lives and not mine:
                self._give_up()
                self._holder = node
            elif self._rooms is None:
                self._holder = ""
                await self._take_over()
            self._go_on()

    async def _take_over(self) -> None:
        try:
            if not await self._cluster.membership.acquire(LEASE):
                return
            guard = self._cluster.membership.guard(LEASE)
            seats = Seats(self._store, guard)
            rooms = self._make(cast("Store", _Guarded(self._store, guard)), seats)
            await rooms.start()
            await seats.restore(rooms, self._present)
        except MoimError as error:
            _log.error("group chat cannot be taken over; it is tried again: %s", error)
            return
        self._rooms, self._seats = rooms, seats
        _log.info("this node runs group chat")

    def _present(self, session: Jid) -> bool:
        return session.domain not in self._domains or self._accounts.session(session) is not None

    async def lost(self) -> None:
        """This node was taken for dead: another one runs the rooms, or will."""
        async with self._lock:
            self._give_up()
            self._holder = ""

    def _give_up(self) -> None:
        if self._rooms is not None:
            _log.warning("this node does not run group chat any more")
            self._rooms = self._seats = None

    def dead(self, sessions: Sequence[Jid]) -> None:
        """These sessions ended without leaving their rooms."""
        if self._rooms is not None:
            self._rooms.vanished(sessions)


class _Guarded:
    """The store for one reign: its writes fail as soon as another node has the lease."""

    def __init__(self, store: Store, guard: Callable[[sa.Connection], None]) -> None:
        self._store = store
        self._guard = guard
        self.read = store.read

    async def write(self, work: Callable[[sa.Connection], Result]) -> Result:
        """See ``Store``; raises Unavailable when the lease is somebody else's."""

        def guarded(connection: sa.Connection) -> Result:
            self._guard(connection)
            return work(connection)

        return await self._store.write(guarded)
