"""Where tests keep their data: in SQLite files, or in PostgreSQL, each in a database of its own.

``MOIM_TEST_STORE=postgresql`` runs every test of chat on PostgreSQL. Migrations run once; each test gets a copy of what
they made.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, cast

import sqlalchemy as sa

from moim.store import Store, migrate
from postgres import PrivatePostgres

Engine = Literal["sqlite", "postgresql"]
USUAL: Final = cast("Engine", os.environ.get("MOIM_TEST_STORE", "sqlite"))

_servers: list[PrivatePostgres] = []
_migrated: dict[tuple[Path, ...], sa.URL] = {}


def server() -> PrivatePostgres:
    """A PostgreSQL server for all tests of this process that do not stop it."""
    if not _servers:
        _servers.append(PrivatePostgres())
        atexit.register(_servers[0].remove)
        _servers[0].start()
    return _servers[0]


def opened(path: Path, lines: Sequence[Path], engine: Engine = USUAL) -> Store:
    """A store with these lines of migrations, in the file ``path`` where it is SQLite."""
    if engine == "sqlite":
        store = Store(path)
        migrate(path, lines)
        return store
    key = tuple(lines)
    if key not in _migrated:
        _migrated[key] = server().database()
        migrate(_migrated[key], lines)
    return Store(server().database(like=_migrated[key]))


def removed(store: Store) -> None:
    """Closes a store that ``opened`` made; what is in it is gone, where that costs room."""
    store.close()
    if isinstance(store.where, sa.URL):
        server().drop(store.where)
