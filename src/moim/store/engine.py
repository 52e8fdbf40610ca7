"""The store: one writer thread that commits in groups, a few reader threads, over SQLite or PostgreSQL.

Writes that arrive together are committed together: each runs in its own savepoint, all share one fsync, and every
caller is answered only after the commit. A caller's exception undoes that caller's savepoint alone.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from moim.errors import MoimError, Unavailable, UsageError
from moim.store import upsert as _upsert  # its rules of how statements are written hold from here on
from moim.store.postgres import Postgres
from moim.store.sqlite import Sqlite

Result = TypeVar("Result")
Work = Callable[[sa.Connection], Result]
_Done = tuple[Future[Any], Any, BaseException | None]
Where = Path | sa.URL
"""A SQLite file, or the URL of a PostgreSQL database."""

_GROUP = 512  # writes in one commit at the most
_READERS = 2
_ATTEMPTS = 3
_NICER = 5  # than the threads that carry messages
_DOWN_SECONDS = 1.0  # how long nobody waits for a database that could not be reached

__all__ = ["Store", "Where", "backend_of", "make_engine"]
assert _upsert


def backend_of(where: Where) -> Sqlite | Postgres:
    """What is special about the database at ``where``."""
    return Sqlite(where) if isinstance(where, Path) else Postgres(where)


def make_engine(where: Where) -> sa.Engine:
    """An engine for the database at ``where`` as the store uses it."""
    return backend_of(where).engine(_READERS + 1)


class Store:
    """Runs functions over a SQLAlchemy connection: ``read`` in a reader thread, ``write`` in the writer's group.

    Functions given to it must not keep the connection, block on anything else, or touch the event loop; one may run
    again when a connection broke before its commit. ``readers`` is how many read at once.
    """

    def __init__(self, where: Where, *, readers: int = _READERS) -> None:
        self.where = where
        self._backend = backend_of(where)
        self._backend.prepare()
        self.engine = self._backend.engine(readers + 1)
        self._reading = self._backend.reading(self.engine)
        self._writing = self._backend.writing(self.engine)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="moim-store-read")
        self._queue: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._closed = False
        self._down: tuple[float, MoimError] | None = None
        self._writer = threading.Thread(target=self._run_writer, name="moim-store-write", daemon=True)
        self._writer.start()

    @property
    def path(self) -> Path:
        """The database file. Raises UsageError when there is none."""
        if isinstance(self.where, Path):
            return self.where
        raise UsageError("the store is not a file")

    @property
    def shared(self) -> bool:
        """Whether other nodes may use the same database."""
        return not isinstance(self.where, Path)

    async def read(self, work: Work[Result]) -> Result:
        """Runs ``work`` on a snapshot of the database. Raises Unavailable when the database cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Work[Result]) -> Result:
        for attempt in range(_ATTEMPTS):
            try:
                with self._reading.connect() as connection:
                    return work(connection)
            except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
                if attempt + 1 == _ATTEMPTS or not self._backend.may_repeat(error):
                    raise self._unavailable(error) from error
        raise AssertionError("unreachable")

    async def write(self, work: Work[Result]) -> Result:
        """Runs ``work`` in a transaction; returns when it is on disk. Raises Unavailable when it is not."""
        if self._closed:
            raise Unavailable("the store is closed")
        future: Future[Result] = Future()
        self._queue.put((work, future))
        return await asyncio.shield(asyncio.wrap_future(future))

    def _run_writer(self) -> None:
        own = threading.get_native_id()  # on Linux each thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + _NICER)
        while True:
            item = self._queue.get()
            if item is None:
                return
            group = [item]
            while len(group) < _GROUP:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)
                    break
                group.append(more)
            self._commit(group)

    def _commit(self, group: list[tuple[Work[Any], Future[Any]]]) -> None:
        done: list[_Done] = []
        try:
            if self._down is not None and time.monotonic() < self._down[0]:
                raise self._down[1]
            self._down = None
            done = self._try(group)
        except BaseException as error:
            failure = self._unavailable(error) if isinstance(error, sa.exc.SQLAlchemyError) else error
            for _, future in group:
                future.set_exception(failure)
            return
        for future, result, own_failure in done:
            if own_failure is None:
                future.set_result(result)
            else:
                future.set_exception(own_failure)

    def _try(self, group: list[tuple[Work[Any], Future[Any]]]) -> list[_Done]:
        for attempt in range(_ATTEMPTS):
            committing = False
            try:
                with self._connect() as connection, connection.begin() as transaction:
                    self._backend.begin_writing(connection)
                    if len(group) == 1:
                        done = [self._alone(connection, transaction, *group[0])]
                        if done[0][2] is not None:
                            return done
                    else:
                        done = [self._one(connection, work, future) for work, future in group]
                    committing = True  # from here on nobody knows whether it happened
                    transaction.commit()
                    return done
            except sa.exc.DBAPIError as error:
                if committing or attempt + 1 == _ATTEMPTS or not self._backend.may_repeat(error):
                    raise
        raise AssertionError("unreachable")

    def _connect(self) -> sa.Connection:
        try:
            return self._writing.connect()
        except sa.exc.OperationalError as error:
            failure = self._unavailable(error)
            if self.shared:
                self._down = (time.monotonic() + _DOWN_SECONDS, failure)
            raise failure from error

    @staticmethod
    def _alone(
        connection: sa.Connection, transaction: sa.RootTransaction, work: Work[Any], future: Future[Any]
    ) -> _Done:
        """The only one of its group: its transaction is its savepoint."""
        try:
            return future, work(connection), None
        except sa.exc.OperationalError:
            raise
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            failure: BaseException = error
        except Exception as error:
            failure = error
        transaction.rollback()
        return future, None, failure

    @staticmethod
    def _one(connection: sa.Connection, work: Work[Any], future: Future[Any]) -> _Done:
        try:
            with connection.begin_nested():
                return future, work(connection), None
        except sa.exc.OperationalError:
            raise
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            return future, None, error
        except Exception as error:  # the caller's own failure: only its savepoint is undone
            return future, None, error

    def close(self) -> None:
        """Finishes the writes that are queued, then closes. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join(timeout=10)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._writing.dispose()
        self.engine.dispose()

    def _unavailable(self, error: BaseException) -> MoimError:
        cause = str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
        return Unavailable(f"the database did not take it: {cause}", hint=self._backend.hint)
