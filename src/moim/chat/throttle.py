"""Back-off after wrong passwords: per client address, and per account for addresses that it never signed in from.

Pure: every call takes ``now``. Counts halve as time passes, memory is bounded, and an account that does not exist is
counted like one that does.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from moim.net.listener import client_key

_ENTRIES = 20_000
_HALF_LIFE = 600.0


@dataclass(slots=True)
class _Count:
    failures: float
    at: float
    last: float

    def now(self, now: float) -> float:
        if now - self.at < 1.0:
            return self.failures
        return self.failures * math.pow(0.5, (now - self.at) / _HALF_LIFE)


class _Counts:
    """Failures by key, the least recently used forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    def add(self, key: str, number: float, now: float) -> None:
        count = self._counts.pop(key, None)
        failures = max(0.0, (count.now(now) if count else 0.0) + number)
        if failures > 0.0:
            last = now if number > 0 or count is None else count.last
            self._counts[key] = _Count(failures, now, last)
        if len(self._counts) > _ENTRIES:
            self._counts.popitem(last=False)

    def wait(self, key: str, now: float, allowed: int, longest: float) -> float:
        """Seconds from ``now`` until ``key`` may try again: 0 below ``allowed`` failures, then doubling."""
        count = self._counts.get(key)
        if count is None:
            return 0.0
        over = count.now(now) - allowed + 0.5  # counts fade, so the last failure allowed is a little less than one
        if over < 0:
            return 0.0
        return max(0.0, count.last + min(longest, math.pow(2.0, min(over, 30.0))) - now)


class AuthThrottle:
    """Decides who has to wait before the next attempt to sign in."""

    def __init__(self, *, per_address: int, per_account: int, longest_wait: float) -> None:
        self._per_address = per_address
        self._per_account = per_account
        self._longest = longest_wait
        self._addresses = _Counts()
        self._accounts = _Counts()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def wait(self, address: str, account: str, now: float) -> float:
        """Seconds that ``address`` has to wait before it may try ``account`` (empty when not known yet); 0 for none."""
        network = client_key(address)
        wait = self._addresses.wait(network, now, self._per_address, self._longest)
        if account and (account, network) not in self._known:
            wait = max(wait, self._accounts.wait(account, now, self._per_account, self._longest))
        return wait

    def attempt(self, address: str, account: str, now: float) -> None:
        """Counts an attempt as wrong before it is judged, so that many at once do not slip through."""
        self._addresses.add(client_key(address), 1.0, now)
        self._accounts.add(account, 1.0, now)

    def succeeded(self, address: str, account: str, now: float) -> None:
        """Takes the attempt back, and remembers that the account's owner is at ``address``."""
        network = client_key(address)
        self._addresses.add(network, -1.0, now)
        self._accounts.add(account, -1.0, now)
        self._known.pop((account, network), None)
        self._known[account, network] = None
        if len(self._known) > _ENTRIES:
            self._known.popitem(last=False)
