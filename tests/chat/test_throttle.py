"""Back-off after wrong passwords, against a clock of our own."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from moim.chat.throttle import AuthThrottle


def throttle(per_address: int = 5, per_account: int = 3, longest: float = 60) -> AuthThrottle:
    return AuthThrottle(per_address=per_address, per_account=per_account, longest_wait=longest)


def test_an_address_waits_longer_each_time() -> None:
    guard = throttle(per_account=1000)
    waits = []
    now = 0.0
    for number in range(12):
        guard.attempt("192.0.2.1", f"user{number}", now)
        wait = guard.wait("192.0.2.1", "alice", now)
        waits.append(wait)
        now += wait
    assert waits[:4] == [0.0] * 4
    assert waits[4] > 0
    assert all(later >= earlier for earlier, later in itertools.pairwise(waits))
    assert max(waits) <= 60
    assert guard.wait("192.0.2.2", "alice", now) == 0.0


def test_it_is_forgotten_again() -> None:
    guard = throttle()
    for _ in range(20):
        guard.attempt("192.0.2.1", "alice", 0.0)
    assert guard.wait("192.0.2.1", "alice", 0.0) == 60
    assert guard.wait("192.0.2.1", "alice", 3600.0) == 0.0


def test_an_account_under_attack_still_lets_its_owner_in() -> None:
    guard = throttle(per_address=1000)
    guard.attempt("198.51.100.7", "alice", 0.0)
    guard.succeeded("198.51.100.7", "alice", 0.0)
    for number in range(10):
        guard.attempt(f"192.0.2.{number}", "alice", 1.0)
    assert guard.wait("192.0.2.99", "alice", 1.0) > 0
    assert guard.wait("198.51.100.7", "alice", 1.0) == 0.0
    assert guard.wait("192.0.2.99", "bob", 1.0) == 0.0


def test_a_success_takes_its_attempt_back() -> None:
    guard = throttle()
    for moment in range(100):
        guard.attempt("192.0.2.1", "alice", float(moment))
        guard.succeeded("192.0.2.1", "alice", float(moment))
        assert guard.wait("192.0.2.1", "bob", float(moment)) == 0.0


def test_a_success_does_not_shorten_a_wait() -> None:
    guard = throttle(per_account=1000)
    for _ in range(9):
        guard.attempt("192.0.2.1", "alice", 0.0)
    before = guard.wait("192.0.2.1", "alice", 0.0)
    assert before > 0
    guard.attempt("192.0.2.1", "bob", 1.0)
    guard.succeeded("192.0.2.1", "bob", 1.0)
    assert guard.wait("192.0.2.1", "alice", 1.0) >= before - 1.0


def test_one_subscriber_counts_once() -> None:
    guard = throttle(per_account=1000)
    for last in range(9):
        guard.attempt(f"2001:db8:1:2::{last}", "alice", 0.0)
    assert guard.wait("2001:db8:1:2:ffff::9", "bob", 0.0) > 0
    assert guard.wait("2001:db8:1:3::1", "bob", 0.0) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.floats(0, 5), st.booleans()), max_size=60))
def test_waits_stay_within_bounds(steps: list[tuple[int, int, float, bool]]) -> None:
    guard = throttle()
    now = 0.0
    for address, account, pause, right in steps:
        now += pause
        wait = guard.wait(f"192.0.2.{address}", f"u{account}", now)
        assert 0.0 <= wait <= 60.0
        if wait == 0.0:
            guard.attempt(f"192.0.2.{address}", f"u{account}", now)
            if right:
                guard.succeeded(f"192.0.2.{address}", f"u{account}", now)
