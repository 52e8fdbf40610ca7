"""The other domains: what goes out to each and by which stream, what waits, when to try again, and what went wrong.

Order is kept within a pair of domains. Only one stream is opened for a pair at a time; while a domain is left alone
after a failure, what is sent to it comes back at once with the reason.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from moim.errors import LimitExceeded, MoimError, NotFound, PeerError
from moim.federation.connecting import Connector
from moim.federation.outbox import Outbox, Release, returned
from moim.federation.policies import Policies
from moim.federation.stream import Pair, Stream, StreamFailed
from moim.proto.xmpp import Element, Jid

_MAX_PEERS = 20_000
_REROUTE_SECONDS = 30.0

_log = logging.getLogger("moim.federation")


@dataclass(eq=False, slots=True)
class Peer:
    """What is known of one remote domain. Times are the clock's."""

    domain: str
    streams: dict[Pair, Stream] = field(default_factory=dict)
    """Where stanzas go out, by pair."""
    opening: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """By local domain."""
    retry_at: float = 0.0
    broke_at: dict[str, float] = field(default_factory=dict)
    """When a stream last ended with stanzas that it did not carry, by local domain."""
    awaited_until: dict[str, float] = field(default_factory=dict)
    """Until when such stanzas wait for the next one."""
    failures: int = 0
    last_error: str = ""
    last_error_at: float = 0.0
    condition: str = "remote-server-timeout"
    sent: int = 0
    received: int = 0
    returned: int = 0


class Peers:
    """``bounce`` takes error stanzas for local senders; ``hold`` is the chat room's."""

    def __init__(
        self,
        connector: Connector,
        policies: Policies,
        outbox: Outbox,
        *,
        bounce: Callable[[Element], None],
        hold: Callable[[], Release | None],
        first_pause: float,
        longest_pause: float,
        queue_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._connector = connector
        self._policies = policies
        self._outbox = outbox
        self._bounce = bounce
        self._hold = hold
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._queue_seconds = queue_seconds
        self._clock = clock
        self._peers: OrderedDict[str, Peer] = OrderedDict()
        self._stopping = False

    def __iter__(self) -> Iterator[Peer]:
        return iter(tuple(self._peers.values()))

    def get(self, domain: str) -> Peer:
        """The peer of a domain; made when there is none. The oldest idle one goes when there are too many."""
        peer = self._peers.get(domain)
        if peer is None:
            peer = self._peers[domain] = Peer(domain)
            if len(self._peers) > _MAX_PEERS:
                idle = next((p for p in self._peers.values() if not p.streams and not p.opening), None)
                if idle is not None and idle is not peer:
                    del self._peers[idle.domain]
        return peer

    def known(self, domain: str) -> Peer | None:
        """The peer of a domain, if there is one."""
        return self._peers.get(domain)

    def send(self, stanza: Element, *, first: bool = False) -> None:
        """Sends a stanza to its domain, now or as soon as a stream is open; else it comes back.

        ``first``: before what waits already.
        """
        local, remote = _pair(stanza)
        policy = self._policies.of(remote)
        if policy.refusal:
            self._return(stanza, "not-allowed", policy.refusal)
            return
        if self._stopping:
            self._return(stanza, "remote-server-timeout", "this server is stopping")
            return
        peer = self.get(remote)
        stream = peer.streams.get((local, remote))
        if stream is not None and stream.usable:
            peer.sent += 1
            stream.send([stanza], self._clock())
            return
        if local not in peer.opening and self._clock() < peer.retry_at:
            self._return(stanza, peer.condition, peer.last_error)
            return
        try:
            self._outbox.put(local, remote, stanza, self._hold, first=first)
        except LimitExceeded as error:
            self._return(stanza, "resource-constraint", error.message)
            return
        if local not in peer.opening:
            peer.opening[local] = asyncio.create_task(self._open(local, peer), name="federation:open")

    async def _open(self, local: str, peer: Peer) -> None:
        remote = peer.domain
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._connect(local, peer)
            peer.opening.pop(local, None)  # the queue went out when the stream opened
        except TimeoutError:
            self._failed(local, peer, "remote-server-timeout", f"{remote} did not answer in time")
        except NotFound as error:
            self._failed(local, peer, "remote-server-not-found", error.message)
        except MoimError as error:
            self._failed(local, peer, "remote-server-timeout", error.message)
        except asyncio.CancelledError:
            self._failed(local, peer, "remote-server-timeout", "this server is stopping")
            raise
        except Exception:
            _log.exception("the stream to %s could not be opened", remote)
            self._failed(local, peer, "internal-server-error", "the stream could not be opened")
        self._again(local, peer)

    async def _connect(self, local: str, peer: Peer) -> None:
        """Opens a stream. Where one just broke, the other server may be starting again: then more than once."""
        pause = self._first_pause
        until = peer.awaited_until.get(local, float("-inf"))
        while True:
            try:
                await self._connector.connect(local, peer.domain)
                return
            except PeerError as error:
                if self._clock() + pause >= until or (isinstance(error, StreamFailed) and error.final):
                    raise
                self.note(peer.domain, error.message)
            await asyncio.sleep(pause * random.uniform(0.75, 1))  # noqa: S311 - not a secret
            pause *= 2

    def _again(self, local: str, peer: Peer) -> None:
        """What came while the last stream opened and ended at once gets another one, or comes back."""
        pair = (local, peer.domain)
        if pair in self._outbox.pairs() and local not in peer.opening:
            stream = peer.streams.get(pair)
            if stream is not None and stream.usable:
                self.opened(stream, pair)
            else:
                self._return_all(local, peer, peer.condition, peer.last_error or "the stream ended")

    def _failed(self, local: str, peer: Peer, condition: str, text: str) -> None:
        peer.opening.pop(local, None)
        self.note(peer.domain, text)
        peer.condition = condition
        peer.failures += 1
        pause = min(self._longest_pause, self._first_pause * 2 ** min(peer.failures - 1, 20))
        peer.retry_at = self._clock() + pause * random.uniform(0.75, 1.25)  # noqa: S311 - not a secret
        _log.warning("no stream to %s: %s; the next try is in %.0f s at the earliest", peer.domain, text, pause)
        self._return_all(local, peer, condition, text)

    def opened(self, stream: Stream, pair: Pair) -> None:
        """Stanzas of a pair may go out on a stream: what waits for it does."""
        local, remote = pair
        peer = self.get(remote)
        before = peer.streams.get(pair)
        if before is None or not before.usable or not stream.incoming:
            peer.streams[pair] = stream
        peer.failures, peer.retry_at = 0, 0.0
        peer.awaited_until.pop(local, None)
        waiting = self._outbox.take(local, remote)
        if waiting.stanzas:
            peer.sent += len(waiting.stanzas)
            stream.send(waiting.stanzas, self._clock())
        waiting.release()
        if peer.streams[pair] is stream:
            stream.route(pair)
        how = stream.sends[pair]
        _log.info("stream with %s for %s: open, authenticated by %s", remote, local, how)

    def ended(self, stream: Stream) -> None:
        """A stream is over; what it did not carry comes back, or goes by another one."""
        for pair in tuple(stream.sends):
            peer = self._peers.get(pair[1])
            if peer is not None and peer.streams.get(pair) is stream:
                del peer.streams[pair]
        lost, stream.undelivered = stream.undelivered, []
        if lost:
            self._reroute(stream, lost)

    def carried(self, domain: str, received: int, sent: int) -> None:
        """Counts messages that the plane carried alone."""
        if (peer := self.known(domain)) is not None:
            peer.received += received
            peer.sent += sent

    def late(self, stanzas: Sequence[Element]) -> None:
        """Stanzas that a stream could not take any more go by another one."""
        for stanza in stanzas:
            try:
                self.send(stanza)
            except MoimError:
                _log.warning("a stanza of an ended stream had no usable address")

    def _reroute(self, stream: Stream, stanzas: Sequence[Element]) -> None:
        """What a stream took and perhaps did not carry goes once more by another stream, else back.

        A request comes back, since it may have been carried out. So does everything where streams end one after the
        other: the next one might, too.
        """
        now = self._clock()
        before: dict[Pair, float] = {}
        again: list[Element] = []
        for stanza in stanzas:
            pair = local, remote = _pair(stanza)
            peer = self.get(remote)
            broke_at = before.setdefault(pair, peer.broke_at.get(local, float("-inf")))
            peer.broke_at[local] = now
            request = stanza.name == "iq" and stanza.get("type") in ("get", "set")
            if request or now - broke_at < _REROUTE_SECONDS:
                self._return(stanza, "remote-server-timeout", f"the connection ended: {stream.reason}")
                continue
            peer.awaited_until[local] = now + self._queue_seconds
            other = peer.streams.get(pair)
            if other is not None and other.usable:
                self.send(stanza)
            else:
                again.append(stanza)
        for stanza in reversed(again):  # what waits by now was sent later
            self.send(stanza, first=True)

    def note(self, domain: str, text: str) -> None:
        """Remembers what went wrong with a domain."""
        peer = self.get(domain)
        peer.last_error, peer.last_error_at = text, self._clock()

    def forget(self, domain: str) -> None:
        """Lets a domain be tried again at once."""
        if (peer := self._peers.get(domain)) is not None:
            peer.retry_at, peer.failures = 0.0, 0

    def _return_all(self, local: str, peer: Peer, condition: str, text: str) -> None:
        waiting = self._outbox.take(local, peer.domain)
        for stanza in waiting.stanzas:
            self._return(stanza, condition, text)
        waiting.release()

    def _return(self, stanza: Element, condition: str, text: str) -> None:
        error = returned(stanza, condition, text)
        if error is not None:
            if (peer := self._peers.get(Jid.parse(stanza.get("to") or "").domain)) is not None:
                peer.returned += 1
            self._bounce(error)

    async def stop(self) -> None:
        """Gives up what is being opened; what waits, and what still comes, goes back."""
        self._stopping = True
        tasks: Sequence[asyncio.Task[None]] = [task for peer in self for task in peer.opening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for local, remote in self._outbox.pairs():  # those whose task had not even begun
            self._return_all(local, self.get(remote), "remote-server-timeout", "this server is stopping")


def _pair(stanza: Element) -> Pair:
    """The local and the remote domain. Raises ProtocolError."""
    return Jid.parse(stanza.get("from") or "").domain, Jid.parse(stanza.get("to") or "").domain
