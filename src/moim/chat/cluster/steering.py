"""Where clients go: away from a node that stops, in steps; and not all at once to the node that is left.

Sessions that their clients can resume go to the other node first, so that they find everything there (XEP-0198).

When a node dies, everybody it had signs in at another one. Clients spread that over minutes by the re-login limits
that they were given; those that do not are let in as fast as this node can take them, and told to wait or to try
another node.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from moim.chat.accounts import Session
from moim.proto.xmpp import Element, ns, stream_error

_STEPS = 10
_STEP_SECONDS = 0.05
_GOING_SECONDS = 3.0
_SAID_SECONDS = 10.0

_PORTS = {"xmpp-client": 5222, "xmpp-client-tls": 5223}
"""Listeners whose clients reach the other nodes as they reach this one; by the port that they are known under."""

_log = logging.getLogger("moim.chat.cluster")

End = Callable[[Session, Element | None], None]
Give = Callable[[Session, str, Element], Awaitable[bool]]
"""Gives a session to a node, after a stream error for its connection; whether it goes on there."""


class Steering:
    """``others`` gives names and host names of the other nodes that live; ``bind`` the real port of a standard one.

    ``per_second`` sign-ins are let in, and ``burst`` at once after a quiet time; 0 lets everybody in.
    """

    def __init__(
        self,
        others: Callable[[], Sequence[tuple[str, str]]],
        bind: Callable[[int], int],
        *,
        per_second: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._others = others
        self._bind = bind
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()
        self._next = 0
        self._said_at = float("-inf")
        self.refused = 0

    def admit(self, session: Session) -> Element | None:
        """What a new connection is told instead of being let in; None when it may sign in."""
        if not self._per_second:
            return None
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return None
        self.refused += 1
        if now - self._said_at >= _SAID_SECONDS:
            self._said_at = now
            _log.warning("more sign-ins than chat.sign_ins_per_second: %d were put off so far", self.refused)
        _, error = self._elsewhere(session)
        return error or stream_error("resource-constraint", "too many sign-ins; try again in a while")

    def _elsewhere(self, session: Session) -> tuple[str, Element | None]:
        """Another node, each in turn, and the stream error that sends a client there; None when there is none for it.

        Whoever came through the edge comes back that way, to whichever node is there.
        """
        others = self._others()
        if not others:
            return "", None
        self._next += 1
        node, host = others[self._next % len(others)]
        port = _PORTS.get(session.connection.name)
        if port is None:
            return node, None
        place = Element("see-other-host", ns.STREAM_ERRORS, {}, (f"{host}:{self._bind(port)}",))
        return node, Element("error", ns.STREAMS, {}, (place,))

    async def drain(self, sessions: Sequence[Session], end: End, give: Give) -> None:
        """Sends the clients of a node that stops to the others, a part at a time; returns within a second or so."""
        if not self._others() or not sessions:
            return
        _log.info("sending %d clients to other nodes", len(sessions))
        size = -(-len(sessions) // _STEPS)
        going: list[asyncio.Task[None]] = []
        for start in range(0, len(sessions), size):
            going += [asyncio.create_task(self._send_off(one, end, give)) for one in sessions[start : start + size]]
            await asyncio.sleep(_STEP_SECONDS)
        _, late = await asyncio.wait(going, timeout=_GOING_SECONDS)
        if late:
            _log.error("%d sessions could not be given to another node in time", len(late))

    async def _send_off(self, session: Session, end: End, give: Give) -> None:
        node, error = self._elsewhere(session)
        goodbye = error or stream_error("system-shutdown", "another server goes on")
        if node and await give(session, node, goodbye):
            return
        if error is not None and not session.gone:
            end(session, error)
