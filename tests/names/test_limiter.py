"""The response rate limit, with a clock of its own."""

from __future__ import annotations

import ipaddress

from moim.names.limiter import Limiter, Verdict


def test_a_burst_passes_then_every_second_answer_is_truncated_then_time_heals() -> None:
    limiter = Limiter(10, 5)
    source = ipaddress.ip_address("192.0.2.1")
    assert [limiter.judge(source, 0.0) for _ in range(5)] == [Verdict.SEND] * 5
    assert [limiter.judge(source, 0.0) for _ in range(4)] == [
        Verdict.TRUNCATE,
        Verdict.DROP,
        Verdict.TRUNCATE,
        Verdict.DROP,
    ]
    assert limiter.judge(source, 0.2) is Verdict.SEND


def test_neighbours_share_a_bucket_and_others_do_not() -> None:
    limiter = Limiter(1, 1)
    assert limiter.judge(ipaddress.ip_address("192.0.2.1"), 0.0) is Verdict.SEND
    assert limiter.judge(ipaddress.ip_address("192.0.2.200"), 0.0) is Verdict.TRUNCATE
    assert limiter.judge(ipaddress.ip_address("192.0.3.1"), 0.0) is Verdict.SEND
    assert limiter.judge(ipaddress.ip_address("2001:db8:0:1::1"), 0.0) is Verdict.SEND
    assert limiter.judge(ipaddress.ip_address("2001:db8:0:1:2::1"), 0.0) is Verdict.TRUNCATE


def test_exempt_networks_have_no_limit() -> None:
    limiter = Limiter(1, 1, ("127.0.0.0/8",))
    assert {limiter.judge(ipaddress.ip_address("127.0.0.9"), 0.0) for _ in range(99)} == {Verdict.SEND}


def test_memory_is_bounded_however_many_sources_come() -> None:
    limiter = Limiter(1, 1)
    for number in range(10_500):
        limiter.judge(ipaddress.IPv4Address(number << 8), 0.0)
    assert len(limiter._buckets) == 10_000
