"""The rate of one client."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.portal.rate import RateLimit


def test_lets_a_burst_through_and_then_the_average() -> None:
    rate = RateLimit(30)
    assert [rate.wait("a", 0.0) for _ in range(30)] == [0.0] * 30
    assert rate.wait("a", 0.0) == pytest.approx(2.0)
    assert rate.wait("b", 0.0) == 0.0
    assert rate.wait("a", 2.001) == 0.0
    assert rate.wait("a", 2.001) > 0


@given(st.lists(st.floats(0, 5), max_size=200))
def test_never_more_than_burst_and_average(pauses: list[float]) -> None:
    rate, now, passed = RateLimit(12), 0.0, 0
    for pause in pauses:
        now += pause
        passed += rate.wait("a", now) == 0.0
    assert passed <= 12 + now / 5 + 1


def test_forgets_the_idlest_client_when_there_are_too_many() -> None:
    rate = RateLimit(1)
    for number in range(25_000):
        rate.wait(f"client {number}", 0.0)
    assert rate.wait("client 0", 0.0) == 0.0
    assert rate.wait("client 24999", 0.0) > 0
