"""Web sessions: whom a token names, how long, and what ends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.bus import Bus
from moim.model import Address, UserChanged, UserRemoved
from moim.portal import Sessions

ALICE, BOB = Address("alice", "example.test"), Address("bob", "example.test")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(lifetime=60, limit=4, per_user=2, clock=clock)


def test_key_and_token_name_the_user(sessions: Sessions) -> None:
    opened = sessions.open(ALICE)
    assert sessions.user_for(opened.key) == sessions.user_for(opened.token) == ALICE
    assert opened.lifetime == 60
    assert opened.key != opened.token
    assert len(opened.key) >= 43  # 256 bits
    assert opened.key not in repr(opened)
    assert sessions.user_for("") is None
    assert sessions.user_for("x" * 10_000) is None


@given(st.text())
def test_no_other_text_is_a_token(text: str) -> None:
    sessions = Sessions(lifetime=60, limit=4, per_user=2)
    sessions.open(ALICE)
    assert sessions.user_for(text) is None
    assert sessions.renew(text) is None


def test_tokens_are_not_kept(sessions: Sessions) -> None:
    opened = sessions.open(ALICE)
    kept = repr(vars(sessions))
    assert opened.key not in kept
    assert opened.token not in kept


def test_only_the_cookie_gives_more_tokens(sessions: Sessions) -> None:
    opened = sessions.open(ALICE)
    renewed = sessions.renew(opened.key)
    assert renewed is not None
    address, token = renewed
    assert address == ALICE
    assert sessions.user_for(token) == ALICE
    assert sessions.renew(token) is None


def test_the_oldest_tokens_of_a_session_give_way(sessions: Sessions) -> None:
    opened = sessions.open(ALICE)
    for _ in range(100):
        assert sessions.renew(opened.key) is not None
    assert sessions.user_for(opened.token) is None
    assert sessions.user_for(opened.key) == ALICE


def test_ends_after_its_time(sessions: Sessions, clock: Clock) -> None:
    opened = sessions.open(ALICE)
    clock.now += 59.9
    assert sessions.user_for(opened.token) == ALICE
    clock.now += 0.2
    assert sessions.user_for(opened.token) is None
    assert sessions.renew(opened.key) is None
    assert len(sessions) == 0


def test_ended_sessions_do_not_pile_up(sessions: Sessions, clock: Clock) -> None:
    sessions.open(ALICE)
    clock.now += 61
    sessions.open(BOB)
    assert len(sessions) == 1


def test_closing_ends_key_and_tokens(sessions: Sessions) -> None:
    first, second = sessions.open(ALICE), sessions.open(ALICE)
    sessions.close(first.token)
    sessions.close("unknown")
    assert sessions.user_for(first.key) is sessions.user_for(first.token) is None
    assert sessions.user_for(second.key) == ALICE


def test_counts_are_bounded_and_the_oldest_gives_way(sessions: Sessions) -> None:
    of_alice = [sessions.open(ALICE) for _ in range(3)]
    assert [sessions.user_for(o.key) for o in of_alice] == [None, ALICE, ALICE]
    people = [Address(f"user{n}", "example.test") for n in range(4)]
    opened = [sessions.open(one) for one in people]
    assert len(sessions) == 4
    assert [sessions.user_for(o.key) for o in opened] == people
    assert sessions.user_for(of_alice[2].key) is None


async def test_follows_the_directory(sessions: Sessions) -> None:
    bus = Bus()
    cancel = sessions.follow(bus)
    alice, bob = sessions.open(ALICE), sessions.open(BOB)
    await bus.publish(UserChanged(ALICE))
    assert sessions.user_for(alice.key) == ALICE
    await bus.publish(UserChanged(ALICE, password_changed=True))
    assert sessions.user_for(alice.token) is None
    await bus.publish(UserRemoved(BOB))
    assert sessions.user_for(bob.key) is None
    cancel()
    again = sessions.open(BOB)
    await bus.publish(UserRemoved(BOB))
    assert sessions.user_for(again.key) == BOB
