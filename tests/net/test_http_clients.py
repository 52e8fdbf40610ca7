"""Token buckets on a clock of their own."""

from __future__ import annotations

from moim.net.http_clients import Buckets


def test_bucket_refills() -> None:
    buckets = Buckets(rate=2, burst=3)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("a", 0.4) is False
    assert buckets.take("a", 0.6) is True
    assert buckets.take("b", 0.6) is True


def test_the_table_stays_bounded() -> None:
    buckets = Buckets(rate=1, burst=1)
    for number in range(30_000):
        buckets.take(str(number), 0.0)
    assert len(buckets._levels) == 20_000
