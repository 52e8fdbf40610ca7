"""Carries out what the negotiation wants: looks accounts up, holds back who guesses, and gives resources.

What is known already is answered at once; only what has to be waited for becomes a task.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moim import log
from moim.chat import negotiation as steps
from moim.chat import sasl2
from moim.chat.accounts import Accounts, Session
from moim.chat.feature import Feature, hooks
from moim.chat.inline import Inline, Resumed
from moim.chat.plane import Plane
from moim.chat.stream_management import failed
from moim.chat.throttle import AuthThrottle
from moim.chat.verifiers import Verifiers
from moim.errors import LimitExceeded, MoimError, ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, prepare_resource, sasl, stream_error
from moim.proto.xmpp.scram import Outcome

_OLD = (
    "old programs do this (slixmpp 1.8): a newer version signs in, or chat.channel_binding = false lets all old ones in"
)
_HINTS = {
    Outcome.UNKNOWN_BINDING.value: f"; {_OLD}",
    Outcome.DOWNGRADE.value: f", by somebody in between, unless it tried them in vain just before; {_OLD}",
}
_PATIENCE = 1.0  # seconds that a sign-in waits for what it could also ask for later

_log = logging.getLogger("moim.chat.sessions")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a token: ``reply`` proves the server and is None when the token does not fit.

    ``expired``: it fits, and its time is over. ``renew``: the client should get a new one.
    """

    reply: bytes | None
    expired: bool = False
    renew: bool = False


class Tokens(Protocol):
    """Tokens for the next sign-in (XEP-0484). ``owner`` is a bare JID, ``client`` names the program for good."""

    async def check(self, owner: str, client: str, need: sasl.NeedToken, use: sasl2.Fast) -> Checked:
        """Whether the proof was made with a token of this account and client."""
        ...

    async def issue(self, owner: str, client: str, mechanism: str) -> Element | None:
        """A new token for the client; None when the account cannot have one."""
        ...


Strangers = Callable[[Element, str, str], Awaitable[Element]]
"""Answers a registration request (XEP-0077) of somebody who has not signed in: to a domain, from an IP address."""


class SigningIn:
    """Every connection until stanzas may flow.

    ``end`` ends a session, ``entered`` is told of one that got its address, ``spawn`` runs work of a session.
    ``max_per_account`` gives the sessions that an account (bare JID) may have, ``secret`` is what lasting resources
    are derived from.
    """

    def __init__(
        self,
        *,
        plane: Plane,
        accounts: Accounts,
        verifiers: Verifiers,
        throttle: AuthThrottle,
        tokens: Tokens | None,
        strangers: Strangers | None,
        features: Sequence[Feature],
        max_per_account: Callable[[str], int],
        secret: bytes,
        end: Callable[[Session, Element | None], None],
        entered: Callable[[Session], None],
        spawn: Callable[[Awaitable[None]], None],
        token: Callable[[], str],
        clock: Callable[[], float],
    ) -> None:
        self._plane = plane
        self._accounts = accounts
        self._verifiers = verifiers
        self._throttle = throttle
        self._tokens = tokens
        self._strangers = strangers
        self._on_bind = hooks(features, lambda feature: feature.on_bind)
        self._in_bound = hooks(features, lambda feature: feature.in_bound)
        self._resume = next(iter(hooks(features, lambda feature: feature.resume)), None)
        self._inline: dict[tuple[str, str], Inline] = {
            key: inline for feature in features for inline in feature.inline for key in inline.requests
        }
        self._max_per_account = max_per_account
        self._secret = secret
        self._end = end
        self._entered = entered
        self._spawn = spawn
        self._token = token
        self._clock = clock

    def go_on(self, session: Session) -> None:
        """Does what the session's negotiation wants done by now."""
        negotiation = session.negotiation
        while not session.gone and (step := negotiation.next_output()) is not None:
            self._step(session, step)

    def _step(self, session: Session, step: steps.Output) -> None:
        sid = session.connection.sid
        if isinstance(step, steps.Send):
            self._plane.send(sid, step.elements)
        elif isinstance(step, steps.OpenStream):
            self._plane.open_stream(sid, step.attrs)
        elif isinstance(step, steps.Lookup):
            self._look_up(session, step)
        elif isinstance(step, steps.Authenticated):
            self._welcome(session, step.jid, step.mechanism)
            self._plane.authenticated(sid, str(step.jid), step.success, step.header, step.features)
        elif isinstance(step, steps.ResumeRequest):
            self._spawn(self._go_back(session, step))
        elif isinstance(step, steps.BindRequest):
            self._bind(session, step)
        elif isinstance(step, steps.Proven):
            self._proven(session, step)
        elif isinstance(step, steps.StartTls):
            self._plane.start_tls(sid)
        elif isinstance(step, steps.Registration):
            self._spawn(self._register(session, step.iq))
        else:
            with log.session(f"xmpp-{sid}"):
                self._refused(session, step)

    def _refused(self, session: Session, step: steps.Rejected | steps.Close) -> None:
        peer = session.connection.peer
        if isinstance(step, steps.Rejected):
            who = f"{step.local}@{session.negotiation.domain}" if step.local else "somebody"
            reason = step.reason + _HINTS.get(step.reason, "")
            _log.warning("sign-in of %s from %s refused (%s): %s", who, peer, step.mechanism or "-", reason)
            return
        if step.error is not None:
            _log.info("connection from %s refused: %s", peer, step.reason)
        self._end(session, step.error)

    # --- who it is ----------------------------------------------------------------------------------------------

    def _look_up(self, session: Session, step: steps.Lookup) -> None:
        need, now, peer = step.need, self._clock(), session.connection.peer
        account = f"{need.local}@{session.negotiation.domain}"
        wait = self._throttle.wait(peer, account, now)
        if wait > 0:
            seconds = max(round(wait), 1)
            session.negotiation.refuse(
                need.local,
                f"too many failed attempts; {peer} has to wait {seconds} s",
                f"too many failed attempts: try again in {seconds} seconds",
            )
            return
        self._throttle.attempt(peer, account, now)
        if isinstance(need, sasl.NeedVerifier):
            known = self._verifiers.known(account, need.mechanism)
            if known is not None:
                session.negotiation.verifier(known)
                return
        self._spawn(self._look_up_now(session, step, account))

    async def _look_up_now(self, session: Session, step: steps.Lookup, account: str) -> None:
        need, negotiation = step.need, session.negotiation
        try:
            if isinstance(need, sasl.NeedVerifier):
                negotiation.verifier(await self._verifiers.verifier(account, need.mechanism))
            elif isinstance(need, sasl.NeedPassword):
                right = await self._verifiers.check(account, need.password, session.connection.peer)
                negotiation.password_checked(right)
            else:
                await self._check_token(session, need, step.request, account)
        except LimitExceeded as error:
            # The directory counts more than this room sees: passwords that were tried elsewhere.
            negotiation.refuse(need.local, f"the directory wants a pause: {error}", str(error))
        except Exception as error:
            expected = isinstance(error, MoimError)
            with log.session(f"xmpp-{session.sid}"):
                _log.error("the directory did not answer a sign-in: %s", error, exc_info=not expected)
            negotiation.refuse(need.local, "the directory did not answer")
        self.go_on(session)

    async def _check_token(
        self, session: Session, need: sasl.NeedToken, request: sasl2.Request | None, account: str
    ) -> None:
        if self._tokens is None or request is None or request.fast is None:
            session.negotiation.token_checked(None)
            return
        checked = await self._tokens.check(account, request.client, need, request.fast)
        session.token_due = checked.renew
        session.negotiation.token_checked(checked.reply, expired=checked.expired)

    def _welcome(self, session: Session, jid: Jid, mechanism: str) -> None:
        peer = session.connection.peer
        self._throttle.succeeded(peer, str(jid), self._clock())
        if _log.isEnabledFor(logging.INFO):
            with log.session(f"xmpp-{session.sid}"):
                _log.info("%s signed in from %s (%s, %s)", jid, peer, session.connection.name, mechanism)

    async def _register(self, session: Session, iq: Element) -> None:
        if self._strangers is not None and not session.gone:
            answer = await self._strangers(iq, session.negotiation.domain, session.connection.peer)
            self._plane.send(session.sid, [answer])

    # --- the older way to a resource ----------------------------------------------------------------------------

    def _bind(self, session: Session, request: steps.BindRequest) -> None:
        jid = request.jid.with_resource(request.resource)
        if not self._claim(session, jid):
            refusal = StanzaError("resource-constraint", "the account has too many sessions")
            session.negotiation.bind_refused(refusal)
            return
        self._plane.send(session.sid, [session.negotiation.bind_result(jid)])
        self._entered(session)

    def _claim(self, session: Session, jid: Jid) -> bool:
        """Gives the full ``jid`` to the session, and ends an older one that has it. False: there are too many."""
        old = self._accounts.session(jid)
        if old is not None:
            with log.session(f"xmpp-{session.sid}"):
                _log.info("%s is bound anew; the older connection ends", jid)
            self._end(old, stream_error("conflict", "the resource was bound by a newer connection"))
        account, most = self._accounts.get(str(jid.bare)), self._max_per_account(str(jid.bare))
        if account is not None and len(account.sessions) >= most:
            # Whoever lost many connections and never came back must not be locked out by what waits for them.
            waiting = next((other for other in account.sessions.values() if other.detached), None)
            if waiting is not None:
                self._end(waiting, None)
                account = self._accounts.get(str(jid.bare))
        if account is not None and len(account.sessions) >= most:
            with log.session(f"xmpp-{session.sid}"):
                _log.warning("%s has %d sessions already, so another is refused", jid.bare, len(account.sessions))
            return False
        self._accounts.add(session, jid)
        for hook in self._on_bind:
            hook(session)
        self._plane.bind(session.sid, str(jid))
        return True

    async def _go_back(self, session: Session, step: steps.ResumeRequest) -> None:
        """The older way to an older session."""
        if self._resume is None or step.element.name != "resume":
            self._plane.send(session.sid, [failed("unexpected-request")])
            return
        resumed = await self._resume(session, step.jid, step.element)
        if session.gone:
            return
        if resumed.then is not None:
            resumed.then(())
        elif resumed.element is not None:
            self._plane.send(session.sid, [resumed.element])

    # --- all at once (XEP-0388) ---------------------------------------------------------------------------------

    def _proven(self, session: Session, step: steps.Proven) -> None:
        self._welcome(session, step.jid, step.mechanism)
        request = step.request
        session.client = request.client
        resumes = self._resume is not None and request.resume is not None
        due = self._token_due(session, request)
        if resumes or due or (self._in_bound and request.bind is not None):
            self._spawn(self._finish_later(session, step, due))
        else:
            self._finish(session, step, None, [], None)

    def _token_due(self, session: Session, request: sasl2.Request) -> str:
        """The mechanism of the token that the client is to get; empty when it gets none."""
        if self._tokens is None or not request.client:
            return ""
        if request.wants_token:
            return request.wants_token
        return request.mechanism if session.token_due else ""

    async def _finish_later(self, session: Session, step: steps.Proven, token_due: str) -> None:
        request, resumed, token = step.request, None, None
        told: list[Element] = []
        try:
            if self._resume is not None and request.resume is not None:
                resumed = await self._resume(session, step.jid, request.resume)
            if request.bind is not None and (resumed is None or resumed.jid is None):
                told = await self._told(session, str(step.jid))
            if self._tokens is not None and token_due:
                token = await self._tokens.issue(str(step.jid), request.client, token_due)
        except Exception as error:
            expected = isinstance(error, MoimError)
            with log.session(f"xmpp-{session.sid}"):
                _log.error("the sign-in of %s cannot be finished: %s", step.jid, error, exc_info=not expected)
            self._end(session, stream_error("internal-server-error", "the server cannot do this at the moment"))
            return
        if not session.gone:
            self._finish(session, step, resumed, told, token)

    async def _told(self, session: Session, bare: str) -> list[Element]:
        """What is told of the account; what cannot be found out now is left out."""
        told = []
        for tell in self._in_bound:
            task = asyncio.ensure_future(tell(bare))
            await asyncio.wait((task,), timeout=_PATIENCE)
            if not task.done():
                task.add_done_callback(lambda late: late.cancelled() or late.exception())
                continue
            try:
                element = task.result()
            except MoimError as error:
                with log.session(f"xmpp-{session.sid}"):
                    _log.error("%s signs in and is not told everything: %s", bare, error)
                continue
            if element is not None:
                told.append(element)
        return told

    def _finish(
        self,
        session: Session,
        step: steps.Proven,
        resumed: Resumed | None,
        told: Sequence[Element],
        token: Element | None,
    ) -> None:
        sid, wish, extra = session.sid, step.request.bind, []
        full = resumed.jid if resumed is not None else None
        self._plane.signed_in(sid, str(step.jid))
        if resumed is not None and resumed.element is not None:
            extra.append(resumed.element)
        binds = full is None and wish is not None
        if binds and wish is not None:
            full = step.jid.with_resource(self._resource(step.jid, wish.tag, session.client))
            self._end_others(session, step.jid)
            if not self._claim(session, full):
                self._end(session, stream_error("resource-constraint", "the account has too many sessions"))
                return
            extra.append(sasl2.bound([*told, *self._switch_on(session, wish.inline)]))
        if token is not None:
            extra.append(token)
        answer = session.negotiation.finish(full, extra)
        if resumed is not None and resumed.then is not None:
            resumed.then(answer[:1])  # without stream features (XEP-0198 section 9.2)
        else:
            self._plane.send(sid, answer)
        if binds:
            self._entered(session)

    def _switch_on(self, session: Session, wishes: Sequence[Element]) -> list[Element]:
        """What the features answer that the client asked for while binding; what is not known is passed over."""
        answers = []
        for wish in wishes:
            inline = self._inline.get((wish.ns, wish.name))
            if inline is not None and (answer := inline.enable(session, wish)) is not None:
                answers.append(answer)
        return answers

    def _end_others(self, session: Session, bare: Jid) -> None:
        """The program signed in anew, so its earlier sessions are over, whether they know or not (XEP-0386 3.2)."""
        account = self._accounts.get(str(bare))
        if account is None or not session.client:
            return
        for other in tuple(account.sessions.values()):
            if other.client == session.client and other is not session:
                self._end(other, stream_error("conflict", "the same program signed in again"))

    def _resource(self, bare: Jid, tag: str, client: str) -> str:
        """A resource that stays the same for the same program, and tells nothing about it besides its own ``tag``."""
        if client:
            seed = "\0".join((str(bare), client, tag)).encode()
            own = base64.urlsafe_b64encode(hmac.digest(self._secret, b"resource\0" + seed, "sha256")[:9]).decode()
        else:
            own = self._token()
        try:
            return prepare_resource(f"{tag[:128]}/{own}") if tag else own
        except ProtocolError:
            return own
