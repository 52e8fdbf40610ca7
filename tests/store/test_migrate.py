"""Migrations: each room's own line, several rooms at once, a newer database refused."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from moim.errors import ConfigError, Unavailable
from moim.store import Where, migrate
from moim.store.engine import make_engine
from postgres import PrivatePostgres

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


def tables(path: Where) -> set[str]:
    engine = make_engine(path)
    with engine.connect() as connection:
        names = set(sa.inspect(connection).get_table_names())
    engine.dispose()
    return names - {"alembic_version"}


def test_rooms_grow_apart(tmp_path: Path, database: Where) -> None:
    a, b, path = tmp_path / "a", tmp_path / "b", database
    revision(a, "a", 1)
    migrate(path, [a])
    revision(a, "a", 2)
    revision(b, "b", 1)
    migrate(path, [a, b])
    assert tables(path) == {"a_1", "a_2", "b_1"}
    migrate(path, [a, b])
    assert tables(path) == {"a_1", "a_2", "b_1"}


def test_a_newer_database_is_refused(tmp_path: Path, database: Where) -> None:
    a, path = tmp_path / "a", database
    revision(a, "a", 1)
    revision(a, "a", 2)
    migrate(path, [a])
    (a / "a_0002.py").unlink()
    with pytest.raises(ConfigError, match="newer program"):
        migrate(path, [a])


_MIGRATE = """
import sys
from pathlib import Path
import sqlalchemy as sa
from moim.store import migrate
migrate(sa.make_url(sys.argv[1]), [Path(sys.argv[2])])
"""


def test_nodes_that_start_at_once_migrate_once(tmp_path: Path, postgres: PrivatePostgres) -> None:
    a, url = tmp_path / "a", postgres.database()
    for number in range(1, 6):
        revision(a, "a", number)
    command = [sys.executable, "-c", _MIGRATE, url.render_as_string(hide_password=False), str(a)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert tables(url) == {f"a_{number}" for number in range(1, 6)}


def test_a_database_that_is_not_there_is_said(tmp_path: Path) -> None:
    revision(tmp_path / "a", "a", 1)
    with pytest.raises(Unavailable, match="cannot be opened"):
        migrate(sa.make_url(f"postgresql://moim@/x?host={tmp_path}"), [tmp_path / "a"])
