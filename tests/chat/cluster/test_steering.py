"""Clients that are sent elsewhere: from a node that stops, and from one that has too many sign-ins at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moim.chat.cluster import Steering
from moim.proto.xmpp import ns

Pair = tuple[Any, Any]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def session(listener: str = "xmpp-client") -> Any:
    return SimpleNamespace(connection=SimpleNamespace(name=listener), gone=False)


def steering(clock: Clock, *others: str, per_second: float = 2.0, burst: int = 3) -> Steering:
    names = [(host.partition(".")[0], host) for host in others]
    return Steering(lambda: names, lambda port: port + 10_000, per_second=per_second, burst=burst, clock=clock)


def test_sign_ins_are_let_in_as_fast_as_the_node_takes_them() -> None:
    clock = Clock()
    door = steering(clock)
    assert [door.admit(session()) for _ in range(3)] == [None] * 3
    refusal = door.admit(session())
    assert refusal is not None
    assert refusal.find("resource-constraint", ns.STREAM_ERRORS) is not None
    clock.now = 1.0
    assert [door.admit(session()) is None for _ in range(3)] == [True, True, False]
    clock.now = 1000.0
    assert [door.admit(session()) is None for _ in range(4)] == [True, True, True, False]
    assert door.refused == 3


def test_those_who_are_put_off_are_sent_to_another_node_where_there_is_one() -> None:
    door = steering(Clock(), "inside2.x.test", "inside3.x.test", burst=1)
    door.admit(session())
    told = []
    for listener in ("xmpp-client", "xmpp-client-tls", "edge-xmpp"):
        refusal = door.admit(session(listener))
        assert refusal is not None
        place = refusal.find("see-other-host", ns.STREAM_ERRORS)
        told.append(place.text if place is not None else None)
    assert told == ["inside3.x.test:15222", "inside2.x.test:15223", None]


def test_one_node_lets_everybody_in() -> None:
    door = steering(Clock(), per_second=0, burst=1)
    assert [door.admit(session()) for _ in range(100)] == [None] * 100


async def test_a_node_that_stops_sends_its_clients_to_the_other(pair: Pair) -> None:
    _, there = pair
    clients = [await there.online("bob", f"b{number}") for number in range(3)]
    await there.service.stop()
    for client in clients:
        failure = await client.ended()
        assert failure is not None
        assert failure.condition == "see-other-host"


async def test_a_wave_of_sign_ins_is_put_off(new_pair: Any) -> None:
    here, _ = await new_pair(sign_ins_per_second=0.001, sign_ins_burst=2)
    for number in range(2):
        await here.online("alice", f"a{number}")
    late = here.client("alice", "late")
    with pytest.raises(AssertionError, match="see-other-host"):
        await late.connect()
