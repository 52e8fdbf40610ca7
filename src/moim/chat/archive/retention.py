"""How long the archive keeps what: old messages and those beyond an account's share go, oldest first, a few at a time.

The oldest always go first, so that an archive never has gaps (XEP-0313 section 3.2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from moim.chat.archive import ids, keeping
from moim.errors import MoimError
from moim.store import Store

_STEP: Final = 500  # messages of one transaction, so that nobody waits long for the disk
_PAUSE: Final = 0.02

_log = logging.getLogger("moim.chat.archive")


@dataclass(frozen=True, slots=True)
class Share:
    """What one archive may keep: days (0: for ever), messages and bytes."""

    days: int = 365
    messages: int = 1_000_000
    size: int = 1 << 30


class Retention:
    """Sweeps through all archives, now and then. ``clock`` gives the time.

    ``others`` gives the archives that do not have the general ``share``, by address.
    """

    def __init__(
        self,
        store: Store,
        share: Share,
        *,
        others: Callable[[], Mapping[str, Share]] = dict,
        every: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._share = share
        self._others = others
        self._every = every
        self._clock = clock
        self._removed: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Learns which archives are marked as gone. Raises Unavailable."""
        self._removed = await self._store.read(keeping.removed)

    def start(self) -> None:
        """Begins to sweep."""
        self._task = asyncio.create_task(self._run(), name="chat:archive-retention")

    async def stop(self) -> None:
        """Ends; the next start goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def floor(self, owner: str) -> int:
        """The id up to which the archive of a bare JID is gone; −1 when nothing is."""
        return self._removed.get(ids.key(owner), -1) if self._removed else -1

    async def remove(self, owner: str) -> None:
        """Makes a whole archive go: for everybody at once, from the disk soon. Raises Unavailable."""
        key = ids.key(owner)
        upto = await self._store.write(lambda connection: keeping.remove(connection, key))
        if upto is not None:
            self._removed[key] = upto
            self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except MoimError as error:
                _log.error("the archive could not be trimmed: %s", error)
            except Exception:
                _log.exception("the archive could not be trimmed")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._every)
            self._wake.clear()

    async def sweep(self) -> int:
        """One round through all archives; how many messages went. Raises Unavailable."""
        gone = 0
        for owner, upto in tuple(self._removed.items()):
            gone += await self._drop(owner, upto)
            await self._store.write(lambda connection, o=owner, u=upto: keeping.forget(connection, o, u))  # type: ignore[misc]
            if self._removed.get(owner) == upto:
                del self._removed[owner]
        others = {ids.key(owner): share for owner, share in self._others().items()}
        owner_now: int | None = None
        while True:
            after = owner_now
            owner_now = await self._store.read(lambda connection, a=after: keeping.next_owner(connection, a))  # type: ignore[misc]
            if owner_now is None:
                break
            gone += await self._trim(owner_now, others.get(owner_now, self._share))
            await asyncio.sleep(0)
        if gone:
            _log.info("%d messages went out of archives", gone)
        return gone

    async def _trim(self, owner: int, share: Share) -> int:
        gone = 0
        if share.days:
            oldest = ids.first_at(self._clock() - timedelta(days=share.days))
            gone = await self._drop(owner, oldest - 1)
        upto = await self._store.read(
            lambda connection: keeping.excess(
                connection, owner, messages_kept=share.messages, bytes_kept=share.size, step=_STEP
            )
        )
        return gone + (await self._drop(owner, upto) if upto else 0)

    async def _drop(self, owner: int, upto: int) -> int:
        gone = 0
        while True:
            if not await self._store.read(lambda connection: keeping.any_upto(connection, owner, upto)):
                return gone
            gone += await self._store.write(lambda connection: keeping.drop(connection, owner, upto, _STEP))
            await asyncio.sleep(_PAUSE)
