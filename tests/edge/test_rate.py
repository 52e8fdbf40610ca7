"""Token buckets."""

from __future__ import annotations

from moim.edge.rate import RateLimit


def test_burst_then_rate() -> None:
    limit = RateLimit(per_s=2, burst=3)
    assert [limit.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limit.take("b", 0.0)
    assert not limit.has("a", 0.4)
    assert limit.take("a", 0.5)
    assert not limit.take("a", 0.5)
    assert [limit.take("a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_the_table_is_bounded() -> None:
    limit = RateLimit(per_s=0.001, burst=1, clients=2)
    assert all(limit.take(name, 0.0) for name in "abc")
    assert limit.take("a", 0.0)  # forgotten, so its bucket is full again
    assert not limit.take("c", 0.0)
