"""Brings a database to the newest schema. Each room keeps its own line of Alembic revisions beside its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from moim.errors import ConfigError, Unavailable
from moim.store.engine import Where, backend_of
from moim.store.postgres import Postgres

_SCRIPTS = Path(__file__).with_name("alembic")


def migrate(where: Where, rooms: Sequence[Path]) -> None:
    """Upgrades the database at ``where``. ``rooms`` are folders of revisions, one line (branch) per room.

    Of several nodes that start at once, one does it and the others wait. A database made by a newer program is
    refused with ConfigError rather than touched. Raises Unavailable when it cannot be reached.
    """
    heads = _heads(rooms)
    backend = backend_of(where)
    engine = backend.engine(3)
    try:
        if _now(engine, backend) == heads:
            return
        if isinstance(backend, Postgres):
            with backend.migrating(engine):
                _upgrade(engine, rooms, _now(engine, backend))
        else:
            _upgrade(engine, rooms, _now(engine, backend))
    except sa.exc.OperationalError as error:
        cause = str(error.orig or error).strip().split("\n", 1)[0]
        raise Unavailable(f"the database cannot be opened: {cause}", hint=backend.hint) from error
    finally:
        engine.dispose()


def _now(engine: sa.Engine, backend: object) -> set[str]:
    with engine.connect() as connection:
        if isinstance(backend, Postgres):
            backend.check(connection)
        known = sa.inspect(connection).has_table("alembic_version")
        return set(connection.scalars(sa.text("SELECT version_num FROM alembic_version"))) if known else set()


def _heads(rooms: Sequence[Path]) -> set[str]:
    """The newest revision of each room, by file names ``<room>_<number>.py``: the highest number."""
    return {max(room.glob("*_[0-9][0-9][0-9][0-9].py")).stem for room in rooms}


def _upgrade(engine: sa.Engine, rooms: Sequence[Path], now: set[str]) -> None:
    from alembic import command
    from alembic.config import Config

    names = {file.stem for room in rooms for file in room.glob("*_[0-9][0-9][0-9][0-9].py")}
    if newer := sorted(now - names):
        raise ConfigError(
            f"the database was made by a newer program (revision {', '.join(newer)})",
            hint="start that version, or restore a backup made by this one",
        )
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(str(room).replace("%", "%%") for room in rooms))
    config.attributes["engine"] = engine
    command.upgrade(config, "heads")
