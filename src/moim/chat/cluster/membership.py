"""Which nodes live, and what they hold: leases in the database, by its clock, with an epoch that rises with every life.

A node renews one row; what it holds counts as long as that row does. Whoever takes over ends the dead node's row
first: should that node live after all, its next renewal fails, and it knows that it lost everything. Nobody is
declared dead by a node that could not reach the database itself a moment ago, nor while the bus carries its voice.
A row that ended stays: its epoch is never given again, because others remember it as that of a life that is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from moim.chat.cluster import tables
from moim.errors import MoimError, Unavailable
from moim.store import Store, insert

_OVER = 0.0  # the end of a lease that was ended, rather than ran out
_SILENT_SECONDS = 2.0
_WATCHFUL_SECONDS = 0.5

_log = logging.getLogger("moim.chat.cluster")


@dataclass(frozen=True, slots=True)
class View:
    """What the database says: live nodes and those whose lease ran out, each with its epoch; leases by name.

    ``newest`` is the highest epoch that any life has had until then.
    """

    live: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    leases: dict[str, tuple[str, int]] = field(default_factory=dict)
    newest: int = 0

    def over(self, node: str, epoch: int) -> bool:
        """Whether a life of a node has ended; False for one that began after this was seen."""
        return node not in self.live and node not in self.late and epoch <= self.newest


class Membership:
    """This node's lease on life. ``heard(node)`` gives the moment (monotonic) when a node was last heard on the bus."""

    def __init__(
        self,
        store: Store,
        node: str,
        *,
        seconds: float,
        heard: Callable[[str], float],
        changed: Callable[[View], Awaitable[None]],
        lost: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._node = node
        self._seconds = seconds
        self._heard = heard
        self._changed = changed
        self._lost = lost
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._good_since: float | None = None
        self._said = ""
        self.epoch = 0
        self.view = View()

    async def start(self) -> None:
        """Begins a new life. Raises Unavailable when the database does not answer."""
        self.epoch, self.view = await self._store.write(self._begin)
        self._good_since = self._clock()
        self._task = asyncio.create_task(self._run(), name="chat:lease")

    async def stop(self) -> None:
        """Ends this life in good order: what it held is free."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        with contextlib.suppress(MoimError):
            await self._store.write(lambda connection: _bury(connection, self._node, self.epoch))

    async def acquire(self, name: str) -> bool:
        """Takes what nobody holds; whether this node holds it now. Raises Unavailable."""

        def take(connection: sa.Connection) -> bool:
            table = tables.leases
            self._check(connection)
            holder = connection.execute(sa.select(table).where(table.c.name == name)).first()
            if holder is not None and holder.node != self._node and _epoch(connection, holder.node) == holder.epoch:
                return False
            mine = {"node": self._node, "epoch": self.epoch}
            row = insert(table).values(name=name, **mine).on_conflict_do_update(index_elements=["name"], set_=mine)
            connection.execute(row)
            return True

        return await self._store.write(take)

    async def release(self, name: str) -> None:
        """Gives up what this node holds. Raises Unavailable."""
        table = tables.leases.c
        mine = (table.name == name, table.node == self._node, table.epoch == self.epoch)
        await self._store.write(lambda connection: connection.execute(sa.delete(tables.leases).where(*mine)))

    def guard(self, name: str) -> Callable[[sa.Connection], None]:
        """What a write begins with that only the holder may do; it raises Unavailable for anybody else."""
        epoch = self.epoch

        def check(connection: sa.Connection) -> None:
            table = tables.leases.c
            found = connection.execute(sa.select(table.node, table.epoch).where(table.name == name)).first()
            if found is None or (found.node, found.epoch) != (self._node, epoch):
                raise Unavailable(f"this node does not hold '{name}' any more", hint="another node took over")

        return check

    # --- the lease ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            try:
                await self.beat()
            except Exception:
                _log.exception("the lease could not be looked after")

    def _pause(self) -> float:
        """Seconds until the next look: a node that fell silent may be dead soon, and its rooms wait for another."""
        usual, now = self._seconds / 3, self._clock()
        others = {*self.view.live, *self.view.late} - {self._node}
        if any(now - self._heard(node) > _SILENT_SECONDS for node in others):
            return min(usual, _WATCHFUL_SECONDS)
        return usual

    async def beat(self) -> None:
        """Renews the lease once, and tells what changed."""
        try:
            view = await asyncio.wait_for(self._store.write(self._renew), self._seconds)
        except (MoimError, TimeoutError) as error:
            self._good_since = None
            if str(error) != self._said:
                self._said = str(error)
                _log.error("this node's lease cannot be renewed; what runs goes on: %s", error or "no answer in time")
            return
        now, self._said = self._clock(), ""
        if view is None:
            _log.error("this node was taken for dead: another one holds what it held; it begins anew")
            self.epoch, self.view = await self._store.write(self._begin)
            self._good_since = now
            await self._lost()
            await self._changed(self.view)
            return
        if self._good_since is None:
            self._good_since = now
        for node, epoch in view.late.items():
            # After an outage of the database everybody is late: who lives gets the time to say so.
            if now - self._good_since >= self._seconds and now - self._heard(node) >= self._seconds:
                _log.error("the node %s is dead: its lease ran out, and it is silent", node)
                view = await self._store.write(partial(self._declare_dead, node=node, epoch=epoch))
        self.view = view
        await self._changed(view)

    # In the store's thread.

    def _begin(self, connection: sa.Connection) -> tuple[int, View]:
        table = tables.nodes
        epoch = _look(connection).newest + 1
        mine = {"epoch": epoch, "expires_at": _now(connection) + self._seconds}
        row = insert(table).values(node=self._node, **mine)
        connection.execute(row.on_conflict_do_update(index_elements=["node"], set_=mine))
        return epoch, _look(connection)

    def _check(self, connection: sa.Connection) -> None:
        if _epoch(connection, self._node) != self.epoch:
            raise Unavailable("this node was taken for dead", hint="it begins anew within seconds")

    def _renew(self, connection: sa.Connection) -> View | None:
        table = tables.nodes
        mine = (table.c.node == self._node, table.c.epoch == self.epoch, table.c.expires_at > _OVER)
        renewed = connection.execute(
            sa.update(table).where(*mine).values(expires_at=_now(connection) + self._seconds)
        ).rowcount
        return _look(connection) if renewed else None

    def _declare_dead(self, connection: sa.Connection, *, node: str, epoch: int) -> View:
        late = sa.select(tables.nodes.c.expires_at).where(tables.nodes.c.node == node, tables.nodes.c.epoch == epoch)
        expires_at = connection.execute(late).scalar()
        if expires_at is not None and expires_at < _now(connection):
            _bury(connection, node, epoch)
        return _look(connection)


def _bury(connection: sa.Connection, node: str, epoch: int) -> None:
    leases, nodes = tables.leases, tables.nodes
    connection.execute(sa.delete(leases).where(leases.c.node == node, leases.c.epoch == epoch))
    connection.execute(sa.update(nodes).where(nodes.c.node == node, nodes.c.epoch == epoch).values(expires_at=_OVER))


def _epoch(connection: sa.Connection, node: str) -> int | None:
    """Which life of a node counts; None when it has none."""
    table = tables.nodes.c
    alive = sa.select(table.epoch).where(table.node == node, table.expires_at > _OVER)
    return connection.execute(alive).scalar()


def _look(connection: sa.Connection) -> View:
    now = _now(connection)
    live: dict[str, int] = {}
    late: dict[str, int] = {}
    epochs = [0]
    for row in connection.execute(sa.select(tables.nodes)):
        epochs.append(row.epoch)
        if row.expires_at > _OVER:
            (live if row.expires_at >= now else late)[row.node] = row.epoch
    leases = {row.name: (row.node, row.epoch) for row in connection.execute(sa.select(tables.leases))}
    return View(live, late, leases, max([*epochs, *(epoch for _, epoch in leases.values())]))


def _now(connection: sa.Connection) -> float:
    """Seconds since the epoch by the database's clock, so that the nodes' clocks need not agree."""
    if connection.dialect.name == "postgresql":
        text = "SELECT extract(epoch FROM clock_timestamp())"
    else:
        text = "SELECT (julianday('now') - 2440587.5) * 86400.0"
    return float(connection.execute(sa.text(text)).scalar_one())
