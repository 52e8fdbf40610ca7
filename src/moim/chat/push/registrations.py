"""Push registrations on disk, and in memory only who has any: most messages are for people who have none.

The database is the truth. Other nodes' new registrations are heard of by looking for what changed, every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from moim.chat.push.tables import registrations as table
from moim.errors import LimitExceeded, MoimError
from moim.store import Store

_REFRESH_S = 10.0
_OVERLAP_S = 60.0  # clocks of nodes differ, and a commit is later than the time in its row

_log = logging.getLogger("moim.chat.push")

Key = tuple[str, str]
"""Service and node."""


@dataclass(frozen=True, slots=True)
class Registration:
    """Where one of an account's programs is to be woken. ``options`` is XML, empty for none."""

    owner: str
    service: str
    node: str
    options: str
    failures: int = 0
    """Errors in a row."""

    @property
    def key(self) -> Key:
        """What tells it from the account's others."""
        return self.service, self.node


class Registrations:
    """Every registration of the domain; ``most`` bounds those of one account."""

    def __init__(self, store: Store, *, most: int, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._most = most
        self._clock = clock
        self._owners: set[str] = set()
        self._seen = 0.0
        self._refresher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads who has registrations, and keeps looking."""
        await self.refresh()
        self._refresher = asyncio.create_task(self._refresh_for_ever(), name="chat:push-refresh")

    async def stop(self) -> None:
        """Stops looking."""
        if self._refresher is not None:
            self._refresher.cancel()
            await asyncio.gather(self._refresher, return_exceptions=True)
            self._refresher = None

    async def refresh(self) -> None:
        """Hears of what changed since the last time."""
        now = self._clock()
        query = sa.select(table.c.owner).distinct().where(table.c.changed_at >= self._seen)
        self._owners.update(await self._store.read(lambda connection: connection.scalars(query).all()))
        self._seen = now - _OVERLAP_S

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_S)
            try:
                await self.refresh()
            except MoimError as error:
                _log.error("push registrations cannot be read: %s", error)

    def __contains__(self, owner: str) -> bool:
        """Whether an account may have registrations; False is sure."""
        return owner in self._owners

    async def of(self, owner: str) -> Sequence[Registration]:
        """Those of an account."""
        query = sa.select(table).where(table.c.owner == owner).order_by(table.c.service, table.c.node)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        if not rows:
            self._owners.discard(owner)
        return [Registration(row.owner, row.service, row.node, row.options, row.failures) for row in rows]

    async def add(self, new: Registration) -> None:
        """Adds a registration or replaces it, forgetting its failures. Raises LimitExceeded."""
        same = _row(new)
        count = sa.select(sa.func.count()).where(table.c.owner == new.owner, ~same)

        def write(connection: sa.Connection) -> None:
            if connection.execute(count).scalar_one() >= self._most:
                raise LimitExceeded(f"an account has at most {self._most} push registrations")
            connection.execute(sa.delete(table).where(same))
            values = {"owner": new.owner, "service": new.service, "node": new.node, "options": new.options}
            connection.execute(sa.insert(table).values(**values, failures=0, changed_at=self._clock()))

        await self._store.write(write)
        self._owners.add(new.owner)

    async def remove(self, owner: str, service: str | None = None, node: str | None = None) -> None:
        """Removes those of an account: all, those at a service, or one."""
        which = [table.c.owner == owner]
        if service is not None:
            which.append(table.c.service == service)
        if node is not None:
            which.append(table.c.node == node)
        gone = sa.delete(table).where(*which)
        await self._store.write(lambda connection: connection.execute(gone))

    async def failed(self, registration: Registration, most: int) -> bool:
        """Counts a failure; with ``most`` of them in a row the registration is removed: True."""
        same = _row(registration)

        def write(connection: sa.Connection) -> bool:
            connection.execute(sa.update(table).where(same).values(failures=table.c.failures + 1))
            return connection.execute(sa.delete(table).where(same, table.c.failures >= most)).rowcount > 0

        return await self._store.write(write)

    async def worked(self, registration: Registration) -> None:
        """Forgets the failures of a registration."""
        which = _row(registration) & (table.c.failures > 0)
        await self._store.write(lambda connection: connection.execute(sa.update(table).where(which).values(failures=0)))


def _row(registration: Registration) -> sa.ColumnElement[bool]:
    return (
        (table.c.owner == registration.owner)
        & (table.c.service == registration.service)
        & (table.c.node == registration.node)
    )
