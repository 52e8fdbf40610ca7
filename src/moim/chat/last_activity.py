"""XEP-0012 last activity: how long the server runs, and since when somebody is away, for those who see their presence.

The moment is noted when the last session of an account becomes unavailable, and written soon after with others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import sqlalchemy as sa

from moim.chat import tables
from moim.chat.accounts import Account, Accounts, Session
from moim.chat.feature import Feature, Iq, IqKey, Payload
from moim.chat.rosters import Rosters
from moim.errors import MoimError
from moim.proto.xmpp import Element, StanzaError, ns
from moim.store import Store, insert

_WRITE_AFTER = 5.0
_MAX_STATUS = 1000

_log = logging.getLogger("moim.chat.last_activity")

Left = tuple[float, str]
"""When (seconds since the epoch), and the status that was left behind."""


class LastActivity:
    """The feature. ``clock`` is in seconds since the epoch."""

    def __init__(
        self, store: Store, *, accounts: Accounts, rosters: Rosters, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._rosters = rosters
        self._clock = clock
        self._since = clock()
        self._unwritten: dict[str, Left] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._stopped = False
        query: IqKey = ("get", ns.LAST, "query")
        self.feature = Feature(
            name="XEP-0012 last activity",
            server_vars=(ns.LAST,),
            account_vars=(ns.LAST,),
            server_iq={query: self._uptime},
            account_iq={query: self._account},
            on_start=self._start,
            on_stop=self._stop,
            on_unavailable=self._left,
            on_account_removed=self._forget,
        )

    def _uptime(self, _iq: Iq) -> Payload:
        return (_answer(self._clock() - self._since),)

    async def _account(self, iq: Iq) -> Payload:
        owner = str(iq.to)
        if not iq.own:
            roster = await self._rosters.get(owner)
            if not roster.item(str(iq.sender.bare)).state.seen:
                raise StanzaError("forbidden", "only those who see somebody's presence may know this")
        if any(self._accounts.available(owner)):
            return (_answer(0),)
        left = await self.last(owner)
        if left is None:
            raise StanzaError("item-not-found", "nobody was ever here under this address")
        return (_answer(self._clock() - left[0], left[1]),)

    async def last(self, owner: str) -> Left | None:
        """When an account (bare JID) was last available; None when that is not known. Raises Unavailable."""
        if (left := self._unwritten.get(owner)) is not None:
            return left
        table = tables.last_activity
        query = sa.select(table.c.left_at, table.c.status).where(table.c.owner == owner)
        row = await self._store.read(lambda connection: connection.execute(query).one_or_none())
        return (row.left_at, row.status) if row is not None else None

    def _left(self, session: Session, stanza: Element) -> None:
        account = session.full_account
        if not any(account.available()):
            status = stanza.find("status", ns.CLIENT)
            self._note(account, status.text[:_MAX_STATUS] if status is not None else "")
            if self._timer is None and self._writing is None and not self._stopped:
                self._timer = asyncio.get_running_loop().call_later(_WRITE_AFTER, self._begin)

    def _note(self, account: Account, status: str = "") -> None:
        self._unwritten[account.bare] = (self._clock(), status)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self._write(), name="chat:last-activity")
        self._writing.add_done_callback(self._written)

    def _written(self, _task: asyncio.Task[None]) -> None:
        self._writing = None
        if self._unwritten and not self._stopped:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_AFTER, self._begin)

    async def _write(self) -> None:
        batch = dict(self._unwritten)
        rows = [{"owner": owner, "left_at": at, "status": status} for owner, (at, status) in batch.items()]
        if not rows:
            return

        def work(connection: sa.Connection) -> None:
            statement = insert(tables.last_activity)
            again = {"left_at": statement.excluded.left_at, "status": statement.excluded.status}
            connection.execute(statement.on_conflict_do_update(index_elements=["owner"], set_=again), rows)

        try:
            await self._store.write(work)
        except MoimError as error:
            _log.error("who left when could not be written: %s", error.message)
            return
        for owner, left in batch.items():
            if self._unwritten.get(owner) == left:
                del self._unwritten[owner]

    async def _start(self) -> None:
        self._since = self._clock()

    async def _stop(self) -> None:
        """Everybody who is here leaves now."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await self._writing
        for account in self._accounts:
            if any(not session.node for session in account.available()):
                self._note(account)
        await self._write()

    async def _forget(self, owner: str) -> None:
        self._unwritten.pop(owner, None)
        gone = sa.delete(tables.last_activity).where(tables.last_activity.c.owner == owner)
        await self._store.write(lambda connection: connection.execute(gone))


def _answer(seconds: float, status: str = "") -> Element:
    return Element("query", ns.LAST, {"seconds": str(max(int(seconds), 0))}, (status,) if status else ())
