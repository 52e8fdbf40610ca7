"""How fast one account, or one domain, may be: a bucket for each, which refills with time."""

from __future__ import annotations

_MAX_BUCKETS = 10_000


class Budgets:
    """Buckets of ``burst`` stanzas that refill at ``rate`` per second; ``now`` is seconds on any monotonic scale."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, who: str, now: float, cost: float = 1.0) -> bool:
        """Whether ``who`` may send something that counts as ``cost`` stanzas, at most a whole bucket."""
        cost = min(cost, self._burst)
        left, since = self._buckets.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= cost
        # Taken out and put back, so that the dictionary's order is that of the last use.
        self._buckets[who] = (left - cost if allowed else left, now)
        if len(self._buckets) > _MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return allowed
