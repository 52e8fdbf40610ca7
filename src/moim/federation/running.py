"""What there is on a node while federation runs: its parts, made and bound together; streams' news go to the others."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from moim.federation.chains import Anchors, now_utc
from moim.federation.connecting import Connector
from moim.federation.fetching import Fetcher
from moim.federation.guard import Guard
from moim.federation.locating import Dns, Locator
from moim.federation.outbox import Bounds, Outbox
from moim.federation.peers import Peers
from moim.federation.plane import Chat
from moim.federation.policies import Policies
from moim.federation.proofs import Proofs
from moim.federation.settings import Settings
from moim.federation.stream import Pair, Stream
from moim.federation.streams import Streams
from moim.federation.verifying import Verifier
from moim.proto.xmpp import Element, s2s


class Running:
    """``own`` gives the addresses and ports of this site; the clocks count seconds, and days."""

    def __init__(
        self,
        chat: Chat,
        settings: Settings,
        policies: Policies,
        keys: s2s.Keys,
        anchors: Anchors,
        own: Callable[[], Iterable[tuple[str, int]]],
        *,
        dns: Dns,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = now_utc,
    ) -> None:
        self.chat = chat
        self.keys = keys
        self.clock = clock
        self.dns = dns
        self.guard = Guard(settings.target_networks, own)
        self.locator = Locator(self.dns, self.guard)
        self.fetcher = Fetcher(self.dns, self.guard, ssl.create_default_context()) if settings.posh else None
        self.proofs = Proofs(
            anchors, dns=self.dns if settings.dnssec else None, locator=self.locator, fetch=self.fetcher, clock=today
        )
        self.streams = Streams(
            chat.servers, settings, policies, self.proofs, keys, chat.hosts, self, clock=clock, today=today
        )
        self.connector = Connector(
            self.locator, self.streams, keys, policies.of, handshake_seconds=settings.handshake_seconds, clock=clock
        )
        self.outbox = Outbox(Bounds(settings.queue_stanzas, settings.queue_bytes, settings.queue_total_bytes))
        self.peers = Peers(
            self.connector,
            policies,
            self.outbox,
            bounce=chat.remote_stanza,
            hold=chat.hold,
            first_pause=settings.retry_first_seconds,
            longest_pause=settings.retry_most_seconds,
            queue_seconds=settings.queue_seconds,
            clock=clock,
        )
        self.verifier = Verifier(
            self.connector, self._stream_to, per_minute=settings.verifications_per_minute, clock=clock
        )

    def _stream_to(self, remote: str) -> Stream | None:
        peer = self.peers.known(remote)
        streams = peer.streams.values() if peer is not None else ()
        return next((one for one in streams if one.usable and not one.incoming), None)

    # What streams tell (see ``Events``).

    def stanza(self, stanza: Element, over: Callable[[bool], None] | None) -> None:
        """To the chat room."""
        remote = (stanza.get("from") or "").partition("/")[0].rpartition("@")[2]
        if (peer := self.peers.known(remote)) is not None:
            peer.received += 1
        self.chat.remote_stanza(stanza, over)

    def opened(self, stream: Stream, pair: Pair) -> None:
        """To the peers."""
        self.verifier.forget(pair[1])
        self.peers.opened(stream, pair)

    def carried(self, domain: str, received: int, sent: int) -> None:
        """To the peers."""
        self.peers.carried(domain, received, sent)

    def late(self, stanzas: Sequence[Element]) -> None:
        """To the peers."""
        self.peers.late(stanzas)

    def ended(self, stream: Stream) -> None:
        """To the peers."""
        self.peers.ended(stream)

    def note(self, domain: str, text: str) -> None:
        """To the peers."""
        self.peers.note(domain, text)

    async def call_back(self, step: s2s.Verify, address: str) -> tuple[str, str]:
        """To the verifier."""
        return await self.verifier.verify(step, address)

    def called_back(self, step: s2s.Verified) -> None:
        """To the verifier."""
        self.verifier.answered(step)

    async def stop(self) -> None:
        """Ends every stream."""
        await self.peers.stop()
        await self.verifier.stop()
        await self.streams.stop()
        if self.fetcher is not None:
            await self.fetcher.aclose()
