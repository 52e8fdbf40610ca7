"""Token buckets per client in a bounded table: how many requests, or wrong passwords, one client may send."""

from __future__ import annotations

from collections import OrderedDict

_CLIENTS = 20_000


class RateLimit:
    """``burst`` at once, ``per_s`` in the long run, for each key. The clock is the caller's, in seconds."""

    def __init__(self, *, per_s: float, burst: float, clients: int = _CLIENTS) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._clients = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> bool:
        """Takes one token; False when there is none."""
        return self.wait(key, now) == 0.0

    def wait(self, key: str, now: float) -> float:
        """Takes one token when there is one: 0.0. Else the seconds until there is, and takes none."""
        level = self._level(key, now)
        allowed = level >= 1.0
        # The bucket that was not touched for the longest goes: under a flood of addresses that is an old client,
        # whose bucket is full again anyway.
        self._buckets[key] = (level - 1.0 if allowed else level, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - level) / self._per_s

    def has(self, key: str, now: float) -> bool:
        """Whether a token is there, without taking it."""
        return self._level(key, now) >= 1.0

    def _level(self, key: str, now: float) -> float:
        level, at = self._buckets.get(key, (self._burst, now))
        return min(self._burst, level + max(0.0, now - at) * self._per_s)
