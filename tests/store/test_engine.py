"""The store: group commit, isolation of failing writes, durability across a killed process, a full disk."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from moim.errors import Unavailable
from moim.store import Store, Where, insert
from postgres import PrivatePostgres

meta = sa.MetaData()
notes = sa.Table("notes", meta, sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text, unique=True))


@pytest.fixture
async def store(database: Where) -> AsyncIterator[Store]:
    store = Store(database)
    await store.write(lambda c: meta.create_all(c))
    yield store
    store.close()


@pytest.fixture
async def file_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "a.db")
    await store.write(lambda c: meta.create_all(c))
    yield store
    store.close()


def add(text: str) -> Callable[[sa.Connection], Any]:
    return lambda c: c.execute(sa.insert(notes).values(text=text).returning(notes.c.id)).scalar_one()


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


async def test_rows_that_are_there_are_updated_or_left(store: Store) -> None:
    row = insert(notes).values(id=1, text="a")
    await store.write(lambda c: c.execute(row))
    await store.write(lambda c: c.execute(row.on_conflict_do_nothing()))
    await store.write(
        lambda c: c.execute(row.on_conflict_do_update(index_elements=["id"], set_={"text": notes.c.text + "b"}))
    )
    await store.write(
        lambda c: c.execute(
            insert(notes).values(id=1, text="c").on_conflict_do_update(["id"], set_={"text": row.excluded.text})
        )
    )
    assert await texts(store) == ["c"]


async def test_a_reader_does_not_write(store: Store) -> None:
    if store.shared:
        with pytest.raises(sa.exc.DBAPIError):
            await store.read(add("a"))
    assert await texts(store) == []


async def test_two_nodes_on_one_database_take_turns(postgres: PrivatePostgres) -> None:
    database = postgres.database()
    store, other = Store(database), Store(database)
    await store.write(lambda c: meta.create_all(c))

    def count_and_add(c: sa.Connection) -> None:
        n = c.execute(sa.select(sa.func.count()).select_from(notes)).scalar_one()
        c.execute(sa.insert(notes).values(text=str(n)))

    await asyncio.gather(*(s.write(count_and_add) for _ in range(50) for s in (store, other)))
    assert await texts(store) == [str(n) for n in range(100)]
    store.close()
    other.close()


async def test_a_database_that_goes_and_comes_back() -> None:
    server = PrivatePostgres()
    server.start()
    store = Store(server.database())
    try:
        await store.write(lambda c: meta.create_all(c))
        await store.write(add("before"))
        server.stop()
        with pytest.raises(Unavailable, match="the database did not take it") as caught:
            await store.write(add("meanwhile"))
        assert "PostgreSQL" in caught.value.hint
        with pytest.raises(Unavailable):
            await texts(store)
        server.start()
        while True:  # the store does not ask a database again that was away a moment ago
            try:
                await store.write(add("after"))
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        assert await texts(store) == ["before", "after"]
    finally:
        store.close()
        server.remove()


async def test_connections_that_break_cost_no_write(store: Store, postgres: PrivatePostgres) -> None:
    if not store.shared:
        return
    await asyncio.gather(*(texts(store) for _ in range(5)))
    engine = sa.create_engine(postgres.url("postgres"))
    assert isinstance(store.where, sa.URL)
    ended = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        connection.execute(ended, {"name": store.where.database})
    engine.dispose()
    await store.write(add("a"))
    assert await texts(store) == ["a"]


async def test_files_are_private(file_store: Store) -> None:
    assert file_store.path.stat().st_mode & 0o077 == 0


async def test_a_closed_store_refuses(database: Where) -> None:
    store = Store(database)
    store.close()
    with pytest.raises(Unavailable):
        await store.write(lambda c: None)


async def test_the_writer_lets_others_go_first(file_store: Store) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await file_store.write(lambda _: niceness()) > niceness() == await file_store.read(lambda _: niceness())


async def test_a_full_disk_is_an_error_and_not_a_loss(file_store: Store) -> None:
    store = file_store
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
