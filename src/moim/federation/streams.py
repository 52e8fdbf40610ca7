"""Every stream with another server on this node: accepts and dials them, judges, pings, and closes what is idle.

The plane has checked that a stanza's addresses are those of an open pair; here it is checked once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from moim.errors import LimitExceeded, ProtocolError
from moim.federation.chains import Role
from moim.federation.locating import Endpoint
from moim.federation.plane import Event, ServerPlane
from moim.federation.policies import Policies
from moim.federation.proofs import Proofs
from moim.federation.settings import Settings
from moim.federation.stream import Pair, Stream
from moim.proto.xmpp import Element, Jid, ns, s2s, stream_error

_SWEEP_SECONDS = 1.0
_GOODBYE_SECONDS = 0.5
_PING = "moim-alive-"

_log = logging.getLogger("moim.federation.streams")


class Events(Protocol):
    """Who hears what happens to streams."""

    def stanza(self, stanza: Element, over: Callable[[bool], None] | None) -> None:
        """A stanza of another domain; ``over`` hears when a message is dealt with, or cannot be kept."""
        ...

    def opened(self, stream: Stream, pair: Pair) -> None:
        """Stanzas of a pair may go out."""
        ...

    def carried(self, domain: str, received: int, sent: int) -> None:
        """So many messages went between a domain and local sessions through the plane alone."""
        ...

    def late(self, stanzas: Sequence[Element]) -> None:
        """Stanzas came to a stream that was over already."""
        ...

    def ended(self, stream: Stream) -> None:
        """A stream is over."""
        ...

    def note(self, domain: str, text: str) -> None:
        """Something went wrong with a domain."""
        ...

    async def call_back(self, step: s2s.Verify, address: str) -> tuple[str, str]:
        """A key is to be verified."""
        ...

    def called_back(self, step: s2s.Verified) -> None:
        """A key was verified."""
        ...


class Streams:
    """``hosts`` are the domains served here, the first for peers that name none; ``today`` tells what has ended."""

    def __init__(
        self,
        plane: ServerPlane,
        settings: Settings,
        policies: Policies,
        proofs: Proofs,
        keys: s2s.Keys,
        hosts: Collection[str],
        events: Events,
        *,
        clock: Callable[[], float],
        today: Callable[[], datetime],
    ) -> None:
        self._plane = plane
        self._settings = settings
        self._policies = policies
        self._proofs = proofs
        self._keys = keys
        self._hosts = hosts
        self._events = events
        self._clock = clock
        self._today = today
        self._streams: dict[int, Stream] = {}
        self._per_address: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False

    def __iter__(self) -> Iterator[Stream]:
        return iter(tuple(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def start(self) -> None:
        """Takes events from now on."""
        self._plane.attach(self.handle)
        self._sweep()

    async def stop(self) -> None:
        """Closes every stream, and waits a moment for what they give back."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for stream in self:
            stream.close("this server is stopping", stream_error("system-shutdown"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                for stream in self:
                    await stream.gone.wait()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the plane's events -------------------------------------------------------------------------------------

    def handle(self, batch: Sequence[Event]) -> None:
        """One batch of the plane's events."""
        for event in batch:
            sid = event[1]
            try:
                stream = self._streams.get(sid)
                if stream is None and event[0] == "connected":
                    self._accept(*event[1:])
                elif stream is not None:
                    stream.event(event, self._clock())
                elif event[0] == "undelivered":
                    self._events.late(event[2])
            except Exception:
                _log.exception("the event '%s' of stream %d could not be handled, so it is closed", event[0], sid)
                self._plane.close(sid, stream_error("internal-server-error"))

    def _accept(self, sid: int, number: int, address: str, port: int, secure: bool) -> None:
        if number == 0 or self._closing:
            self._plane.close(sid)  # an attempt of ours that nobody waits for any more
            return
        if len(self._streams) >= self._settings.max_streams:
            self._refuse(sid, address, "too many streams are open")
            return
        if self._per_address[address] >= self._settings.max_streams_per_address:
            self._refuse(sid, address, "this address has too many streams open")
            return
        self._per_address[address] += 1
        machine = s2s.Incoming(
            lambda: self._hosts,
            lambda domain: self._policies.of(domain).rules,
            self._keys,
            now=self._clock(),
            secure=secure,
            token=lambda: secrets.token_urlsafe(15),
            timeout=2 * self._settings.handshake_seconds,
        )
        self._streams[sid] = Stream(
            sid, machine, self._plane, self, address=address, port=port, secure=secure, moment=self._clock()
        )

    def _refuse(self, sid: int, address: str, text: str) -> None:
        _log.warning("a stream from %s is refused: %s", address, text)
        self._plane.close(sid, stream_error("resource-constraint", text))

    def dial(self, endpoint: Endpoint, machine: s2s.Outgoing) -> Stream:
        """Begins to connect to one address. Raises LimitExceeded when too many streams are open."""
        if len(self._streams) >= self._settings.max_streams or self._closing:
            raise LimitExceeded("too many streams with other servers are open")
        sid = self._plane.connect(
            endpoint.address,
            endpoint.port,
            tls=endpoint.direct,
            server_name=_ascii(machine.remote),
            local="" if machine.anonymous else machine.local,
            timeout=self._settings.connect_seconds,
        )
        stream = Stream(
            sid,
            machine,
            self._plane,
            self,
            address=endpoint.address,
            port=endpoint.port,
            secure=endpoint.direct,
            moment=self._clock(),
            host=endpoint.host,
        )
        self._streams[sid] = stream
        return stream

    # --- what streams ask ---------------------------------------------------------------------------------------

    def judge(self, stream: Stream, domain: str) -> None:
        """See ``Owner``."""

        async def work() -> None:
            policy = self._policies.of(domain)
            role: Role = "client" if stream.incoming else "server"
            try:
                found = await self._proofs.judge(domain, stream.chain, role, policy)
            except Exception:
                _log.exception("the certificate of %s could not be judged", domain)
                stream.judged(domain, None, "it could not be judged")
                return
            if found.proof is None and policy.certificates != "off":
                stream.doubts = found.reason
            stream.judged(domain, found.proof, found.reason, found.until)

        self._spawn(work())

    def verify(self, stream: Stream, step: s2s.Verify) -> None:
        """See ``Owner``."""

        async def work() -> None:
            try:
                outcome, text = await self._events.call_back(step, stream.address)
            except Exception:
                _log.exception("the key of %s could not be verified", step.remote)
                outcome, text = "internal-server-error", ""
            stream.key_verified(step, outcome, text)

        self._spawn(work())

    def verified(self, step: s2s.Verified) -> None:
        """See ``Owner``."""
        self._events.called_back(step)

    def opened(self, stream: Stream, pair: Pair) -> None:
        """See ``Owner``."""
        self._events.opened(stream, pair)

    def refused(self, stream: Stream, step: s2s.Refused) -> None:
        """See ``Owner``."""
        _log.warning("stream with %s (%s): %s", step.remote or "nobody yet", stream.address, step.reason)
        if stream.remote == step.remote and step.remote and not stream.incoming:
            self._events.note(step.remote, step.reason)

    def stanza(self, stream: Stream, stanza: Element, over: Callable[[bool], None] | None) -> None:
        """See ``Owner``."""
        try:
            sender, to = Jid.parse(stanza.get("from") or ""), Jid.parse(stanza.get("to") or "")
        except ProtocolError as error:
            stream.close(error.message, stream_error("improper-addressing", error.message))
            return
        if (to.domain, sender.domain) not in stream.takes:
            stream.close("a stanza of no open pair", stream_error("invalid-from"))
            return
        if not to.local and not to.resource and _answers_ping(stanza):
            self._alive(sender.domain)
        else:
            self._events.stanza(stanza, over)

    def _alive(self, remote: str) -> None:
        for stream in self:
            if stream.asked_at is not None and any(pair[1] == remote for pair in stream.sends):
                stream.asked_at = None

    def carried(self, stream: Stream, received: int, sent: int) -> None:
        """See ``Owner``."""
        self._events.carried(stream.remote, received, sent)

    def ended(self, stream: Stream) -> None:
        """See ``Owner``."""
        self._streams.pop(stream.sid, None)
        if stream.incoming:
            self._per_address[stream.address] -= 1
            if self._per_address[stream.address] <= 0:
                del self._per_address[stream.address]
        remote = stream.remote
        _log.info("stream with %s (%s) ended: %s", remote or "nobody", stream.address, stream.reason)
        stranger = stream.incoming and not stream.sends and not stream.takes
        if stranger and remote and stream.condition:
            what = "gave up" if stream.reason.startswith("the peer ") else "was refused"
            self._events.note(remote, f"{stream.address}, which said to be {remote}, {what}: {stream.reason}")
        self._events.ended(stream)

    # --- time ---------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        now = self._clock()
        for stream in self:
            try:
                self._look_at(stream, now)
            except Exception:
                _log.exception("stream %d could not be looked at", stream.sid)
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _look_at(self, stream: Stream, now: float) -> None:
        stream.tick(now)
        if not stream.usable or not (stream.sends or stream.takes):
            return
        if stream.proven_until is not None and self._today() > stream.proven_until:
            self._reset(stream, f"the certificate that {stream.remote} showed has ended")
            return
        quiet = now - max(stream.last_in if stream.takes else 0.0, stream.last_out if stream.sends else 0.0)
        if quiet >= self._settings.idle_seconds:
            stream.close("nothing was said for a while")
        elif stream.asked_at is not None:
            if now - stream.asked_at >= self._settings.ping_seconds:
                stream.close("it did not answer", stream_error("connection-timeout"))
        elif self._wants_ping(stream, now):
            self._ping(stream, now)

    def _reset(self, stream: Stream, reason: str) -> None:
        """Ends a stream whose peer has to prove itself anew (RFC 6120 section 13.7.2); what waits goes by the next."""
        self._events.note(stream.remote, reason)
        stream.close(reason, stream_error("reset", reason))

    def _wants_ping(self, stream: Stream, now: float) -> bool:
        """Whether something was sent and nothing came since, on a stream whose answers would reach us.

        On a stream of one direction the answer comes by another stream; without one, silence means nothing.
        """
        if not stream.sends or now - stream.last_in < self._settings.ping_seconds or stream.last_out <= stream.last_in:
            return False
        pairs = set(stream.sends)
        return any(not pairs.isdisjoint(other.takes) for other in self)

    def _ping(self, stream: Stream, now: float) -> None:
        local, remote = next(iter(stream.sends))
        attrs = {"from": local, "to": remote, "type": "get", "id": f"{_PING}{secrets.token_hex(8)}"}
        stream.asked_at = now
        # Not through Stream.send: a ping is no traffic that keeps a stream from being idle.
        self._plane.send(stream.sid, [Element("iq", ns.CLIENT, attrs, (Element("ping", ns.PING),))])

    def close_all(self, matches: Callable[[str], bool], reason: str) -> int:
        """Ends the streams with the domains that ``matches`` picks; how many."""
        found = [stream for stream in self if any(matches(remote) for remote in stream.remotes)]
        for stream in found:
            if not stream.incoming:
                stream.condition = stream.condition or "reset"  # who is opening it may try once more
            stream.close(reason, stream_error("reset", reason))
        return len(found)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="federation:stream")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _answers_ping(stanza: Element) -> bool:
    asked = (stanza.get("id") or "").startswith(_PING)
    return asked and stanza.name == "iq" and stanza.get("type") in ("result", "error")


def _ascii(domain: str) -> str:
    """A domain as TLS names it; addresses stay as they are."""
    try:
        return domain.strip("[]").encode("idna").decode("ascii")
    except UnicodeError:
        return domain
