"""Slows down who guesses call IDs and passcodes: per client, per client and call, and per call from everywhere.

No clock: callers pass ``now`` in seconds of any monotonic scale. Tables are bounded; the entry that was quiet the
longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_ENTRIES = 20_000


@dataclass(slots=True)
class _Count:
    failures: int
    at: float
    until: float = 0.0


class _Backoff:
    """After ``free`` failures each further one costs a wait, doubled every time up to ``longest`` seconds.

    A failure is forgotten every ``forget`` seconds.
    """

    def __init__(self, *, free: int, longest: float, forget: float) -> None:
        self._free = free
        self._longest = longest
        self._forget = forget
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        count = self._counts.get(key)
        return max(count.until - now, 0.0) if count is not None else 0.0

    def failed(self, key: str, now: float) -> None:
        count = self._counts.pop(key, None) or _Count(0, now)
        forgotten = int((now - count.at) / self._forget)
        count.failures = max(count.failures - forgotten, 0) + 1
        count.at = now if count.failures == 1 else count.at + forgotten * self._forget
        beyond = count.failures - self._free
        if beyond > 0:
            count.until = now + min(2.0 ** min(beyond - 1, 30), self._longest)
        self._counts[key] = count
        if len(self._counts) > _ENTRIES:
            self._counts.popitem(last=False)

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)


class Attempts:
    """Who may try to join now. However many clients guess, a six-digit passcode holds for about a year."""

    def __init__(self) -> None:
        self._pair = _Backoff(free=5, longest=300, forget=30)
        self._client = _Backoff(free=20, longest=300, forget=10)
        self._call = _Backoff(free=60, longest=60, forget=60)

    def wait(self, client: str, call_id: str, now: float) -> float:
        """Seconds until the client may try this call with a passcode; 0 when it may now."""
        pair = self._pair.wait(f"{client} {call_id}", now)
        return max(pair, self._client.wait(client, now), self._call.wait(call_id, now))

    def wait_with_secret(self, client: str, now: float) -> float:
        """The same for a link: its secret cannot be guessed, so strangers' failures do not lock its holders out."""
        return self._client.wait(client, now)

    def failed(self, client: str, call_id: str, now: float) -> None:
        """The passcode, secret or call ID was wrong."""
        self._pair.failed(f"{client} {call_id}", now)
        self._client.failed(client, now)
        self._call.failed(call_id, now)

    def succeeded(self, client: str, call_id: str) -> None:
        """The client is trusted with this call again."""
        self._pair.clear(f"{client} {call_id}")
