"""Token buckets by key in a bounded table: how many requests, or wrong passwords, one client may send."""

from __future__ import annotations

from collections import OrderedDict

_CLIENTS = 20_000


class RateLimit:
    """``burst`` at once, ``per_s`` in the long run, for each key. The clock is the caller's, in seconds.

    What costs more than a whole bucket takes all of it.
    """

    def __init__(self, *, per_s: float, burst: float, clients: int = _CLIENTS) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._clients = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float, cost: float = 1.0) -> bool:
        """Takes ``cost`` tokens; False when there are not as many."""
        return self.wait(key, now, cost) == 0.0

    def wait(self, key: str, now: float, cost: float = 1.0) -> float:
        """Takes ``cost`` tokens when they are there: 0.0. Else the seconds until they are, and takes none."""
        cost = min(cost, self._burst)
        level, at = self._buckets.get(key, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - at) * self._per_s)
        allowed = level >= cost
        # The bucket that was not touched for the longest goes: under a flood of addresses that is an old client,
        # whose bucket is full again anyway.
        self._buckets[key] = (level - cost if allowed else level, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (cost - level) / self._per_s
