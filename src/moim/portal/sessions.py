"""Web sessions: who a token belongs to. In memory only, each token kept as a hash, every count bounded.

A sign-in has one key, which the browser holds as a cookie that no script can read, and a few tokens derived for pages
that must name the session in a message (the meeting's WebSocket). All end together: at sign-out, after their time, when
the user is removed or gets another password, and when the process ends.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from moim.bus import Bus
from moim.model import Address, UserChanged, UserRemoved

_TOKEN_BYTES = 32
_MAX_TEXT = 128
_TOKENS_PER_SESSION = 16

_Hash = bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """What a sign-in hands to the browser: ``key`` for the cookie, ``token`` for the page, seconds until both end."""

    key: str = field(repr=False)
    token: str = field(repr=False)
    lifetime: int


@dataclass(slots=True, eq=False)
class _Session:
    address: Address
    ends: float
    key: _Hash
    tokens: deque[_Hash] = field(default_factory=deque)


class Sessions:
    """The live sign-ins of the web app.

    ``lifetime`` is in seconds; ``limit`` and ``per_user`` bound the sign-ins, of which the oldest gives way.
    """

    def __init__(
        self,
        *,
        lifetime: float,
        limit: int,
        per_user: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lifetime = lifetime
        self._limit = limit
        self._per_user = per_user
        self._clock = clock
        self._by_hash: dict[_Hash, _Session] = {}
        self._order: OrderedDict[_Hash, _Session] = OrderedDict()
        self._by_user: dict[Address, list[_Session]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def follow(self, bus: Bus) -> Callable[[], None]:
        """Ends sessions as users go or change their password. The result stops following."""

        async def changed(fact: UserChanged) -> None:
            if fact.password_changed:
                self.end_user(fact.address)

        async def removed(fact: UserRemoved) -> None:
            self.end_user(fact.address)

        cancels = (bus.subscribe(UserChanged, changed), bus.subscribe(UserRemoved, removed))

        def cancel() -> None:
            for one in cancels:
                one()

        return cancel

    def open(self, address: Address) -> Opened:
        """A new sign-in of a user whose password was right."""
        self._drop_ended()
        own = self._by_user.setdefault(address, [])
        if len(own) >= self._per_user:
            self._end(own[0])
        if len(self._order) >= self._limit:
            self._end(next(iter(self._order.values())))
        key = secrets.token_urlsafe(_TOKEN_BYTES)
        session = _Session(address, self._clock() + self._lifetime, _hash(key))
        self._by_hash[session.key] = session
        self._order[session.key] = session
        self._by_user.setdefault(address, []).append(session)
        return Opened(key, self._derive(session), round(self._lifetime))

    def renew(self, key: str) -> tuple[Address, str] | None:
        """The user of a cookie's key with a token for one more page; None when the session is over."""
        session = self._live(key)
        if session is None or session.key != _hash(key):
            return None
        return session.address, self._derive(session)

    def user_for(self, token: str) -> Address | None:
        """Who a key or token belongs to; None when it is unknown or over."""
        session = self._live(token)
        return session.address if session is not None else None

    def close(self, token: str) -> None:
        """Ends the sign-in that a key or token belongs to."""
        session = self._live(token)
        if session is not None:
            self._end(session)

    def end_user(self, address: Address) -> None:
        """Ends every sign-in of a user."""
        for session in tuple(self._by_user.get(address, ())):
            self._end(session)

    def _live(self, token: str) -> _Session | None:
        if not token or len(token) > _MAX_TEXT:
            return None
        session = self._by_hash.get(_hash(token))
        if session is not None and session.ends <= self._clock():
            self._end(session)
            return None
        return session

    def _derive(self, session: _Session) -> str:
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        if len(session.tokens) >= _TOKENS_PER_SESSION:
            self._by_hash.pop(session.tokens.popleft(), None)
        session.tokens.append(_hash(token))
        self._by_hash[session.tokens[-1]] = session
        return token

    def _drop_ended(self) -> None:
        # All live equally long, so the oldest end first.
        now = self._clock()
        while self._order and (oldest := next(iter(self._order.values()))).ends <= now:
            self._end(oldest)

    def _end(self, session: _Session) -> None:
        self._order.pop(session.key, None)
        for one in (session.key, *session.tokens):
            self._by_hash.pop(one, None)
        own = self._by_user.get(session.address)
        if own is not None:
            if session in own:
                own.remove(session)
            if not own:
                del self._by_user[session.address]


def _hash(token: str) -> _Hash:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
