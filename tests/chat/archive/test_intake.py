"""Which messages share a commit, and who need not wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from moim import chat
from moim.chat.archive import intake
from moim.chat.archive.intake import Entry, Intake
from moim.chat.archive.rows import Record
from moim.proto.xmpp import Element
from moim.store import Store, migrate


class _Counting(Store):
    """A store that counts its transactions."""

    commits = 0

    async def write(self, work: Any) -> Any:
        self.commits += 1
        return await super().write(work)


class _Back(list[int]):
    """The tickets that came back, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.some = asyncio.Event()

    def take(self, ticket: int, kept: bool) -> None:
        assert kept
        self.append(ticket)
        self.some.set()


def _record(number: int) -> Record:
    body = Element("body", "jabber:client", {}, ("hello",))
    message = Element("message", "jabber:client", {"from": "a@x.test/r", "to": "b@x.test", "type": "chat"}, (body,))
    return number, "a@x.test/r", "b@x.test", ("a@x.test", "b@x.test"), message


@pytest.fixture
async def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Intake, _Counting, _Back]]:
    """An intake whose second commit waits for somebody, its store, and the tickets that came back."""
    monkeypatch.setattr(intake, "_GATHER", 3600.0)
    store = _Counting(tmp_path / "archive.db")
    migrate(store.where, [Path(chat.__path__[0]) / "archive" / "migrations"])
    back = _Back()
    subject = Intake(
        store,
        committed=back.take,
        refuse=lambda senders: None,
        state=lambda working: None,
        kept=lambda records: None,
        patience=1.0,
    )
    subject.start()
    yield subject, store, back
    await subject.stop()
    store.close()


async def test_the_first_after_a_quiet_moment_is_committed_at_once(
    counted: tuple[Intake, _Counting, _Back],
) -> None:
    subject, store, back = counted
    subject.records(1, [_record(1)])
    await asyncio.wait_for(back.some.wait(), 20)
    assert store.commits == 1


async def test_what_comes_right_after_shares_a_commit_until_somebody_asks(
    counted: tuple[Intake, _Counting, _Back],
) -> None:
    subject, store, back = counted
    subject.records(1, [_record(1)])
    await asyncio.wait_for(back.some.wait(), 20)
    for ticket in range(2, 8):
        subject.records(ticket, [_record(ticket)])
        await asyncio.sleep(0)
    assert back == [1]
    await subject.settled()
    assert (back, store.commits) == ([*range(1, 8)], 2)


async def test_a_message_that_goes_on_after_its_commit_takes_the_others_along(
    counted: tuple[Intake, _Counting, _Back],
) -> None:
    subject, store, back = counted
    subject.records(1, [_record(1)])
    await asyncio.wait_for(back.some.wait(), 20)
    subject.records(2, [_record(2)])
    went = asyncio.Event()
    subject.add(Entry(_record(3), went.set, lambda error: None))
    await asyncio.wait_for(went.wait(), 20)
    assert (back, store.commits) == ([1, 2], 2)
    subject.records(4, [_record(4)])
    await asyncio.sleep(0)
    assert store.commits == 2, "and then it is quiet again"


async def test_what_waits_is_committed_at_the_end(counted: tuple[Intake, _Counting, _Back]) -> None:
    subject, _, back = counted
    subject.records(1, [_record(1)])
    await asyncio.wait_for(back.some.wait(), 20)
    subject.records(2, [_record(2)])
    await asyncio.sleep(0)
    await subject.stop()
    assert back == [1, 2]
