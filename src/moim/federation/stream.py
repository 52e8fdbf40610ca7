"""One stream with another server: its machine, what the plane says about it, and what is known of it for the status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

from moim.errors import PeerError, PeerTimeout, PeerUnreachable
from moim.federation.plane import Event, ServerPlane
from moim.proto.xmpp import STANZAS, Element, ns, s2s, stream_error

_REPORTED = "the peer reported the stream error "
_PEER_IS_DONE = "the peer ended the stream"
Pair = tuple[str, str]
"""A local domain and a remote one."""


class Owner(Protocol):
    """Who decides about streams."""

    def judge(self, stream: Stream, domain: str) -> None:
        """The certificate is to be judged; answer by ``Stream.judged``."""
        ...

    def verify(self, stream: Stream, step: s2s.Verify) -> None:
        """A key is to be verified; answer by ``Stream.key_verified``."""
        ...

    def verified(self, step: s2s.Verified) -> None:
        """The authoritative server answered."""
        ...

    def opened(self, stream: Stream, pair: Pair) -> None:
        """Stanzas may go out, for this pair, from now on."""
        ...

    def refused(self, stream: Stream, step: s2s.Refused) -> None:
        """Something was refused; the stream goes on."""
        ...

    def stanza(self, stream: Stream, stanza: Element, over: Callable[[bool], None] | None) -> None:
        """A stanza of an open pair came in; ``over`` hears when a message is dealt with, or cannot be kept."""
        ...

    def carried(self, stream: Stream, received: int, sent: int) -> None:
        """So many messages went through the plane alone."""
        ...

    def ended(self, stream: Stream) -> None:
        """The connection is over; ``stream.reason`` says why."""
        ...


class StreamFailed(PeerUnreachable):
    """A stream came to an end before it was open. ``final``: other addresses of the domain would say the same.

    ``condition`` is the protocol's word for it, the peer's own where it had one.
    """

    def __init__(self, message: str, *, final: bool = False, condition: str = "") -> None:
        super().__init__(message)
        self.final = final
        self.condition = condition


class Stream:
    """A stream in either direction. ``since`` and the times of traffic are on the clock of ``moment``."""

    def __init__(
        self,
        sid: int,
        machine: s2s.Incoming | s2s.Outgoing,
        plane: ServerPlane,
        owner: Owner,
        *,
        address: str,
        port: int,
        secure: bool,
        moment: float,
        host: str = "",
    ) -> None:
        self.sid = sid
        self.machine = machine
        self.address, self.port, self.host = address, port, host
        self.secure = secure
        self.since = self.last_in = self.last_out = moment
        self.tls: dict[str, Any] = {}
        self.chain: tuple[bytes, ...] = ()
        self.sends: dict[Pair, s2s.How] = {}
        self.takes: dict[Pair, s2s.How] = {}
        self.asked_at: float | None = None
        """When it was pinged and has not answered since."""
        self.reason = ""
        self.condition = ""
        self.doubts = ""
        """Why its certificate proves nothing."""
        self.proven_until: datetime | None = None
        """When the first of the certificates ends that opened a pair."""
        self._ends: dict[str, datetime | None] = {}
        self.final = False
        self.over = False
        self._closing = False
        self._told: list[tuple[Pair, s2s.How]] = []
        self.undelivered: list[Element] = []
        self.gone = asyncio.Event()
        self.settled = asyncio.Event()
        """Set when an outgoing stream is open, for whatever it is for, or over."""
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for future in (self.connected, self.ready):
            future.add_done_callback(_seen)
        self._plane = plane
        self._owner = owner
        self._wants_start = False
        self._undone = 0
        self._peer_is_done = False

    @property
    def incoming(self) -> bool:
        """Whether the other server opened it."""
        return isinstance(self.machine, s2s.Incoming)

    @property
    def remote(self) -> str:
        """The remote domain as far as it is known, proven or not."""
        for pairs in (self.takes, self.sends):
            for pair in pairs:
                return pair[1]
        return self.machine.remote

    @property
    def remotes(self) -> set[str]:
        """All remote domains that it is for, proven or not."""
        return {remote for _, remote in (*self.takes, *self.sends)} | ({self.machine.remote} - {""})

    @property
    def usable(self) -> bool:
        """Whether what is sent on it still goes out."""
        return not self.over and not self._closing

    def start(self) -> None:
        """Begins the negotiation of an outgoing stream whose connection is up."""
        self._wants_start = True
        if isinstance(self.machine, s2s.Outgoing) and (not self.secure or self.tls):
            self._wants_start = False
            self.machine.start()
            self.carry_out()

    def event(self, event: Event, moment: float) -> None:
        """Takes what the plane says about this stream."""
        kind = event[0]
        if kind == "stanza":
            self.last_in, self.asked_at = moment, None
            self._element(event[2], event[3])
        elif kind == "connected":
            if not self.connected.done():
                self.connected.set_result(None)
        elif kind == "tls":
            info = dict(event[2])
            self.chain = tuple(info.pop("chain", ()))
            self.tls, self.secure = info, True
            if self._wants_start:
                self.start()
            self.machine.tls_started()
        elif kind == "open":
            self.machine.opened(event[2])
        elif kind == "carried":
            self._carried(event[2], event[3], moment)
        elif kind == "undelivered":
            self.undelivered.extend(event[2])
        elif kind == "close":
            # Its last messages are acknowledged first (XEP-0198 section 4); the plane does not wait for ever.
            self._closing = self._peer_is_done = True
            if not self._undone:
                self.close(_PEER_IS_DONE)
        elif kind == "closed":
            self._closed(event[2])
            return
        self.carry_out()

    def _element(self, element: Element, number: int) -> None:
        if element.ns == ns.CLIENT and element.name in STANZAS and self.takes:
            self._undone += number > 0
            self._owner.stanza(self, element, partial(self._dealt_with, number) if number else None)
        else:
            self.machine.element(element)

    def _dealt_with(self, number: int, kept: bool) -> None:
        self._undone -= 1
        if kept:
            self._plane.done(self.sid, number)
        else:
            self.close("messages cannot be stored", stream_error("resource-constraint", "messages cannot be stored"))
        if self._peer_is_done and not self._undone:
            self.close(_PEER_IS_DONE)

    def tick(self, moment: float) -> None:
        """Lets the machine's time run."""
        deadline = self.machine.deadline()
        if deadline is not None and moment >= deadline:
            self.machine.tick(moment)
            self.carry_out()

    def judged(self, domain: str, proof: s2s.Proof | None, reason: str, until: datetime | None = None) -> None:
        """What the owner was asked to judge; ``until``: how long the proof holds."""
        self._ends[domain] = until
        self.machine.judged(domain, proof, reason)
        self.carry_out()

    def key_verified(self, step: s2s.Verify, outcome: str, text: str) -> None:
        """What the owner was asked to verify."""
        if isinstance(self.machine, s2s.Incoming):
            self.machine.verified(step.local, step.remote, outcome, text)
            self.carry_out()

    def put_key(self, step: s2s.Verify) -> bool:
        """Puts a key to the peer. False when this stream cannot."""
        if not self.usable or not isinstance(self.machine, s2s.Outgoing):
            return False
        taken = self.machine.verify(local=step.local, remote=step.remote, stream_id=step.stream_id, key=step.key)
        self.carry_out()
        return taken

    def send(self, stanzas: Sequence[Element], moment: float) -> None:
        """Sends stanzas of an open pair."""
        self.last_out = moment
        self._plane.send(self.sid, stanzas)

    def route(self, pair: Pair) -> None:
        """What waited has gone out: messages of sessions need not come through here from now on."""
        self._plane.route(self.sid, *pair)

    def _carried(self, received: int, sent: int, moment: float) -> None:
        if received:
            self.last_in, self.asked_at = moment, None
        if sent:
            self.last_out = moment
        self._owner.carried(self, received, sent)

    def close(self, reason: str, error: Element | None = None) -> None:
        """Ends the stream."""
        self._closing = True
        self._note(reason)
        self._plane.close(self.sid, error)

    def carry_out(self) -> None:
        """Does what the machine wants done."""
        while not self.over and (step := self.machine.next_output()) is not None:
            self._step(step)
        # Only now does the peer know: what the machine said of these pairs has been sent.
        told, self._told = self._told, []
        for pair, how in told:
            self._may_send(pair, how)
        if isinstance(self.machine, s2s.Outgoing) and self.machine.stage == "open":
            self.settled.set()

    def _step(self, step: s2s.Step) -> None:
        match step:
            case s2s.OpenStream(attrs):
                self._plane.open_stream(self.sid, attrs)
            case s2s.Send(elements):
                self._plane.send(self.sid, elements)
            case s2s.StartTls():
                self._plane.start_tls(self.sid)
            case s2s.Restart(success):
                if success is not None:
                    self._plane.send(self.sid, [success])
                self._plane.restart(self.sid)
            case s2s.Judge(domain):
                self._owner.judge(self, domain)
            case s2s.Verify():
                self._owner.verify(self, step)
            case s2s.Verified():
                self._owner.verified(step)
            case s2s.Refused():
                self._owner.refused(self, step)
            case s2s.Count():
                self._plane.count(self.sid)
            case s2s.Paired(local, remote, how, both):
                if how != "dialback":
                    self._holds_until(remote)
                self.takes[local, remote] = how
                self._plane.pair(self.sid, local, remote)
                if both:
                    self._told.append(((local, remote), how))
            case s2s.Ready(local, remote, how, both):
                self._holds_until(remote)
                if both:
                    self.takes[local, remote] = how
                    self._plane.pair(self.sid, local, remote)
                self._plane.authenticated(self.sid, remote)  # and only now does the plane read what came behind
                self._may_send((local, remote), how)
            case s2s.Close(error, reason, condition, final):
                self.condition, self.final = condition, final
                self.close(reason, error)

    def _holds_until(self, remote: str) -> None:
        if (until := self._ends.get(remote)) is not None:
            self.proven_until = min(until, self.proven_until or until)

    def _may_send(self, pair: Pair, how: s2s.How) -> None:
        self.sends[pair] = how
        if not self.ready.done():
            self.ready.set_result(None)
        self._owner.opened(self, pair)

    def _note(self, reason: str) -> None:
        self.reason = self.reason or reason

    def _closed(self, reason: str) -> None:
        if self.over:
            return
        reason = reason.partition(" (os error ")[0]
        if not self.condition and not self.reason and reason.startswith(_REPORTED):
            self.condition = reason.removeprefix(_REPORTED).partition(":")[0]
            self.final = s2s.is_final(self.condition)
        self._note(reason)
        self.over = True
        failed = self.failure()
        for future in (self.connected, self.ready):
            if not future.done():
                future.set_exception(failed)
        self.gone.set()
        self.settled.set()
        self._owner.ended(self)

    def failure(self) -> PeerError:
        """Why it ended, as an error."""
        where = f"{self.host or self.address}:{self.port}"
        if self.condition == "connection-timeout":
            return PeerTimeout(f"{where}: {self.reason}")
        refused = self.machine.refused if isinstance(self.machine, s2s.Outgoing) else ""
        return StreamFailed(f"{where}: {self.reason}", final=self.final, condition=refused or self.condition)


def _seen(future: asyncio.Future[None]) -> None:
    """A failure that nobody waits for is no news to the event loop."""
    if not future.cancelled():
        future.exception()
