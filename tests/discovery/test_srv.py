"""RFC 2782: order by priority, weighted choice within one."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from moim.discovery.actions import Srv
from moim.discovery.srv import order

records = st.lists(
    st.builds(Srv, st.integers(0, 3), st.integers(0, 65535), st.integers(1, 65535), st.just("h")), max_size=8
)


@given(records, st.floats(0, 1, exclude_max=True))
def test_every_record_comes_once_and_priorities_rise(given_records: list[Srv], fraction: float) -> None:
    ordered = order(given_records, lambda: fraction)
    assert Counter(ordered) == Counter(given_records)
    assert [record.priority for record in ordered] == sorted(record.priority for record in given_records)


def test_the_documented_example() -> None:
    three = [Srv(6, 30, 8443, "cucm3"), Srv(2, 20, 8443, "cucm2"), Srv(1, 5, 8443, "cucm1")]
    assert [record.target for record in order(three, random.random)] == ["cucm1", "cucm2", "cucm3"]


def test_the_choice_within_a_priority_follows_the_weights() -> None:
    drawn = random.Random(7)
    group = [Srv(0, 60, 1, "a"), Srv(0, 30, 1, "b"), Srv(0, 10, 1, "c"), Srv(0, 0, 1, "z")]
    first = Counter(order(group, drawn.random)[0].target for _ in range(10_000))
    assert 5700 < first["a"] < 6200
    assert 2700 < first["b"] < 3300
    assert 800 < first["c"] < 1200
    assert 20 < first["z"] < 250


def test_records_without_weight_are_all_tried() -> None:
    group = [Srv(0, 0, 1, name) for name in "abc"]
    assert sorted(record.target for record in order(group, lambda: 0.99)) == ["a", "b", "c"]
