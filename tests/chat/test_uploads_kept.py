"""Uploads and push registrations on both kinds of database."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from moim import chat
from moim.chat.push.registrations import Registration, Registrations
from moim.chat.uploads.files import DAY, Files, NoRoom, Quotas
from moim.errors import Conflict, LimitExceeded, ProtocolError, Unavailable
from moim.store import Store, Where, migrate

ALICE, BOB = "alice@chat.test", "bob@chat.test"
QUOTAS = Quotas(file=100, user=100, day=150, total=180, free=0, files=4, lifetime=10 * DAY, slot=60)


@pytest.fixture
async def store(database: Where) -> AsyncIterator[Store]:
    rooms = Path(chat.__file__).parent
    migrate(database, [rooms / "uploads/migrations", rooms / "push/migrations"])
    opened = Store(database)
    yield opened
    opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_room_is_reserved_filled_and_given_back(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    files = Files(store, tmp_path / "uploads", lambda _: QUOTAS, clock=clock)
    await files.start()
    try:
        upload = await files.reserve(ALICE, "한.txt", 10, "text/plain")
        with pytest.raises(ProtocolError):
            await files.receive(upload, pieces(b"short"), "text/plain")
        await files.receive(upload, pieces(b"01234", b"56789"), "text/plain")
        stored = await files.find(upload.id)
        assert stored is not None
        assert (stored.stored, stored.name, stored.size) == (True, "한.txt", 10)
        with pytest.raises(Conflict):
            await files.receive(stored, pieces(b"0123456789"), "")
        with pytest.raises(Conflict):  # the row says so, whatever the caller remembers
            await files.receive(upload, pieces(b"evil......"), "")
        assert files.path(upload.id).read_bytes() == b"0123456789"
        await files.reserve(ALICE, "b", 90, "")
        with pytest.raises(NoRoom):
            await files.reserve(ALICE, "c", 1, "")
        clock.now += 61  # the slot is over
        with pytest.raises(NoRoom) as day:
            await files.reserve(ALICE, "c", 51, "")
        assert day.value.retry_at == 1_000_000.0 + DAY
        await files.reserve(BOB, "b", 100, "")
        with pytest.raises(NoRoom) as full:
            await files.reserve("carol@chat.test", "b", 71, "")
        assert full.value.whose == "site"
        assert await files.sweep() == 1
        await files.forget(BOB)
        clock.now += DAY
        for _ in range(3):
            await files.reserve(ALICE, "n", 1, "")
        with pytest.raises(NoRoom):  # as many files as there may be
            await files.reserve(ALICE, "n", 1, "")
        clock.now += 10 * DAY
        assert await files.sweep() == 4
        assert not files.path(upload.id).exists()
    finally:
        await files.stop()


async def test_registrations_are_counted_and_heard_of_by_other_nodes(store: Store) -> None:
    clock = Clock()
    here, there = (Registrations(store, most=2, clock=clock) for _ in range(2))
    await here.start()
    await there.start()
    try:
        first, second = (Registration(ALICE, "push.example", node, "") for node in ("a", "b"))
        for registration in (first, second, first):
            await here.add(registration)
        with pytest.raises(LimitExceeded):
            await here.add(Registration(ALICE, "other.example", "c", ""))
        assert ALICE not in there
        await there.refresh()
        assert ALICE in there
        assert list(await there.of(ALICE)) == [first, second]
        assert not await there.failed(first, 3)
        assert (await here.of(ALICE))[0].failures == 1
        await here.worked(first)
        assert (await here.of(ALICE))[0].failures == 0
        assert await here.failed(first, 1)
        await here.remove(ALICE, "push.example", "nothing")
        assert list(await here.of(ALICE)) == [second]
        await here.remove(ALICE)
        assert list(await there.of(ALICE)) == []
        assert ALICE not in there
    finally:
        await here.stop()
        await there.stop()


async def test_a_disk_that_takes_a_part_has_taken_nothing(tmp_path: Path) -> None:
    """As on a full disk, the kernel takes what fits and says so by the count alone."""
    place = tmp_path / "moim.db"
    migrate(place, [Path(chat.__file__).parent / "uploads/migrations"])
    opened = Store(place)
    many = replace(QUOTAS, file=10 << 20, user=10 << 20, day=10 << 20, total=10 << 20)
    files = Files(opened, tmp_path / "uploads", lambda _: many)
    await files.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        upload = await files.reserve(ALICE, "film.mp4", 2 << 20, "video/mp4")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
        try:
            with pytest.raises(Unavailable):
                await files.receive(upload, pieces(*[bytes(1 << 18)] * 8), "video/mp4")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()] == []
        await files.receive(upload, pieces(*[bytes(1 << 18)] * 8), "video/mp4")
        assert files.path(upload.id).stat().st_size == 2 << 20
    finally:
        await files.stop()
        opened.close()
