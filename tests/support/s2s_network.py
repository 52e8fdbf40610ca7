"""A network of planes in memory: what ``moim._native.XmppServer`` does for servers, without sockets or threads."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moim.federation.plane import Event
from moim.net.resolver import Answer, SrvRecord, TlsaRecord
from moim.proto.xmpp import Element, Jid, ns


@dataclass
class End:
    """One end of a connection."""

    plane: FakePlane
    sid: int
    other: End | None = None
    local: str = ""
    pairs: set[tuple[str, str]] = field(default_factory=set)
    ways: set[tuple[str, str]] = field(default_factory=set)
    open: bool = True
    deaf: bool = False
    client: bool = False
    counts: bool = False
    known: bool = False
    held: list[Element] | None = None
    """What came right behind the word that may open an outgoing stream, until that was understood."""
    unsent: list[Element] = field(default_factory=list)
    """What comes back when this end closes."""


class Network:
    """Listeners by address; ``down`` are addresses that refuse (IPv6 ones: that no way leads to), ``silent`` ones never
    answer, ``slow`` ones late."""

    def __init__(self) -> None:
        self.listeners: dict[tuple[str, int], tuple[FakePlane, int, str]] = {}
        self.down: set[str] = set()
        self.silent: set[str] = set()
        self.slow: set[str] = set()
        self.tried: list[tuple[str, int]] = []


class FakePlane:
    """One server's plane. ``certificates`` is what it shows, by local domain ("" for any)."""

    _numbers = itertools.count(1 << 48)

    def __init__(
        self, network: Network, address: str, certificates: Mapping[str, Sequence[bytes]] | None = None
    ) -> None:
        self.network, self.address = network, address
        self.certificates = dict(certificates or {})
        self.ends: dict[int, End] = {}
        self.sent: list[Element] = []
        self._handle: Callable[[Sequence[Event]], None] | None = None
        self._events: deque[Event] = deque()
        self._wake = False
        self._listeners = itertools.count(1)
        self._given = itertools.count(1)
        self.done_with: list[int] = []
        """Numbers of messages that were dealt with here."""

    def attach(self, handle: Callable[[Sequence[Event]], None]) -> None:
        self._handle = handle

    def detach(self) -> None:
        self._handle = None

    def _tell(self, *event: Any) -> None:
        self._events.append(event)
        if not self._wake:
            self._wake = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._wake = False
        batch = list(self._events)
        self._events.clear()
        if self._handle is not None:
            self._handle(batch)

    def listen(self, name: str, address: str, port: int, mode: str, *, proxy_protocol: bool = False) -> tuple[int, int]:
        number = next(self._listeners)
        self.network.listeners[address, port] = (self, number, mode)
        return number, port

    def unlisten(self, number: int) -> None:
        for place, (plane, own, _) in tuple(self.network.listeners.items()):
            if plane is self and own == number:
                del self.network.listeners[place]

    def use_certificate(self, domain: str, chain: Path, key: Path) -> None:
        pass

    def connect(self, address: str, port: int, *, tls: bool, server_name: str, local: str, timeout: float) -> int:
        self.network.tried.append((address, port))
        sid = next(self._numbers)
        end = self.ends[sid] = End(self, sid, local=local, client=True)
        found = self.network.listeners.get((address, port))
        if address in self.network.silent:
            asyncio.get_running_loop().call_later(0.3, self._end, end, "no answer in time")
        elif ":" in address and address in self.network.down:
            reason = "the connection could not be made: Network is unreachable (os error 101)"
            asyncio.get_running_loop().call_soon(self._end, end, reason)
        elif found is None or address in self.network.down:
            asyncio.get_running_loop().call_soon(self._end, end, "connection refused")
        else:
            delay = 0.4 if address in self.network.slow else 0.0
            asyncio.get_running_loop().call_later(delay, self._join, end, found, server_name, (address, port, tls))
        return sid

    def _join(
        self, end: End, found: tuple[FakePlane, int, str], server_name: str, place: tuple[str, int, bool]
    ) -> None:
        if not end.open:
            return
        plane, number, mode = found
        other = End(plane, next(self._numbers), end, local=server_name)
        plane.ends[other.sid] = other
        end.other = other
        plane._tell("connected", other.sid, number, self.address, 40000, mode == "server-tls")
        self._tell("connected", end.sid, 0, *place)
        if place[2]:
            self._handshake(end)

    def _handshake(self, end: End) -> None:
        other = end.other
        assert other is not None
        for one, peer in ((end, other), (other, end)):
            anonymous = peer.client and not peer.local
            shown = () if anonymous else peer.plane.certificates.get(peer.local, peer.plane.certificates.get("", ()))
            info = {"version": "TLSv1.3", "cipher": "TLS13_AES_256_GCM_SHA384", "sni": "", "alpn": None}
            one.plane._tell("tls", one.sid, info | {"chain": list(shown)})

    def _end(self, end: End, reason: str) -> None:
        if end.open:
            end.open = False
            self.ends.pop(end.sid, None)
            if end.unsent:
                self._tell("undelivered", end.sid, list(end.unsent))
            self._tell("closed", end.sid, reason)

    def open_stream(self, sid: int, attrs: Mapping[str, str]) -> None:
        end = self.ends.get(sid)
        if end is not None and end.other is not None and end.other.open:
            end.other.plane._tell("open", end.other.sid, dict(attrs) | {"xmlns": ns.SERVER})

    def send(self, sid: int, elements: Sequence[Element]) -> None:
        end = self.ends.get(sid)
        if end is None or end.other is None or not end.other.open:
            return
        self.sent.extend(elements)
        self._go_on(end)
        if end.deaf or end.other.deaf:
            return
        for element in elements:
            if end.other.held is not None:
                end.other.held.append(element)
            elif end.open:
                self._carry(end, end.other, element)
            opens = (element.ns, element.name) in ((ns.STREAMS, "features"), (ns.DIALBACK, "result"))
            if opens and end.other.client and not end.other.known:
                end.other.held = []

    def _carry(self, end: End, other: End, element: Element) -> None:
        if element.ns == ns.CLIENT and element.name in ("message", "presence", "iq"):
            sender, to = Jid.parse(element.get("from") or ""), Jid.parse(element.get("to") or "")
            if (to.domain, sender.domain) not in other.pairs:
                other.plane._end(other, "invalid-from: no such pair")
                end.plane._end(end, "the peer reported the stream error invalid-from: no such pair")
                return
        number = next(self._given) if element.name == "message" and element.ns == ns.CLIENT else 0
        other.plane._tell("stanza", other.sid, element, number)

    def _go_on(self, end: End, *, known: bool = False) -> None:
        """Reads what came behind the word that opens a stream, once it was understood."""
        end.known = end.known or known
        held, end.held = end.held, None
        for element in held or ():
            if end.open and end.other is not None:
                end.other.plane._carry(end.other, end, element)

    def start_tls(self, sid: int) -> None:
        end = self.ends.get(sid)
        if end is None or end.other is None:
            return
        if end.client:
            self._handshake(end)
        else:
            end.other.plane._tell("stanza", end.other.sid, Element("proceed", ns.TLS), 0)

    def restart(self, sid: int) -> None:
        pass

    def authenticated(self, sid: int, remote: str) -> None:
        if (end := self.ends.get(sid)) is not None:
            self._go_on(end, known=True)

    def count(self, sid: int) -> None:
        if (end := self.ends.get(sid)) is not None:
            end.counts = True

    def pair(self, sid: int, local: str, remote: str) -> None:
        if (end := self.ends.get(sid)) is not None:
            end.pairs.add((local, remote))
            self._go_on(end, known=True)

    def route(self, sid: int, local: str, remote: str) -> None:
        if (end := self.ends.get(sid)) is not None:
            end.ways.add((local, remote))

    def done(self, sid: int, number: int) -> None:
        self.done_with.append(number)

    def close(self, sid: int, error: Element | None = None) -> None:
        end = self.ends.get(sid)
        if end is None:
            return
        if (other := end.other) is not None and other.open and not (end.deaf or other.deaf):
            if error is not None:
                condition = next((c.name for c in error.elements() if c.name != "text"), "")
                text = next((c.text for c in error.elements() if c.name == "text"), "")
                other.plane._end(other, f"the peer reported the stream error {condition}: {text}")
            else:
                other.plane._tell("close", other.sid)
        self._end(end, "closed")

    def crash(self, lost: Sequence[Element] = ()) -> None:
        """Every connection breaks, as when a machine dies; ``lost`` comes back to those who sent it."""
        for end in tuple(self.ends.values()):
            other = end.other
            self._end(end, "gone")
            if other is not None and other.open:
                if lost and end.pairs:
                    other.plane._tell("undelivered", other.sid, list(lost))
                other.plane._end(other, "the connection was reset")


class FakeDns:
    """Records by name. SRV as ``(priority, weight, port, target)``; of ``failing`` hosts nobody tells the addresses."""

    def __init__(self, *, authentic: bool = False) -> None:
        self.srv: dict[str, list[tuple[int, int, int, str]]] = {}
        self.hosts: dict[str, list[str]] = {}
        self.tlsa: dict[str, list[TlsaRecord]] = {}
        self.authentic = authentic
        self.asked: list[str] = []
        self.failing: set[str] = set()

    async def services(self, name: str) -> Answer:
        self.asked.append(name)
        records = tuple(SrvRecord(*record) for record in self.srv.get(name, ()))
        return Answer("ok" if records else "no-name", "fake", 60, services=records, authentic=self.authentic)

    async def addresses(self, host: str) -> Answer:
        self.asked.append(host)
        if host in self.failing:
            return Answer("failed", "fake", detail="SERVFAIL")
        found = tuple(self.hosts.get(host, ()))
        return Answer("ok" if found else "no-name", "fake", 60, addresses=found, authentic=self.authentic)

    async def associations(self, name: str) -> Answer:
        self.asked.append(name)
        found = tuple(self.tlsa.get(name, ()))
        return Answer("ok" if found else "no-name", "fake", 60, associations=found, authentic=self.authentic)
