"""Slows down who guesses passwords: back-off per account and source, per account, per source.

No clock of its own: callers pass ``now`` in seconds of any monotonic scale. Tables are bounded; the entry that was
quiet the longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_ENTRIES = 20_000


@dataclass(slots=True)
class _Count:
    failures: int
    since: float
    until: float


class Backoff:
    """From the ``free``-th failure of a key on it has to wait: 1 second, doubled by each further one up to ``longest``.

    Every ``forget`` seconds one failure is forgotten.
    """

    def __init__(self, *, free: int, longest: float, forget: float) -> None:
        self._free = free
        self._longest = longest
        self._forget = forget
        self._counts: OrderedDict[tuple[str, ...], _Count] = OrderedDict()

    def wait(self, key: tuple[str, ...], now: float) -> float:
        """Seconds until the key may try again; 0 when it may now."""
        count = self._counts.get(key)
        return max(count.until - now, 0.0) if count else 0.0

    def failed(self, key: tuple[str, ...], now: float) -> None:
        """Counts one failure."""
        count = self._counts.setdefault(key, _Count(0, now, now))
        self._counts.move_to_end(key)
        forgotten = int((now - count.since) / self._forget)
        count.failures = max(count.failures - forgotten, 0) + 1
        count.since = now if count.failures == 1 else count.since + forgotten * self._forget
        beyond = count.failures - self._free
        if beyond >= 0:
            count.until = now + min(2.0 ** min(beyond, 30), self._longest)
        while len(self._counts) > _ENTRIES:
            self._counts.popitem(last=False)

    def clear(self, key: tuple[str, ...]) -> None:
        """Forgets the key."""
        self._counts.pop(key, None)


class SignInGate:
    """Who may try a password now: one source on one account, one account from everywhere, one source everywhere.

    An account is slowed down for strangers long before its owner, at another source, notices.
    """

    def __init__(self) -> None:
        self._pair = Backoff(free=5, longest=900, forget=60)
        self._account = Backoff(free=100, longest=30, forget=6)
        self._source = Backoff(free=200, longest=60, forget=1)

    def begin(self, account: str, source: str, now: float) -> float:
        """Seconds to wait; with 0 the attempt may go on, and ends in ``succeeded`` or ``failed``.

        Until then it counts as a failure of this source on this account, so that parallel guesses count too.
        """
        wait = max(
            self._pair.wait((account, source), now),
            self._account.wait((account,), now),
            self._source.wait((source,), now) if source else 0.0,
        )
        if wait > 0:
            return wait
        self._pair.failed((account, source), now)
        return 0.0

    def failed(self, account: str, source: str, now: float) -> None:
        """The attempt was wrong."""
        self._account.failed((account,), now)
        if source:
            self._source.failed((source,), now)

    def succeeded(self, account: str, source: str) -> None:
        """The attempt was right: this source is trusted with this account again."""
        self._pair.clear((account, source))
