"""A bound on how often one client may ask, for a bounded number of clients."""

from __future__ import annotations

from collections import OrderedDict

_CLIENTS = 20_000


class RateLimit:
    """Token buckets: ``per_minute`` requests of a client on average, as many at once; the idlest is forgotten."""

    def __init__(self, per_minute: int) -> None:
        self._size = float(per_minute)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Takes one request of ``client`` at ``now`` seconds. 0.0 when it may go ahead, else the seconds to wait."""
        left, at = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - at) * self._size / 60)
        allowed = left >= 1
        self._buckets[client] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) * 60 / self._size
