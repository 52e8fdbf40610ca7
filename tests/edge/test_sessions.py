"""Edge sessions: lifetime and bound."""

from __future__ import annotations

from moim.edge.sessions import Sessions
from moim.model import Address

ALICE = Address("alice", "moim.test")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_with_its_lifetime() -> None:
    clock = Clock()
    sessions = Sessions(lifetime_s=60, most=10, clock=clock)
    value, session = sessions.open(ALICE, "moim.test")
    assert sessions.find(value) == session
    assert sessions.find(value + "x") is None
    assert sessions.find("") is None
    clock.now += 60
    assert sessions.find(value) is None


def test_ended_sessions_make_room() -> None:
    clock = Clock()
    sessions = Sessions(lifetime_s=60, most=10, clock=clock)
    for _ in range(5):
        sessions.open(ALICE, "moim.test")
    clock.now += 61
    sessions.open(ALICE, "moim.test")
    assert len(sessions) == 1


def test_the_oldest_goes_when_there_are_too_many() -> None:
    sessions = Sessions(lifetime_s=60, most=3, clock=Clock())
    values = [sessions.open(ALICE, "moim.test")[0] for _ in range(5)]
    assert [sessions.find(value) is not None for value in values] == [False, False, True, True, True]


def test_the_sessions_of_one_user_can_be_closed() -> None:
    sessions = Sessions(lifetime_s=60, most=10, clock=Clock())
    value, _ = sessions.open(ALICE, "moim.test")
    other, _ = sessions.open(Address("bob", "moim.test"), "moim.test")
    assert sessions.close_for(ALICE) == 1
    assert sessions.find(value) is None
    assert sessions.find(other) is not None
