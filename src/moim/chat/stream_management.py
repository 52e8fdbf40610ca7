"""XEP-0198 stream management: which sessions outlive their connections, for how long, and who may come back to which.

The plane counts, acknowledges and keeps what a client has not got; here is decided. A session that lost its connection
goes on as it was, with its presence and its rooms, until its time is up. What it never got is then routed anew.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from moim import log
from moim.chat.accounts import Connection, Session
from moim.chat.feature import Feature
from moim.chat.inline import Inline, Resumed
from moim.chat.plane import Plane
from moim.proto.xmpp import Element, Jid, ns, stream_error

_REMEMBERED: Final = 10_000
_MAX_COUNT: Final = 2**32 - 1
_PATIENCE: Final = 3.0
"""Seconds that a client which comes back waits for what it sent before to be dealt with."""

_log = logging.getLogger("moim.chat.sessions")


@dataclass(eq=False, slots=True)
class _Managed:
    """A session with stream management. ``token`` is what its client names it by; empty when it cannot come back."""

    session: Session
    token: str
    seconds: int
    timer: asyncio.TimerHandle | None = None


class StreamManagement:
    """Every session of this node that asked for it.

    ``longest`` is how many seconds a session may wait for its client, 0 for not at all; ``waiting`` how many sessions
    may wait at once. ``end`` ends a session; ``again`` routes stanzas anew that nobody got; ``dealt_with`` returns when
    what a session sent is where it belongs.
    """

    def __init__(
        self,
        plane: Plane,
        *,
        longest: int,
        waiting: int,
        end: Callable[[Session, Element | None], None],
        again: Callable[[Sequence[Element]], None],
        dealt_with: Callable[[Session], Awaitable[None]],
        detached: Callable[[Session], None],
        resumed: Callable[[Session], None],
    ) -> None:
        self._plane = plane
        self._longest = longest
        self._most = waiting
        self._end = end
        self._again = again
        self._dealt_with = dealt_with
        self._on_detached = detached
        self._on_resumed = resumed
        self._sids: dict[int, _Managed] = {}
        self._tokens: dict[str, _Managed] = {}
        self._waiting = 0
        self._unacknowledged: dict[int, Sequence[Element]] = {}
        self._ended: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self.fetch: Callable[[Jid, str], Awaitable[int | None]] = _nowhere
        """Brings the session of an account (bare JID) with this token from another node; how many stanzas it took, when
        it is over and that is known."""
        announced = Element("sm", ns.SM)
        self.feature = Feature(
            name="XEP-0198 stream management",
            stream_features=(announced,),
            inline=(Inline(ns.SM, ((ns.SM, "enable"),), self._enable_inside),),
            resume=self.resume,
            sasl_inline=(announced,),
            on_stop=self._stop,
        )

    # --- beginning ----------------------------------------------------------------------------------------------

    def element(self, session: Session, element: Element) -> None:
        """A bound session's request that the plane left to us: ``<enable/>``."""
        if element.name == "enable":
            self._plane.manage(session.sid, *self._enable(session, element))
        else:
            self._plane.send(session.sid, [failed("unexpected-request")])

    def _enable_inside(self, session: Session, element: Element) -> Element | None:
        if session.sid in self._sids:
            return failed("unexpected-request")
        answer, resumable = self._enable(session, element)
        self._plane.manage(session.sid, None, resumable)
        return answer

    def _enable(self, session: Session, element: Element) -> tuple[Element, bool]:
        resumable = self._longest > 0 and element.get("resume") in ("true", "1")
        managed = _Managed(session, secrets.token_urlsafe(18) if resumable else "", self._longest)
        wanted = element.get("max") or ""
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 10:
            managed.seconds = min(int(wanted), self._longest)
        self._sids[session.sid] = managed
        if not resumable:
            return Element("enabled", ns.SM), False
        self._tokens[managed.token] = managed
        attrs = {"id": managed.token, "resume": "true", "max": str(managed.seconds)}
        return Element("enabled", ns.SM, attrs), True

    # --- breaking -----------------------------------------------------------------------------------------------

    def detached(self, session: Session, reason: str, messages: Sequence[Element]) -> None:
        """The session's connection is gone; its client may come back. It did not confirm ``messages``."""
        managed = self._sids.get(session.sid)
        if managed is None or session.leaving or self._waiting >= self._most:
            self._end(session, None)
            return
        self._waiting += 1
        session.detached = True
        with log.session(f"xmpp-{session.sid}"):
            _log.debug("%s lost its connection and may come back: %s", session.jid, reason)
        managed.timer = asyncio.get_running_loop().call_later(managed.seconds, self._expired, managed)
        session.unconfirmed = messages
        self._on_detached(session)
        session.unconfirmed = ()

    def _expired(self, managed: _Managed) -> None:
        managed.timer = None
        with log.session(f"xmpp-{managed.session.sid}"):
            _log.info("%s did not come back within %d s", managed.session.jid, managed.seconds)
        self._end(managed.session, None)

    def unacknowledged(self, sid: int, elements: Sequence[Element], handled: int) -> None:
        """What a session that is about to be closed never got, and how many stanzas it sent."""
        managed = self._sids.get(sid)
        if managed is not None and managed.token:
            self._remember(managed.token, managed.session, handled)
        if elements:
            self._unacknowledged[sid] = elements

    def _remember(self, token: str, session: Session, handled: int) -> None:
        bare = session.negotiation.authenticated
        if bare is not None:
            self._ended[token] = str(bare), handled
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)

    def closed(self, sid: int) -> None:
        """A session is over, and its address is free: what it never got goes to whoever is there now."""
        managed = self._sids.pop(sid, None)
        if managed is not None:
            self._stop_waiting(managed)
            self._tokens.pop(managed.token, None)
        elements = self._unacknowledged.pop(sid, None)
        if elements is not None:
            self._again(elements)

    def _stop_waiting(self, managed: _Managed) -> None:
        if managed.timer is not None:
            managed.timer.cancel()
            managed.timer = None
        if managed.session.detached:
            managed.session.detached = False
            self._waiting -= 1

    # --- coming back --------------------------------------------------------------------------------------------

    async def resume(self, session: Session, jid: Jid, element: Element) -> Resumed:
        """Whether the account ``jid``, signed in as ``session``, may go on with what ``element`` names.

        A token of somebody else is answered like one that never was.
        """
        token, count = element.get("previd") or "", element.get("h") or ""
        if not (count.isascii() and count.isdigit() and len(count) <= 10 and int(count) <= _MAX_COUNT):
            return Resumed(failed("bad-request"))
        handled = self.handled(jid, token)
        old = self.named(jid, token)
        if old is None and handled is None and token:
            handled = await self.fetch(jid, token)
            old = self.named(jid, token)
        if old is None:
            return Resumed(failed("item-not-found", handled))
        # What the plane cannot answer for then, the client sends once more.
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._dealt_with(old)
        if self.named(jid, token) is not old:
            return Resumed(failed("item-not-found", self.handled(jid, token)))

        def go_on(answer: Sequence[Element]) -> None:
            self._plane.resume(session.sid, old.sid, int(count), token, answer)

        return Resumed(None, jid=old.full, then=go_on)

    def named(self, jid: Jid, token: str) -> Session | None:
        """The session of an account (bare JID) that a client may come back to by this token."""
        managed = self._tokens.get(token)
        session = managed.session if managed is not None else None
        if session is None or session.gone or session.leaving or session.node or session.account is None:
            return None
        return session if session.full.bare == jid else None

    def handled(self, jid: Jid, token: str) -> int | None:
        """How many stanzas were taken from a session of an account that is over, if that is remembered."""
        bare, handled = self._ended.get(token, ("", 0))
        return handled if bare == str(jid) else None

    def resumable(self, session: Session) -> bool:
        """Whether the session's client may come back to it."""
        managed = self._sids.get(session.sid)
        return managed is not None and bool(managed.token) and not session.leaving

    # --- going elsewhere ----------------------------------------------------------------------------------------

    def send_off(self, sid: int) -> tuple[str, int]:
        """A session goes on at another node: its token, and how many seconds it waits for its client."""
        managed = self._sids.pop(sid)
        self._stop_waiting(managed)
        self._tokens.pop(managed.token, None)
        return managed.token, managed.seconds

    def take_in(self, session: Session, token: str, seconds: int) -> None:
        """A session of another node goes on here, and waits for its client."""
        self._tokens[token] = self._sids[session.sid] = _Managed(session, token, min(seconds, self._longest))
        self.detached(session, "it was at another node", ())

    def resumed(self, session: Session, by: Session) -> None:
        """The connection of ``by`` has become that of ``session``."""
        managed = self._sids.get(session.sid)
        if managed is not None:
            self._stop_waiting(managed)
        place = by.connection
        session.connection = Connection(session.sid, place.name, place.peer, place.port)
        session.client = by.client or session.client
        with log.session(f"xmpp-{session.sid}"):
            _log.info("%s came back from %s", session.jid, place.peer)
        self._on_resumed(session)

    def unresumed(self, by: Session, condition: str) -> None:
        """The plane had ended the session just before its client came back as ``by``."""
        if by.negotiation.bound:  # its sign-in was answered with a session that is no more
            self._end(by, stream_error("reset", "the session is gone; sign in anew"))
        else:
            self._plane.send(by.sid, [failed(condition)])

    async def _stop(self) -> None:
        for managed in self._sids.values():
            if managed.timer is not None:
                managed.timer.cancel()


async def _nowhere(_jid: Jid, _token: str) -> int | None:
    return None


def failed(condition: str, handled: int | None = None) -> Element:
    """``<failed/>``; ``handled`` is how many stanzas were taken in the session that is gone, if it is known."""
    attrs = {} if handled is None else {"h": str(handled)}
    return Element("failed", ns.SM, attrs, (Element(condition, ns.STANZA_ERRORS),))
