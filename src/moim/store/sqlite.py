"""SQLite in WAL mode: the embedded database of one node.

Whoever writes has a connection of its own: what SQLite remembers of the file, it forgets when another connection has
written, and would read again for every commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import sqlalchemy as sa

# What the writer remembers, in KiB; the pages that wait in the log before they go into the file, so that a page which
# many commits change is copied once; and that the earlier state of pages, kept for savepoints, is not written to disk.
_WRITING = {"cache_size": -32_768, "wal_autocheckpoint": 4_000, "temp_store": 2}


class Sqlite:
    """A database file at ``path``; it and its folder are private to the user."""

    hint = "check the disk's free space and permissions"

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Makes the folder and the file with the right modes."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.touch(mode=0o600)

    def engine(self, connections: int) -> sa.Engine:
        """An engine with at most ``connections`` at once."""
        return self._engine(connections, {})

    def _engine(self, connections: int, pragmas: Mapping[str, int]) -> sa.Engine:
        engine = sa.create_engine(
            f"sqlite:///{self.path}", pool_size=connections, connect_args={"check_same_thread": False}
        )
        sa.event.listen(engine, "connect", partial(_configure, pragmas))
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        return engine

    def writing(self, engine: sa.Engine) -> sa.Engine:
        """What the writer uses: one connection that nobody else has."""
        return self._engine(1, _WRITING)

    def reading(self, engine: sa.Engine) -> sa.Engine:
        """What readers use: every transaction is a snapshot already."""
        return engine

    def begin_writing(self, connection: sa.Connection) -> None:
        """The first statement of a group: a transaction that cannot begin fails here, before anybody's work."""
        connection.exec_driver_sql("SELECT 1")

    def may_repeat(self, _error: BaseException) -> bool:
        """Nothing that fails here works a moment later."""
        return False


def _configure(pragmas: Mapping[str, int], raw: sqlite3.Connection, _record: object) -> None:
    raw.isolation_level = None  # SQLAlchemy's BEGIN events decide, not the driver
    cursor = raw.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    for name, value in pragmas.items():
        cursor.execute(f"PRAGMA {name}={value}")
    cursor.close()
