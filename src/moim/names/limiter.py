"""Limits UDP answers per source network, so that forged sources cannot turn this server against them.

A token bucket per /24 (/56 for IPv6). When it is empty every second answer is cut to a truncated header, which is no
longer than the query and which real clients follow over TCP; the others are dropped. Memory is bounded.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from enum import Enum

from moim.names.answer import Address

_SOURCES = 10_000


class Verdict(Enum):
    """What happens to one answer."""

    SEND = "send"
    TRUNCATE = "truncate"
    DROP = "drop"


class Limiter:
    """``rate`` answers a second and ``burst`` at once for each source network; ``exempt`` networks have no limit."""

    def __init__(self, rate: int, burst: int, exempt: tuple[str, ...] = ()) -> None:
        self._rate = rate
        self._burst = burst
        self._exempt = tuple(ipaddress.ip_network(text) for text in exempt)
        self._buckets: OrderedDict[tuple[int, int], list[float]] = OrderedDict()

    def judge(self, source: Address, now: float) -> Verdict:
        """Takes one token of the source's network at ``now`` (seconds, monotonic)."""
        if any(source in network for network in self._exempt):
            return Verdict.SEND
        key = (source.version, int(source) >> (8 if source.version == 4 else 72))
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _SOURCES:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = [float(self._burst), now, 0.0]
        else:
            self._buckets.move_to_end(key)
        tokens, last, refused = bucket
        tokens = min(float(self._burst), tokens + max(0.0, now - last) * self._rate)
        if tokens >= 1.0:
            bucket[:] = tokens - 1.0, now, refused
            return Verdict.SEND
        bucket[:] = tokens, now, refused + 1.0
        return Verdict.TRUNCATE if int(refused) % 2 == 0 else Verdict.DROP
