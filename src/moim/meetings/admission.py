"""Who may enter a meeting: guests by the link's secret or the passcode, users also by owning the space."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from moim.meetings.attempts import Attempts
from moim.meetings.messages import Join, Refusal
from moim.meetings.spaces import Space, Spaces
from moim.model import Address

_GUEST = "Guest"
_log = logging.getLogger("moim.meetings")


class WebSessions(Protocol):
    """The web app's sign-ins; the portal has them."""

    def user_for(self, token: str) -> Address | None:
        """Who a token belongs to; None when it is unknown or over."""
        ...


@dataclass(frozen=True, slots=True)
class Admitted:
    """Somebody who may enter ``space``, and what to call them."""

    space: Space
    name: str
    user: Address | None


class Admission:
    """Judges requests to join. ``clock`` gives seconds of a monotonic scale."""

    def __init__(self, spaces: Spaces, sessions: WebSessions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._spaces = spaces
        self._sessions = sessions
        self._clock = clock
        self._attempts = Attempts()

    async def admit(self, join: Join, client: str) -> Admitted:
        """Lets ``client`` (an address, as ``client_key`` gives it) in, or raises Refusal with the reason."""
        user = self._sessions.user_for(join.token) if join.token else None
        if join.token and user is None:
            raise Refusal("unauthorized", "the sign-in is over", hint="sign in again")
        call_id = "".join(c for c in join.call_id if c.isalnum()).lower()
        now = self._clock()
        self._respect(self._attempts.wait_with_secret(client, now), client, call_id)
        if join.passcode:
            self._respect(self._attempts.wait(client, call_id, now), client, call_id)
        space = await self._spaces.find(join.call_id)
        if space is None:
            self._attempts.failed(client, call_id, now)
            _log.info("%s asked for a meeting that does not exist", client)
            raise Refusal("not-found", "there is no meeting with this call ID")
        owns = user is not None and space.owner == user
        if not owns and not space.admits(passcode=join.passcode, secret=join.secret):
            if join.passcode or join.secret:
                self._attempts.failed(client, call_id, now)
            _log.info("refused %s to meeting %s: no valid passcode or link", client, space.call_id)
            raise Refusal("wrong-passcode", "the passcode or the link is not right")
        self._attempts.succeeded(client, call_id)
        return Admitted(space, join.name or (user.local if user is not None else _GUEST), user)

    async def look_up(self, call_id: str, secret: str, client: str) -> Space | None:
        """The space of a link for somebody who only looks; None unless the secret is right. Raises Refusal."""
        if not secret:
            return None
        now = self._clock()
        self._respect(self._attempts.wait_with_secret(client, now), client, call_id)
        space = await self._spaces.find(call_id)
        if space is None or not space.admits(passcode="", secret=secret):
            self._attempts.failed(client, call_id, now)
            return None
        return space

    def _respect(self, wait: float, client: str, call_id: str) -> None:
        if wait > 0:
            _log.warning("slowed down %s at meeting %s: too many wrong attempts", client, call_id[:32])
            raise Refusal("rate-limited", "too many wrong attempts", hint=f"try again in {math.ceil(wait)} seconds")
