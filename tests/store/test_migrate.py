"""Migrations: each room's own line, several rooms at once, a newer database refused."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from moim.errors import ConfigError
from moim.store import migrate
from moim.store.engine import make_engine

REVISION = """
import sqlalchemy as sa
from alembic import op
revision = "{room}_{number:04}"
down_revision = {down}
branch_labels = {labels}
depends_on = None

def upgrade() -> None:
    op.create_table("{room}_{number}", sa.Column("id", sa.Integer, primary_key=True))
"""


def revision(folder: Path, room: str, number: int) -> None:
    folder.mkdir(exist_ok=True)
    down = repr(f"{room}_{number - 1:04}") if number > 1 else None
    labels = repr((room,)) if number == 1 else None
    text = REVISION.format(room=room, number=number, down=down, labels=labels)
    (folder / f"{room}_{number:04}.py").write_text(text)


def tables(path: Path) -> set[str]:
    engine = make_engine(path)
    with engine.connect() as connection:
        names = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    return names - {"alembic_version"}


def test_rooms_grow_apart(tmp_path: Path) -> None:
    a, b, path = tmp_path / "a", tmp_path / "b", tmp_path / "x.db"
    revision(a, "a", 1)
    migrate(path, [a])
    revision(a, "a", 2)
    revision(b, "b", 1)
    migrate(path, [a, b])
    assert tables(path) == {"a_1", "a_2", "b_1"}
    migrate(path, [a, b])
    assert tables(path) == {"a_1", "a_2", "b_1"}


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    a, path = tmp_path / "a", tmp_path / "x.db"
    revision(a, "a", 1)
    revision(a, "a", 2)
    migrate(path, [a])
    (a / "a_0002.py").unlink()
    with pytest.raises(ConfigError, match="newer program"):
        migrate(path, [a])
