"""Drives every client connection: the plane's events go in, negotiation and routing decide, the plane carries out.

Stanzas of one session are worked on strictly in order: while one waits for the database, later ones wait in the
session's inbox. Nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from moim import log
from moim.chat.accounts import Accounts, Connection, Session
from moim.chat.archive.rows import Record
from moim.chat.custody import Custody, working_on
from moim.chat.feature import Feature, hooks
from moim.chat.negotiation import Negotiation, Policy
from moim.chat.plane import Listener, Plane
from moim.chat.presence import Presence
from moim.chat.routing import Router
from moim.chat.signing_in import SigningIn, Strangers, Tokens
from moim.chat.stream_management import StreamManagement
from moim.chat.throttle import AuthThrottle
from moim.chat.verifiers import Verifiers
from moim.errors import MoimError
from moim.proto.xmpp import Element, StanzaError, ns, stream_error

if TYPE_CHECKING:
    from moim.chat.plane import MovedOut, PlaneEvent

_SWEEP_SECONDS = 5.0

_log = logging.getLogger("moim.chat.sessions")


_tokens: list[str] = []


def _token() -> str:
    """Fresh unguessable text of 20 characters; random bytes are asked for many at once."""
    if not _tokens:
        text = secrets.token_urlsafe(15 * 64)
        _tokens.extend(text[start : start + 20] for start in range(0, len(text), 20))
    return _tokens.pop()


class Sessions:
    """Every connection of this node, from accept to close."""

    def __init__(
        self,
        *,
        policies: Mapping[str, Policy],
        plane: Plane,
        accounts: Accounts,
        router: Router,
        presence: Presence,
        verifiers: Verifiers,
        throttle: AuthThrottle,
        features: Sequence[Feature],
        management: StreamManagement,
        on_bound: Callable[[Session], Awaitable[None] | None],
        tokens: Tokens | None,
        strangers: Strangers | None,
        records: Callable[[int, Sequence[Record]], None],
        secret: bytes,
        max_per_account: Callable[[str], int],
        max_pending: int,
        bind_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policies = policies
        self._plane = plane
        self._accounts = accounts
        self._router = router
        self._presence = presence
        self._management = management
        self._on_bound = on_bound
        self._records = records
        self._on_gone = hooks(features, lambda feature: feature.on_gone)
        self._max_pending = max_pending
        self._bind_timeout = bind_timeout
        self._clock = clock
        self._listeners: dict[int, Listener] = {}
        self._sessions: dict[int, Session] = {}
        self.elsewhere: Callable[[Session, Element | None], None] = lambda session, error: None
        """Ends a session that another node holds."""
        self.admit: Callable[[Session], Element | None] = lambda session: None
        """What a new connection is told instead of being let in; None when it may sign in."""
        self.moved: Callable[[MovedOut], None] = lambda event: None
        """A session was taken out of the plane."""
        self.ending: Callable[[int], None] = lambda sid: None
        """The plane has ended a session by itself."""
        self._unbound: dict[int, float] = {}
        self._quiet: dict[Session, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._signing_in = SigningIn(
            plane=plane,
            accounts=accounts,
            verifiers=verifiers,
            throttle=throttle,
            tokens=tokens,
            strangers=strangers,
            features=features,
            max_per_account=max_per_account,
            secret=secret,
            end=self.end,
            entered=self._entered,
            spawn=self._spawn,
            token=_token,
            clock=clock,
        )

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self) -> None:
        """Begins to look for connections that never get to the end of their sign-in."""
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    async def stop(self) -> None:
        """Ends the work in progress; the connections are the plane's to close."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        tasks = tuple(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def here(self) -> list[Session]:
        """Every connection of this node."""
        return list(self._sessions.values())

    def add_listener(self, listener: Listener) -> None:
        """Takes the connections of a listener; call before the next batch of events."""
        self._listeners[listener.number] = listener

    def handle(self, batch: Sequence[PlaneEvent]) -> None:
        """One batch of the plane's events."""
        for event in batch:
            sid = event[1]
            try:
                self._event(event)
            except Exception:
                with log.session(f"xmpp-{sid}"):
                    _log.exception("the event '%s' could not be handled, so the connection is closed", event[0])
                self._fail(sid)

    def _fail(self, sid: int) -> None:
        session = self._sessions.get(sid)
        if session is not None:
            self.end(session, stream_error("internal-server-error"))
        else:
            self._plane.close(sid)

    def _event(self, event: PlaneEvent) -> None:
        if event[0] == "stanza":
            session = self._sessions.get(event[1])
            if session is not None and not session.gone:
                self._element(session, event[2], self._taken(session, event[3]))
        elif event[0] == "connected":
            self._connected(*event[1:])
        elif event[0] == "unacknowledged":
            self._management.unacknowledged(event[1], event[2], event[3])
        elif event[0] == "moved":
            self._sessions.pop(event[1], None)
            self.moved(event)
        elif event[0] == "resumed":
            self._resumed(event[1], event[2])
        elif event[0] == "closed":
            self._closed(event[1], event[2])
        elif event[0] == "records":
            self._records(event[1], event[2])
        else:
            session = self._sessions.get(event[1])
            if session is None or session.gone:
                return
            if event[0] == "open":
                session.negotiation.opened(event[2])
                self._signing_in.go_on(session)
            elif event[0] == "tls":
                session.negotiation.tls_started(self._plane.channel_bindings(session.sid))
            elif event[0] == "detached":
                self._management.detached(session, event[2], event[3])
                self._grew_quiet(session)
            elif event[0] == "unresumed":
                self._management.unresumed(session, event[2])
            else:
                self._leave_in_order(session)

    def _connected(self, sid: int, number: int, peer: str, port: int, secure: bool) -> None:
        listener = self._listeners[number]
        machine = Negotiation(
            self._policies,
            needs_tls=listener.needs_tls,
            tls=secure,
            bindings={},  # they come with the event that tells of TLS
            token=_token,
            sheltered=listener.sheltered,
        )
        session = self._sessions[sid] = Session(Connection(sid, listener.name, peer, port), machine)
        self._unbound[sid] = self._clock()
        if (refusal := self.admit(session)) is not None:
            self.end(session, refusal)

    def _closed(self, sid: int, reason: str) -> None:
        self.ending(sid)
        session = self._sessions.pop(sid, None)
        self._unbound.pop(sid, None)
        if session is None:
            self._management.closed(sid)
            return
        with log.session(f"xmpp-{sid}"):
            _log.debug("closed: %s", reason)
        if session.gone:
            self._management.closed(sid)
        else:
            self._leave_in_order(session)

    def _resumed(self, sid: int, by: int) -> None:
        session, connection = self._sessions.get(sid), self._sessions.pop(by, None)
        self._unbound.pop(by, None)
        if connection is not None:
            connection.gone = True
            if session is not None:
                self._management.resumed(session, connection)

    def _taken(self, session: Session, number: int) -> Custody | None:
        """The custody of what came with a number; 0 is for what nobody waits for."""
        if not number:
            return None
        session.undone += 1
        return Custody(partial(self._dealt_with, session, session.sid, number))

    def _dealt_with(self, session: Session, sid: int, number: int, kept: bool) -> None:
        session.undone -= 1
        if kept:
            self._plane.done(sid, number)
        elif session.sid == sid:
            self.end(session, stream_error("resource-constraint", "the server cannot store messages at the moment"))
        if not session.undone:
            self._grew_quiet(session)

    def _element(self, session: Session, element: Element, held: Custody | None) -> None:
        if not session.negotiation.bound:
            session.negotiation.stanza(element)
            self._signing_in.go_on(session)
        elif element.ns == ns.SM:
            self._management.element(session, element)
        elif session.busy:
            if len(session.inbox) >= self._max_pending:
                _log.warning("%s sent more than can be worked on; it is disconnected", session.jid)
                self.end(session, stream_error("policy-violation", "too many stanzas at once"))
            else:
                session.inbox.append((element, held))
        else:
            self._work(session, element, held)

    # --- sign-in ------------------------------------------------------------------------------------------------

    def _entered(self, session: Session) -> None:
        """The session has its address, and the client knows."""
        self._unbound.pop(session.sid, None)
        work = self._on_bound(session)
        if work is not None:
            self._begin(session, work, None, None)

    def _sweep(self) -> None:
        limit = self._clock() - self._bind_timeout
        for sid in [sid for sid, since in self._unbound.items() if since < limit]:
            session = self._sessions.get(sid)
            if session is None:
                del self._unbound[sid]
            elif session.negotiation.authenticated is not None:  # until then the plane's own clock runs
                del self._unbound[sid]
                self.end(session, stream_error("connection-timeout", "no resource was bound in time"))
        self.start()

    # --- stanzas ------------------------------------------------------------------------------------------------

    def _work(self, session: Session, element: Element, held: Custody | None) -> None:
        work: Awaitable[None] | None = None
        with working_on(held):
            try:
                work = self._router.stanza(session, element)
            except Exception as error:
                self._refuse(session, element, error)
            if work is not None:
                self._begin(session, work, element, held)
            elif held is not None:
                held.release()

    def _begin(self, session: Session, work: Awaitable[None], element: Element | None, held: Custody | None) -> None:
        session.busy = True
        self._plane.postpone(session.sid)
        self._spawn(self._work_off(session, work, element, held))

    async def _work_off(
        self, session: Session, work: Awaitable[None], element: Element | None, held: Custody | None
    ) -> None:
        """Finishes ``work``, then everything that came meanwhile."""
        waiting: Awaitable[None] | None = work
        while True:
            with working_on(held):
                try:
                    if waiting is None and element is not None:
                        waiting = self._router.stanza(session, element)
                    if waiting is not None:
                        await waiting
                except Exception as error:
                    self._refuse(session, element, error)
            if held is not None:
                held.release()
            if session.gone or not session.inbox:
                break
            waiting = None
            element, held = session.inbox.pop(0)
        session.busy = False
        self._plane.caught_up(session.sid)
        self._grew_quiet(session)
        if session.leaving and not session.gone:
            self.end(session, None)

    def _refuse(self, session: Session, stanza: Element | None, error: Exception) -> None:
        if isinstance(error, StanzaError):
            refusal = error
        elif isinstance(error, MoimError):
            _log.error("a stanza could not be handled: %s", error)
            refusal = StanzaError("internal-server-error", "the server cannot do this at the moment", kind="wait")
        else:
            _log.error("a stanza could not be handled", exc_info=error)
            refusal = StanzaError("internal-server-error")
        if stanza is not None:
            self._router.reply(stanza, refusal, session)

    # --- the end ------------------------------------------------------------------------------------------------

    def _leave_in_order(self, session: Session) -> None:
        """The client is done: what it sent before is worked off first."""
        session.leaving = True
        if not session.busy:
            self.end(session, None)

    def end(self, session: Session, error: Element | None) -> None:
        """Ends a session now: contacts see it leave, the address is free, and the connection closes."""
        if session.gone:
            return
        if session.node:
            self.elsewhere(session, error)
            return
        session.gone = True
        self._grew_quiet(session)
        session.inbox.clear()
        if session.account is not None:
            self._presence.gone(session)
            for hook in self._on_gone:
                hook(session)
            self._accounts.remove(session)
            self._plane.unbind(session.sid)
        self._plane.close(session.sid, error)
        if session.sid not in self._sessions:
            self._management.closed(session.sid)

    # --- between nodes ------------------------------------------------------------------------------------------

    async def quiet(self, session: Session) -> None:
        """Returns when the session has no connection and all that came of it is dealt with, or when it is gone."""
        while not session.gone and (session.busy or session.undone or not session.detached):
            await self._next_quiet(session)

    async def dealt_with(self, session: Session) -> None:
        """Returns when the messages that came of a session are dealt with, or when it is gone."""
        while not session.gone and session.undone:
            await self._next_quiet(session)

    async def _next_quiet(self, session: Session) -> None:
        waiting = self._quiet.setdefault(session, asyncio.get_running_loop().create_future())
        await asyncio.shield(waiting)

    def _grew_quiet(self, session: Session) -> None:
        waiting = self._quiet.pop(session, None)
        if waiting is not None:
            waiting.set_result(None)

    def take_in(self, session: Session) -> None:
        """A session of another node goes on here, without a connection yet."""
        session.negotiation = Negotiation.over(self._policies, session.full.bare)
        self._sessions[session.sid] = session

    def farewell(self, session: Session, element: Element, error: Element) -> None:
        """Sends a last element before the session ends."""
        self._plane.send(session.sid, [element])
        self.end(session, error)

    def end_account(self, bare: str, error: Element, *, spare: Collection[Session] = ()) -> None:
        """Ends every session of an account, bound or not yet, except those to ``spare``."""
        for session in tuple(self._sessions.values()):
            authenticated = session.negotiation.authenticated
            if authenticated is not None and str(authenticated) == bare and session not in spare:
                self.end(session, error)

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run(), name="chat:session")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
