"""The link between two nodes: once and in order over a bus that loses, repeats and reorders; lives that begin anew."""

from __future__ import annotations

import json
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moim.chat.cluster import link
from moim.chat.cluster.link import MAX_BATCH, Began, Link, Received, read


class Wire:
    """Two links and what is on its way between them, in both directions."""

    def __init__(self) -> None:
        self.now = 0.0
        self.one, self.two = Link("one", "two", 1), Link("two", "one", 2)
        self.got: dict[str, list[object]] = {"one": [], "two": []}
        self.began: dict[str, list[Began]] = {"one": [], "two": []}
        self.way: dict[str, deque[bytes]] = {"one": deque(), "two": deque()}
        self.held: list[Received] | None = None
        """What came to either side and is not dealt with; None while everything is at once."""

    def collect(self) -> None:
        for side, to in ((self.one, "two"), (self.two, "one")):
            while side.output:
                self.way[to].append(side.output.popleft())

    def deliver(self, to: str, place: int = 0) -> None:
        """One of the messages on their way arrives."""
        body = self.way[to][place]
        del self.way[to][place]
        side = self.one if to == "one" else self.two
        for event in side.receive(read(body), self.now):
            if isinstance(event, Received):
                self.got[to].extend(item[1] for item in event.items)
                if self.held is not None:
                    self.held.append(event)
                else:
                    side.done(event)
            else:
                self.began[to].append(event)
        side.flush(self.now)
        self.collect()

    def settle(self) -> None:
        """Everything arrives, and what was lost is repeated."""
        for _ in range(200):
            self.now += 1.1
            for side in (self.one, self.two):
                side.flush(self.now)
                side.tick(self.now)
            self.collect()
            while self.way["one"] or self.way["two"]:
                for to in ("one", "two"):
                    if self.way[to]:
                        self.deliver(to)
            if self.one.idle and self.two.idle and self.one.begun and self.two.begun:
                return
        raise AssertionError("the links do not come to rest")


@settings(max_examples=50)
@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_everything_arrives_once_and_in_order(chance: random.Random, count: int) -> None:
    wire = Wire()
    wire.settle()
    for number in range(count):
        for side in (wire.one, wire.two):
            assert side.send(["x", number])
            if chance.random() < 0.5:
                side.flush(wire.now)
        wire.collect()
        for to in ("one", "two"):
            way = wire.way[to]
            if way and (fate := chance.random()) < 0.7:
                place = chance.randrange(len(way))
                if fate < 0.2:
                    del way[place]  # lost
                elif fate < 0.3:
                    way.append(way[place])  # twice
                else:
                    wire.deliver(to, place)
    wire.settle()
    assert wire.got == {"one": list(range(count)), "two": list(range(count))}
    assert [len(events) for events in wire.began.values()] == [1, 1]


def test_a_new_life_gives_back_what_was_not_confirmed() -> None:
    wire = Wire()
    wire.settle()
    wire.one.send(["x", "lost"])
    wire.one.flush(wire.now)
    wire.collect()
    wire.way["two"].clear()
    wire.one.send(["x", "waiting"])
    wire.two = Link("two", "one", 3)
    wire.got["two"].clear()
    wire.settle()
    assert wire.began["one"][-1].undelivered == (["x", "lost"], ["x", "waiting"])
    wire.one.send(["x", "new"])
    wire.settle()
    assert wire.got["two"] == ["new"]


def test_what_arrived_is_kept_until_it_is_dealt_with() -> None:
    wire = Wire()
    wire.settle()
    wire.held = []
    for number in range(4):
        wire.one.send(["x", number])
        wire.one.flush(wire.now)
        wire.collect()
        wire.deliver("two")
    wire.now += 0.5
    wire.two.tick(wire.now)
    wire.collect()
    wire.deliver("one")
    wire.now += 5
    wire.one.tick(wire.now)
    assert all(b'"seq"' not in body for body in wire.one.output), "what arrived is not said again"
    first, second, third, _ = wire.held
    for received in (third, first):
        wire.two.done(received)
    wire.two.flush(wire.now)
    wire.collect()
    wire.deliver("one")
    assert wire.one.bury() == (["x", 1], ["x", 3])
    wire.two.done(second)


def test_what_nobody_ever_deals_with_does_not_stop_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_MAX_OVERTAKING", 10)
    monkeypatch.setattr(link, "_MAX_BESIDES", 0)
    wire = Wire()
    wire.settle()
    wire.held = []
    for number in range(12):
        wire.one.send(["x", number])
        wire.one.flush(wire.now)
        wire.collect()
        wire.deliver("two")
    others = wire.held[1:]
    for received in others:
        wire.two.done(received)
    wire.settle()


def test_what_a_former_life_said_confirms_nothing_of_a_later_one() -> None:
    wire = Wire()
    wire.settle()
    wire.held = []
    wire.one.send(["x", "old"])
    wire.one.flush(wire.now)
    wire.collect()
    wire.deliver("two")
    (old,) = wire.held
    wire.one = Link("one", "two", 3)
    wire.one.tick(wire.now)
    wire.collect()
    wire.deliver("two")
    wire.deliver("one")
    wire.one.send(["x", "new"])
    wire.one.flush(wire.now)
    wire.collect()
    while wire.way["two"]:
        wire.deliver("two")
    wire.two.done(old)
    wire.two.flush(wire.now)
    wire.two.tick(wire.now)
    wire.collect()
    while wire.way["one"]:
        wire.deliver("one")
    assert wire.got["two"][-1] == "new"
    assert not wire.one.idle


def test_a_node_that_begins_anew_speaks_to_the_other_at_once() -> None:
    wire = Wire()
    wire.settle()
    wire.one.send(["x", "lost"])
    wire.one, undelivered = wire.one.anew(3)
    assert undelivered == (["x", "lost"],)
    assert wire.one.send(["x", "new"])
    wire.settle()
    assert wire.got["two"] == ["new"]
    assert len(wire.began["two"]) == 2
    assert len(wire.began["one"]) == 1, "the other one lives as before"


def test_a_buried_life_is_not_heard_any_more() -> None:
    wire = Wire()
    wire.settle()
    wire.one.send(["x", "unconfirmed"])
    assert wire.one.bury() == (["x", "unconfirmed"],)
    wire.two.send(["x", "from the grave"])
    wire.two.flush(wire.now)
    wire.collect()
    wire.deliver("one")
    assert wire.got["one"] == []
    assert not wire.one.begun
    assert not wire.one.send(["x", "nobody there"])
    wire.two = Link("two", "one", 4)
    wire.settle()
    wire.two.send(["x", "alive"])
    wire.settle()
    assert wire.got["one"] == ["alive"]


def test_large_items_are_split_into_messages_that_the_bus_takes() -> None:
    wire = Wire()
    wire.settle()
    for _ in range(10):
        assert wire.one.send(["x", "y" * 150_000])
    wire.one.flush(wire.now)
    assert len(wire.one.output) >= 4
    assert all(len(body) < MAX_BATCH + 1000 for body in wire.one.output)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_MAX_WAITING_BYTES", 1_000_000)
    wire = Wire()
    wire.settle()
    sent = 0
    while wire.one.send(["x", "y" * 100_000]):
        sent += 1
    assert sent == 10
    wire.settle()
    assert wire.one.send(["x", "room again"])


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[1]", b"{}", b'{"v":9,"from":"two"}', b'{"v":1,"from":3}', b"x" * 3_000_000, b'{"v":1'],
)
def test_what_no_node_says_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        read(body)


@pytest.mark.parametrize(
    "change",
    [
        *({"epoch": "1"}, {"epoch": -1}, {"to": None}, {"got": True}, {"done": None}),
        *({"besides": 1}, {"besides": [None]}, {"besides": [1] * 5000}),
        *({"seq": "1"}, {"seq": 1}, {"seq": 1, "items": [1]}),
    ],
)
def test_messages_with_wrong_parts_are_refused(change: dict[str, object]) -> None:
    document = {"v": 1, "from": "two", "epoch": 2, "to": 1, "got": 0} | change
    with pytest.raises(ValueError):
        Link("one", "two", 1).receive(read(json.dumps(document).encode()), 0.0)
