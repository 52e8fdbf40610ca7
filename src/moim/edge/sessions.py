"""Sessions of clients that signed in through the edge: what the X-Auth cookie stands for."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from moim.model import Address


@dataclass(frozen=True, slots=True)
class EdgeSession:
    """Who signed in, for which voice services domain, and until when (seconds since 1970)."""

    user: Address
    domain: str
    expires: float


class Sessions:
    """Sessions in memory: a restart signs clients in anew, which they do by themselves.

    Values are kept as digests, so that looking one up takes no secret-dependent time and a dump of memory shows none.
    """

    def __init__(self, *, lifetime_s: int, most: int, clock: Callable[[], float] = time.time) -> None:
        self._lifetime_s = lifetime_s
        self._most = most
        self._clock = clock
        self._sessions: OrderedDict[bytes, EdgeSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, user: Address, domain: str) -> tuple[str, EdgeSession]:
        """Makes a session; returns the cookie's value, a random UUID (122 bits of randomness)."""
        now = self._clock()
        value = str(uuid.uuid4())
        session = EdgeSession(user, domain, now + self._lifetime_s)
        self._sessions[_digest(value)] = session
        self._expire(now)
        return value, session

    def find(self, value: str) -> EdgeSession | None:
        """The session of a cookie's value, or None when there is none any more."""
        if not value:
            return None
        session = self._sessions.get(_digest(value))
        return session if session is not None and session.expires > self._clock() else None

    def close_for(self, user: Address) -> int:
        """Ends every session of a user; returns how many there were."""
        gone = [key for key, session in self._sessions.items() if session.user == user]
        for key in gone:
            del self._sessions[key]
        return len(gone)

    def _expire(self, now: float) -> None:
        # All live equally long, so the oldest entry is always the first to end.
        while self._sessions:
            first = next(iter(self._sessions))
            if self._sessions[first].expires > now and len(self._sessions) <= self._most:
                return
            del self._sessions[first]


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()
