"""The store: group commit, isolation of failing writes, durability across a killed process, a full disk."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from moim.errors import Unavailable
from moim.store import Store

meta = sa.MetaData()
notes = sa.Table("notes", meta, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text, unique=True))


@pytest.fixture
async def store(tmp_path: Path):
    store = Store(tmp_path / "a.db")
    await store.write(lambda c: meta.create_all(c))
    yield store
    store.close()


def add(text: str):
    return lambda c: c.execute(sa.insert(notes).values(text=text)).inserted_primary_key[0]


async def texts(store: Store) -> list[str]:
    return await store.read(lambda c: list(c.scalars(sa.select(notes.c.text).order_by(notes.c.id))))


async def test_writes_that_come_together_are_all_kept(store: Store) -> None:
    ids = await asyncio.gather(*(store.write(add(f"n{i}")) for i in range(1000)))
    assert len(set(ids)) == 1000
    assert await texts(store) == [f"n{i}" for i in range(1000)]


async def test_a_failing_write_undoes_itself_alone(store: Store) -> None:
    results = await asyncio.gather(
        store.write(add("a")), store.write(add("a")), store.write(add("b")), return_exceptions=True
    )
    assert isinstance(results[1], sa.exc.IntegrityError)
    assert await texts(store) == ["a", "b"]


async def test_files_are_private(store: Store) -> None:
    assert store.path.stat().st_mode & 0o077 == 0


async def test_a_closed_store_refuses(tmp_path: Path) -> None:
    store = Store(tmp_path / "b.db")
    store.close()
    with pytest.raises(Unavailable):
        await store.write(lambda c: None)


async def test_a_full_disk_is_an_error_and_not_a_loss(store: Store) -> None:
    await store.write(add("kept"))

    def fill(c: sa.Connection) -> None:
        c.execute(sa.insert(notes).values(text="x" * 1_000_000))

    # SQLite's own page limit stands for the disk: writing past it gives the same SQLITE_FULL.
    pages = await store.read(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await store.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages + 4}"))
    with pytest.raises(Unavailable):
        await store.write(fill)
    assert await texts(store) == ["kept"]


_KILLED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import sqlalchemy as sa
from moim.store import Store

async def main():
    store = Store(Path(sys.argv[1]))
    await store.write(lambda c: c.exec_driver_sql("CREATE TABLE t (n INTEGER)"))
    n = 0
    while True:
        await store.write(lambda c: c.exec_driver_sql(f"INSERT INTO t VALUES ({n})"))
        print(n, flush=True)
        n += 1

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill(tmp_path: Path) -> None:
    path = tmp_path / "k.db"
    source = str(Path(__file__).resolve().parents[2] / "src")
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(path), source], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(next(process.stdout)) for _ in range(50)]
    os.kill(process.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout]
    process.wait()
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        kept = set(connection.scalars(sa.text("SELECT n FROM t")))
    assert set(acknowledged) <= kept
