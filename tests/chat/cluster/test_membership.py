"""Leases in both kinds of database: who lives, who holds what, and who may be declared dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from moim import chat
from moim.chat.cluster import shared_secret, tables
from moim.chat.cluster.membership import Membership, View
from moim.errors import Unavailable
from moim.store import Store, Where, migrate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def store(database: Where) -> AsyncIterator[Store]:
    migrate(database, [Path(chat.__file__).parent / "cluster" / "migrations"])
    store = Store(database)
    yield store
    store.close()


class Node:
    """A membership whose lease is renewed by hand."""

    def __init__(self, store: Store, name: str, clock: Clock) -> None:
        self.heard_at = float("-inf")
        self.losses = 0
        self.views: list[View] = []
        self.member = Membership(
            store, name, seconds=10, heard=lambda _: self.heard_at, changed=self._changed, lost=self._lost, clock=clock
        )

    async def _changed(self, view: View) -> None:
        self.views.append(view)

    async def _lost(self) -> None:
        self.losses += 1

    async def start(self) -> None:
        await self.member.start()
        assert self.member._task is not None
        self.member._task.cancel()


async def expire(store: Store, node: str) -> None:
    """A lease runs out."""
    table = tables.nodes
    await store.write(lambda c: c.execute(sa.update(table).where(table.c.node == node).values(expires_at=1.0)))


async def test_every_life_has_a_higher_epoch(store: Store) -> None:
    clock, epochs = Clock(), []
    for name in ("a", "b", "a", "b"):
        node = Node(store, name, clock)
        await node.start()
        epochs.append(node.member.epoch)
    assert epochs == sorted(set(epochs))


@pytest.mark.parametrize("ends", ["in order", "by another"])
async def test_the_epoch_of_a_life_that_is_over_is_not_given_again(store: Store, ends: str) -> None:
    """Others do not listen any more to the life that had it."""
    clock = Clock()
    a = Node(store, "a", clock)
    await a.start()
    epochs = [a.member.epoch]
    for _ in range(3):
        b = Node(store, "b", clock)
        await b.start()
        assert b.member.epoch > max(epochs)
        epochs.append(b.member.epoch)
        if ends == "in order":
            await b.member.stop()
        else:
            await expire(store, "b")
            clock.now += 100
        await a.member.beat()
        view = a.views[-1]
        assert view.over("b", b.member.epoch)
        assert not view.over("b", b.member.epoch + 1), "one that began since"
        assert not view.over("a", a.member.epoch)
        assert await b.member._store.write(b.member._renew) is None
        with pytest.raises(Unavailable):
            await b.member.acquire("rooms")


async def test_a_lease_has_one_holder(store: Store) -> None:
    clock = Clock()
    a, b = Node(store, "a", clock), Node(store, "b", clock)
    await a.start()
    await b.start()
    assert sorted(await asyncio.gather(a.member.acquire("rooms"), b.member.acquire("rooms"))) == [False, True]
    holder, other = (a, b) if (await a.member.acquire("rooms")) else (b, a)
    await store.write(holder.member.guard("rooms"))
    with pytest.raises(Unavailable, match="does not hold"):
        await store.write(other.member.guard("rooms"))
    await holder.member.release("rooms")
    assert await other.member.acquire("rooms")
    await other.member.stop()
    assert await holder.member.acquire("rooms")


async def test_a_silent_node_is_dead_and_knows_it_when_it_comes_back(store: Store) -> None:
    clock = Clock()
    a, b = Node(store, "a", clock), Node(store, "b", clock)
    await a.start()
    await b.start()
    assert await a.member.acquire("rooms")
    await expire(store, "a")
    guard = a.member.guard("rooms")
    await b.member.beat()
    assert b.views[-1].late == {"a": a.member.epoch}  # this node itself is not there for long enough to judge
    clock.now += 11
    b.heard_at = clock.now - 1
    await b.member.beat()
    assert "a" in b.views[-1].late  # its voice is heard: it lives, and only the database is out of its reach
    clock.now += 11
    await b.member.beat()
    assert (b.views[-1].late, list(b.views[-1].live), b.views[-1].leases) == ({}, ["b"], {})
    assert await b.member.acquire("rooms")
    with pytest.raises(Unavailable):
        await store.write(guard)
    before = a.member.epoch
    await a.member.beat()
    assert a.losses == 1
    assert a.member.epoch > max(before, b.member.epoch)
    assert not await a.member.acquire("rooms")


async def test_after_an_outage_of_the_database_nobody_is_dead_at_once(store: Store) -> None:
    clock = Clock()
    a, b = Node(store, "a", clock), Node(store, "b", clock)
    await a.start()
    await b.start()
    clock.now += 100
    await b.member.beat()

    async def away(_work: object) -> None:
        raise Unavailable("the database is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "write", away)
        await b.member.beat()
    clock.now += 100
    for name in ("a", "b"):
        await expire(store, name)
    await b.member.beat()
    assert list(b.views[-1].late) == ["a"]
    await a.member.beat()
    clock.now += 100
    await b.member.beat()
    assert sorted(b.views[-1].live) == ["a", "b"]


async def test_the_first_secret_is_everybodys(store: Store) -> None:
    found = await asyncio.gather(*(shared_secret(store, "chat", bytes([n]) * 32) for n in range(4)))
    assert len(set(found)) == 1
    assert await shared_secret(store, "other", b"x") == b"x"
