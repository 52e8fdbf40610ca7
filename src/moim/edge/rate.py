"""Token buckets per client in a bounded table: how many requests, or wrong passwords, one client may send."""

from __future__ import annotations

from collections import OrderedDict

_CLIENTS = 20_000


class RateLimit:
    """``burst`` at once, ``per_s`` in the long run, for each key. The clock is the caller's, in seconds."""

    def __init__(self, *, per_s: float, burst: float, clients: int = _CLIENTS) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clients = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> bool:
        """Takes one token; False when there is none."""
        level = self._level(key, now)
        allowed = level >= 1.0
        self._store(key, level - 1.0 if allowed else level, now)
        return allowed

    def has(self, key: str, now: float) -> bool:
        """Whether a token is there, without taking it."""
        return self._level(key, now) >= 1.0

    def _level(self, key: str, now: float) -> float:
        level, at = self._buckets.get(key, (self._burst, now))
        return min(self._burst, level + max(0.0, now - at) * self._per_s)

    def _store(self, key: str, level: float, now: float) -> None:
        # The bucket that was not touched for the longest goes: under a flood of addresses that is an old client,
        # whose bucket is full again anyway.
        self._buckets[key] = (level, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
