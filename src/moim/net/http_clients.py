"""Who asks over HTTP without signing in, and how often they may."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from starlette.requests import HTTPConnection

_ENTRIES = 20_000


class Buckets:
    """A token bucket per key: ``rate`` per second, ``burst`` at once. ``now`` is seconds of any monotonic scale.

    The table is bounded: the key that was quiet the longest is forgotten first.
    """

    def __init__(self, *, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> bool:
        """Whether the key may do one thing more now."""
        level, at = self._levels.get(key, (self._burst, now))
        level = min(level + (now - at) * self._rate, self._burst)
        allowed = level >= 1
        self._levels[key] = (level - 1 if allowed else level, now)
        self._levels.move_to_end(key)
        while len(self._levels) > _ENTRIES:
            self._levels.popitem(last=False)
        return allowed


def source_of(request: HTTPConnection) -> str:
    """The client's IP address: what the edge's connector, on this machine, says it forwards for, else the peer."""
    peer = request.client.host if request.client else ""
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    try:
        if forwarded and _local(peer, request):
            return str(ipaddress.ip_address(forwarded))
    except ValueError:
        return peer
    return peer


def _local(peer: str, request: HTTPConnection) -> bool:
    server = request.scope.get("server") or ("", 0)
    return peer == server[0] or ipaddress.ip_address(peer).is_loopback
