"""The way into the archive: everything that waits is committed together, and only then answered for.

The plane's records are of messages that were delivered already; their senders are acknowledged after the commit. What
Python handles is committed first and goes on afterwards, in the order it came. When the disk refuses, nothing is
acknowledged: records are tried again for a while, and then the senders' streams end, so that they send again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from moim.chat.archive import keeping
from moim.chat.archive.rows import Record, rows
from moim.chat.custody import Custody, hold, working_on
from moim.errors import MoimError, Unavailable
from moim.proto.xmpp import StanzaError
from moim.store import Store

_BATCH: Final = 4000  # messages of one commit
_GATHER: Final = 0.05  # seconds between two commits: one writes the same pages for few messages and for many
_MAX_WAITING: Final = 20_000
_PAUSE: Final = 1.0
_NO_TICKET: Final = -1

_log = logging.getLogger("moim.chat.archive")


@dataclass(slots=True)
class Entry:
    """A message that Python handles. ``record`` is None when it turned out that nobody's archive wants it.

    ``author`` is its author's real address, in rooms. ``decide`` is awaited first when it takes the database to tell
    whose archives those are. Then exactly one of ``then`` and ``failed`` is called, in the order of the messages.
    """

    record: Record | None
    then: Callable[[], None]
    failed: Callable[[StanzaError], None]
    author: str | None = None
    decide: Callable[[], Awaitable[Record | None]] | None = None
    held: Custody | None = None
    """Set by ``Intake.add``."""


@dataclass(slots=True)
class _Tickets:
    """Records of the plane that are not on disk yet, and since when that fails."""

    waiting: deque[tuple[int, Sequence[Record], Custody | None]] = field(default_factory=deque)
    failing_since: float | None = None


class Intake:
    """One writer. ``committed`` tells the plane that a ticket is done with, and whether it was kept, many inside
    ``together``; ``refuse`` ends the streams of senders whose messages cannot be kept, ``state`` hears on each change
    whether the disk takes messages, and ``kept`` what it took. ``patience`` is how many seconds the plane's records
    are tried again.
    """

    def __init__(
        self,
        store: Store,
        *,
        committed: Callable[[int, bool], None],
        together: Callable[[], AbstractContextManager[None]] = nullcontext,
        refuse: Callable[[Collection[str]], None],
        state: Callable[[bool], None],
        kept: Callable[[Sequence[Record]], None],
        patience: float,
    ) -> None:
        self._store = store
        self._committed = committed
        self._together = together
        self._refuse = refuse
        self._state = state
        self._kept = kept
        self._patience = patience
        self._tickets = _Tickets()
        self._entries: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._next = 0.0
        self._accepted = self._tried = self._late = 0
        self._settling: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.working = True
        """Whether the disk took the last batch."""

    def start(self) -> None:
        """Begins to write what comes."""
        self._task = asyncio.create_task(self._run(), name="chat:archive")

    async def stop(self) -> None:
        """Returns when what was accepted is on disk or refused; nothing is accepted any more."""
        self._closing = True
        self._urgent.set()
        if self._task is not None:
            self._wake.set()
            await self._task
            self._task = None

    def records(self, ticket: int, records: Sequence[Record]) -> None:
        """A batch of the plane."""
        self._record(ticket, records, None)

    def _record(self, ticket: int, records: Sequence[Record], held: Custody | None) -> None:
        self._tickets.waiting.append((ticket, records, held))
        self._accepted += 1
        self._wake.set()

    def late(self, record: Record) -> None:
        """A message that Python delivers before its commit. Raises StanzaError when too many wait."""
        if self._late >= _MAX_WAITING or self._closing:
            raise StanzaError("resource-constraint", "the server cannot store messages this fast")
        self._late += 1
        self._record(_NO_TICKET, (record,), hold())

    def add(self, entry: Entry) -> None:
        """A message that waits for its commit. Raises StanzaError when too many do, or none is accepted any more."""
        if len(self._entries) >= _MAX_WAITING or self._closing:
            raise StanzaError("resource-constraint", "the server cannot store messages this fast")
        entry.held = hold()
        self._entries.append(entry)
        self._accepted += 1
        self._wake.set()
        self._urgent.set()

    async def settled(self) -> None:
        """Returns when everything accepted so far is on disk, or was refused by it once."""
        if self._tried < self._accepted and self._task is not None:
            future = asyncio.get_running_loop().create_future()
            self._settling.append((self._accepted, future))
            self._urgent.set()
            await future

    async def _run(self) -> None:
        while True:
            if not self._entries and (not self._tickets.waiting or self._tickets.failing_since is not None):
                self._settle()
                if self._closing:
                    break
                self._wake.clear()
                await self._rest()
            await self._gather()
            await self._write()
            if not (self._entries or self._settling or self._closing):
                self._urgent.clear()
        if self._tickets.waiting:
            self._give_up()

    async def _gather(self) -> None:
        """Until others have come that share the commit: not when somebody waits, nor after a quiet moment."""
        loop = asyncio.get_running_loop()
        if not self._urgent.is_set() and (left := self._next - loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), left)
        self._next = loop.time() + _GATHER

    async def _rest(self) -> None:
        """Until something comes, or until it is time to try again."""
        if self._tickets.failing_since is None:
            await self._wake.wait()
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), _PAUSE)

    async def _write(self) -> None:
        entries = await self._taken()
        tickets = 0
        records: list[Record] = []
        for _, batch, _ in self._tickets.waiting:
            if len(records) >= _BATCH:
                break
            tickets += 1
            records += batch
        single = [(entry.record, entry.author) for entry in entries if entry.record is not None]

        def write(connection: sa.Connection) -> None:
            messages, listed = rows(records)
            for record, author in single:
                more, more_listed = rows((record,), author)
                messages += more
                listed += more_listed
            keeping.add(connection, messages, listed)

        if not records and not single:
            self._done(tickets, entries)
            return
        try:
            await self._store.write(write)
        except Unavailable as error:
            self._refused(error, entries)
        except Exception as error:
            _log.error("%d messages cannot be archived", len(records) + len(single), exc_info=error)
            self._fail(entries)
            self._give_up()
        else:
            self._done(tickets, entries)
            if not self.working:
                self.working = True
                _log.warning("the archive can be written again")
                self._state(True)
            self._kept([*records, *(record for record, _ in single)])
        self._settle()

    async def _taken(self) -> list[Entry]:
        """The entries of the next batch, each with its archives decided."""
        taken: list[Entry] = []
        while self._entries and len(taken) < _BATCH:
            entry = self._entries.popleft()
            if entry.decide is not None:
                try:
                    entry.record = await entry.decide()
                except MoimError as error:
                    _log.error("a message's archives cannot be told: %s", error)
                    self._call(entry, entry.failed, _later())
                    self._tried += 1
                    continue
            taken.append(entry)
        return taken

    def _done(self, tickets: int, entries: Sequence[Entry]) -> None:
        with self._together():
            for _ in range(tickets):
                ticket, _, held = self._tickets.waiting.popleft()
                self._over(ticket, held, kept=True)
        self._tickets.failing_since = None
        self._tried += tickets + len(entries)
        for entry in entries:
            self._call(entry, entry.then)

    def _refused(self, error: Unavailable, entries: Sequence[Entry]) -> None:
        now = asyncio.get_running_loop().time()
        if self.working:
            self.working = False
            _log.error("messages cannot be archived, so they are refused until the disk takes them: %s", error)
            self._state(False)
        self._fail(entries)
        if self._tickets.waiting:
            if self._tickets.failing_since is None:
                self._tickets.failing_since = now
            elif now - self._tickets.failing_since >= self._patience:
                self._give_up()

    def _fail(self, entries: Sequence[Entry]) -> None:
        self._tried += len(entries)
        for entry in entries:
            if entry.record is None:
                self._call(entry, entry.then)
            else:
                self._call(entry, entry.failed, _later())

    def _give_up(self) -> None:
        """The senders of what the plane delivered lose their streams before the plane may acknowledge anything."""
        waiting, self._tickets = self._tickets.waiting, _Tickets()
        senders = {record[1] for _, records, _ in waiting for record in records}
        amount = sum(len(records) for _, records, _ in waiting)
        _log.error("%d delivered messages are not archived; the streams of %d senders end", amount, len(senders))
        self._refuse(senders)
        for ticket, _, held in waiting:
            self._over(ticket, held, kept=False)
        self._tried += len(waiting)

    def _over(self, ticket: int, held: Custody | None, *, kept: bool) -> None:
        if ticket != _NO_TICKET:
            self._committed(ticket, kept)
            return
        self._late -= 1
        if held is not None:
            held.release() if kept else held.refuse()

    def _settle(self) -> None:
        """Whoever waits goes on once its messages were tried: those that fail wait longer than anybody should."""
        tried = self._accepted if self._tickets.failing_since is not None and not self._entries else self._tried
        due = [future for number, future in self._settling if number <= tried]
        self._settling = [(number, future) for number, future in self._settling if number > tried]
        for future in due:
            if not future.done():
                future.set_result(None)

    @staticmethod
    def _call(entry: Entry, function: Callable[..., None], *arguments: object) -> None:
        try:
            with working_on(entry.held):
                function(*arguments)
        except Exception:
            _log.exception("what follows an archived message failed")
        if entry.held is not None:
            entry.held.release()


def _later() -> StanzaError:
    return StanzaError("internal-server-error", "the server cannot store messages at the moment", kind="wait")
