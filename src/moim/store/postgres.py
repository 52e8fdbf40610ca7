"""PostgreSQL: the database that the nodes of a subcluster share.

Groups of writes take turns across all nodes, by an advisory lock for as long as a transaction lasts: what one write
reads, no other node changes before it commits, as with SQLite. A node that dies lets go with its connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from moim.errors import ConfigError

_WRITERS, _MIGRATIONS = 0x6D6F_0001, 0x6D6F_0002  # keys of advisory locks, each for the database it is taken in
_OLDEST = (13, 0)
_REPEATABLE = frozenset({"40001", "40P01"})  # serialization failure, deadlock
# A transaction that stands still, or whose node's machine lost power, must not keep the others from writing.
_SESSION = {
    "idle_in_transaction_session_timeout": "15s",
    "lock_timeout": "15s",
    "statement_timeout": "60s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "timezone": "UTC",
    "synchronous_commit": "on",
}


class Postgres:
    """A database at ``url``, which may hold the password: it is shown nowhere."""

    hint = "check that PostgreSQL runs and can be reached from this node; what runs goes on, and it is tried again"

    def __init__(self, url: sa.URL) -> None:
        self.url = url.set(drivername="postgresql+psycopg")

    def prepare(self) -> None:
        """Nothing: the administrator made the database."""

    def engine(self, connections: int) -> sa.Engine:
        """An engine with at most ``connections`` at once; connections that broke are replaced."""
        options = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
        return sa.create_engine(
            self.url,
            pool_size=connections,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": 5,
                "options": options,
                "application_name": "moim",
                "keepalives_idle": 5,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 15_000,
            },
        )

    def reading(self, engine: sa.Engine) -> sa.Engine:
        """What readers use: one snapshot for a whole function, and no writing."""
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def writing(self, engine: sa.Engine) -> sa.Engine:
        """What the writer uses: the pool of all."""
        return engine

    def begin_writing(self, connection: sa.Connection) -> None:
        """The first statement of a group: waits until no other node writes."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITERS)))

    def may_repeat(self, error: BaseException) -> bool:
        """Whether the same may work now: the connection broke before a commit, or two were in each other's way."""
        if not isinstance(error, sa.exc.DBAPIError):
            return False
        return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _REPEATABLE

    def check(self, connection: sa.Connection) -> None:
        """Raises ConfigError for a server or database that does not fit."""
        version = connection.dialect.server_version_info or (0,)
        if version < _OLDEST:
            raise ConfigError(f"PostgreSQL {version[0]} is too old", hint=f"use version {_OLDEST[0]} or newer")
        encoding = connection.execute(sa.text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            raise ConfigError(
                f"the database stores text as {encoding}",
                hint="make it anew: createdb --encoding UTF8 --locale C.UTF-8 --template template0 moim",
            )

    @contextmanager
    def migrating(self, engine: sa.Engine) -> Iterator[None]:
        """While inside, no other node migrates the database."""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("SET lock_timeout = 0; SET statement_timeout = '300s'"))
            connection.execute(sa.select(sa.func.pg_advisory_lock(_MIGRATIONS)))
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_MIGRATIONS)))
                connection.invalidate()  # its timeouts are nobody else's
