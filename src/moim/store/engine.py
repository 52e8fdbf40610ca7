"""SQLite in WAL mode behind one writer thread and a few reader threads.

Writes that arrive together are committed together: each runs in its own savepoint, all share one fsync, and every
caller is answered only after the commit. A caller's exception undoes that caller's savepoint alone.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from moim.errors import MoimError, Unavailable

Result = TypeVar("Result")
Work = Callable[[sa.Connection], Result]

_GROUP = 512  # writes in one commit at the most
_READERS = 2


def _configure(raw: sqlite3.Connection, _record: object) -> None:
    raw.isolation_level = None  # SQLAlchemy's BEGIN events below decide, not the driver
    cursor = raw.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def make_engine(path: Path) -> sa.Engine:
    """An engine for the database file at ``path`` with this module's pragmas."""
    engine = sa.create_engine(f"sqlite:///{path}", pool_size=_READERS + 1, connect_args={"check_same_thread": False})
    sa.event.listen(engine, "connect", _configure)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    return engine


class Store:
    """Runs functions over a SQLAlchemy connection: ``read`` in a reader thread, ``write`` in the writer's group.

    Functions given to it must not keep the connection, block on anything else, or touch the event loop.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self.engine = make_engine(path)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="moim-store-read")
        self._queue: queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None] = queue.SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._run_writer, name="moim-store-write", daemon=True)
        self._writer.start()

    async def read(self, work: Work[Result]) -> Result:
        """Runs ``work`` on a snapshot of the database. Raises Unavailable when the database cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Work[Result]) -> Result:
        try:
            with self.engine.connect() as connection:
                return work(connection)
        except sa.exc.OperationalError as error:
            raise _unavailable(error) from error

    async def write(self, work: Work[Result]) -> Result:
        """Runs ``work`` in a transaction; returns when it is on disk. Raises Unavailable when it is not."""
        if self._closed:
            raise Unavailable("the store is closed")
        future: Future[Result] = Future()
        self._queue.put((work, future))
        return await asyncio.shield(asyncio.wrap_future(future))

    def _run_writer(self) -> None:
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
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self.engine.connect() as connection, connection.begin():
                connection.exec_driver_sql("SELECT 1")
                for work, future in group:
                    try:
                        with connection.begin_nested():
                            done.append((future, work(connection), None))
                    except sa.exc.OperationalError:
                        raise
                    except Exception as error:  # the caller's own failure: only its savepoint is undone
                        done.append((future, None, error))
        except BaseException as error:
            failure = _unavailable(error) if isinstance(error, sa.exc.SQLAlchemyError) else error
            for _, future in group:
                future.set_exception(failure)
            return
        for future, result, own_failure in done:
            if own_failure is None:
                future.set_result(result)
            else:
                future.set_exception(own_failure)

    def close(self) -> None:
        """Finishes the writes that are queued, then closes. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        self._writer.join(timeout=10)
        self._readers.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()


def _unavailable(error: BaseException) -> MoimError:
    cause = getattr(error, "orig", None) or error
    return Unavailable(f"the database did not take it: {cause}", hint="check the disk's free space and permissions")
