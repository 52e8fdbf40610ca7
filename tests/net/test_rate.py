"""Token buckets on the caller's clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.net.rate import RateLimit


def test_burst_then_rate() -> None:
    limit = RateLimit(per_s=2, burst=3)
    assert [limit.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limit.take("b", 0.0)
    assert not limit.take("a", 0.25)
    assert limit.take("a", 0.5)
    assert not limit.take("a", 0.5)
    assert [limit.take("a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_says_how_long_to_wait() -> None:
    limit = RateLimit(per_s=0.5, burst=1)
    assert limit.wait("a", 0.0) == 0.0
    assert limit.wait("a", 0.0) == pytest.approx(2.0)
    assert limit.wait("a", 1.5) == pytest.approx(0.5)
    assert limit.wait("a", 2.001) == 0.0


def test_what_costs_more_takes_more() -> None:
    limit = RateLimit(per_s=2, burst=3)
    assert [limit.take("a", 0.0, cost) for cost in (2, 2, 1)] == [True, False, True]
    assert limit.wait("a", 0.0, 2) == pytest.approx(1.0)
    assert limit.take("b", 0.0, 100), "what fits no bucket takes a full one"
    assert not limit.take("b", 1.0, 100)


@given(st.lists(st.floats(0, 5), max_size=200))
def test_never_more_than_burst_and_average(pauses: list[float]) -> None:
    limit, now, passed = RateLimit(per_s=0.2, burst=12), 0.0, 0
    for pause in pauses:
        now += pause
        passed += limit.take("a", now)
    assert passed <= 12 + now / 5 + 1


def test_the_idlest_client_is_forgotten_when_there_are_too_many() -> None:
    limit = RateLimit(per_s=0.001, burst=1, clients=2)
    assert all(limit.take(name, 0.0) for name in "abc")
    assert limit.take("a", 0.0)
    assert not limit.take("c", 0.0)
