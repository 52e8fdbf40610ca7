"""From the bytes of a query to the bytes of its answer: no sockets, no clock.

Rules kept here: what is not a query gets no answer at all; rubbish gets the shortest error; foreign names are refused;
an answer over UDP is never longer than what the client said it takes, else it says TC and the client comes over TCP.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.message import Message
from dns.rcode import Rcode
from dns.rdatatype import RdataType

from moim.names.settings import Settings
from moim.names.zone import MAX_SET, Zone, wire_size

_HEADER: Final = 12
_MAX_QUERY: Final = 2048
_MAX_ADDITIONAL: Final = 4
_PLAIN_UDP: Final = 512
_TCP_MESSAGE: Final = 65535
_TRANSFER_MESSAGE: Final = 2 * MAX_SET
_QR, _TC, _RD, _OPCODE = 0x8000, 0x0200, 0x0100, 0x7800
# RFC 8482 section 4.2: what ANY gets instead of everything.
_HINFO = '"RFC8482" ""'
_ANY_TTL: Final = 3600

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Forward:
    """The query is for a foreign name and this client may have it forwarded."""

    query: bytes


class Responder:
    """Answers queries for one view of the site's zones, each name from the zone with the nearest origin."""

    def __init__(self, zones: Iterable[Zone], settings: Settings, *, forwarding: bool = False) -> None:
        self._zones = sorted(zones, key=lambda zone: len(zone.origin), reverse=True)
        self._payload = settings.udp_payload
        self._forwarding = forwarding
        self._forward_for = tuple(ipaddress.ip_network(text) for text in settings.forward_for)
        self._transfer_to = tuple(ipaddress.ip_network(text) for text in settings.allow_transfer)

    def answer(self, wire: bytes, source: Address, *, stream: bool) -> Sequence[bytes] | Forward:
        """The answer's messages to one query: none for what is no query, several for a zone transfer.

        ``stream`` says that it came over TCP. Never raises on account of ``wire``.
        """
        if len(wire) < _HEADER:
            return ()
        flags = int.from_bytes(wire[2:4], "big")
        if flags & _QR:
            return ()
        if flags & _OPCODE:
            return (refusal(wire, Rcode.NOTIMP),)
        questions, answers, authorities, additionals = (int.from_bytes(wire[i : i + 2], "big") for i in (4, 6, 8, 10))
        # RFC 9619: exactly one question. The other bounds keep the work of parsing a query small.
        if questions != 1 or answers or authorities > 1 or additionals > _MAX_ADDITIONAL or len(wire) > _MAX_QUERY:
            return (refusal(wire, Rcode.FORMERR),)
        try:
            query = dns.message.from_wire(wire, keyring=False)
        except (dns.exception.DNSException, ValueError, IndexError, OverflowError):
            return (refusal(wire, Rcode.FORMERR),)
        return self._answer(query, wire, source, stream=stream)

    def _answer(self, query: Message, wire: bytes, source: Address, *, stream: bool) -> Sequence[bytes] | Forward:
        question = query.question[0]
        name, kind = question.name, question.rdtype
        reply = self._skeleton(query)
        limit = _TCP_MESSAGE if stream else _PLAIN_UDP
        if not stream and query.edns >= 0:
            limit = min(max(query.payload, _PLAIN_UDP), self._payload)
        if query.edns > 0:
            reply.set_rcode(Rcode.BADVERS)
        elif query.had_tsig:
            reply.set_rcode(Rcode.NOTAUTH)  # RFC 8945 section 5.2.1: no key is known here
        elif kind == RdataType.OPT:
            reply.set_rcode(Rcode.FORMERR)
        elif question.rdclass != dns.rdataclass.IN:
            reply.set_rcode(Rcode.REFUSED)
        elif (zone := self._zone(name)) is None:
            if self._forwarding and query.flags & dns.flags.RD and _within(source, self._forward_for):
                return Forward(wire)
            reply.set_rcode(Rcode.REFUSED)
        elif kind in (RdataType.AXFR, RdataType.IXFR):
            return self._transfer(zone, query, reply, source, stream=stream)
        elif kind != RdataType.ANY and dns.rdatatype.is_metatype(kind):
            reply.set_rcode(Rcode.NOTIMP)
        else:
            self._fill(zone, reply, name, kind)
        return (_render(reply, limit),)

    def _skeleton(self, query: Message) -> Message:
        reply = dns.message.make_response(query, recursion_available=self._forwarding, our_payload=self._payload, pad=0)
        if query.edns >= 0 and query.ednsflags & dns.flags.DO:
            reply.ednsflags |= dns.flags.DO  # RFC 3225 section 3
        return reply

    def _zone(self, name: dns.name.Name) -> Zone | None:
        return next((zone for zone in self._zones if zone.holds(name)), None)

    def _fill(self, zone: Zone, reply: Message, name: dns.name.Name, kind: RdataType) -> None:
        reply.flags |= dns.flags.AA
        if kind == RdataType.ANY and zone.exists(name):
            reply.answer.append(dns.rrset.from_text(name, _ANY_TTL, dns.rdataclass.IN, RdataType.HINFO, _HINFO))
            return
        found = zone.lookup(name, kind)
        reply.answer.extend(found.answer)
        reply.additional.extend(found.additional)
        if found.negative:
            reply.authority.append(zone.negative_soa)
            # RFC 6604: the code tells of the last name of a chain, which is then not the one that was asked for.
            if not zone.exists(found.answer[-1][0].target if found.answer else name):
                reply.set_rcode(Rcode.NXDOMAIN)

    def _transfer(
        self, zone: Zone, query: Message, reply: Message, source: Address, *, stream: bool
    ) -> Sequence[bytes]:
        question = query.question[0]
        if question.name != zone.origin or not _within(source, self._transfer_to):
            reply.set_rcode(Rcode.REFUSED)
            return (_render(reply, _PLAIN_UDP),)
        reply.flags |= dns.flags.AA
        if not stream:
            # RFC 1995 section 2: only the SOA, and the secondary comes again over TCP; AXFR has no UDP form.
            if question.rdtype == RdataType.IXFR:
                reply.answer.append(zone.soa)
            else:
                reply.set_rcode(Rcode.FORMERR)
            return (_render(reply, _PLAIN_UDP),)
        return tuple(self._transfer_messages(zone, query))

    def _transfer_messages(self, zone: Zone, query: Message) -> Iterator[bytes]:
        """RFC 5936 section 2.2: the whole zone between two copies of the SOA, in as many messages as needed."""
        waiting = deque((zone.soa, *zone.everything(), zone.soa))
        while waiting:
            reply = self._skeleton(query)
            reply.flags |= dns.flags.AA
            size = 0
            while waiting and size + wire_size(waiting[0]) <= _TRANSFER_MESSAGE:
                size += wire_size(waiting[0])
                reply.answer.append(waiting.popleft())
            yield reply.to_wire(max_size=_TCP_MESSAGE)


def refusal(wire: bytes, rcode: Rcode) -> bytes:
    """A bare header that answers ``wire`` (at least 12 bytes) with a code: never longer than what it answers."""
    flags = _QR | (int.from_bytes(wire[2:4], "big") & (_OPCODE | _RD)) | (int(rcode) & 0xF)
    return wire[:2] + flags.to_bytes(2, "big") + bytes(8)


def truncated(wire: bytes) -> bytes:
    """A header with TC for a query of at least 12 bytes: "ask again over TCP", with the question when it is plain."""
    flags = _QR | _TC | (int.from_bytes(wire[2:4], "big") & (_OPCODE | _RD))
    end = _question_end(wire)
    count = b"\x00\x01" if end else b"\x00\x00"
    return wire[:2] + flags.to_bytes(2, "big") + count + bytes(6) + wire[_HEADER : end or _HEADER]


def _question_end(wire: bytes) -> int:
    """Where the first question ends; 0 when it is not one uncompressed name, type and class."""
    if int.from_bytes(wire[4:6], "big") != 1:
        return 0
    at = _HEADER
    while at < len(wire) and wire[at]:
        if wire[at] > 63 or at - _HEADER > 255:
            return 0
        at += 1 + wire[at]
    return at + 5 if at + 5 <= len(wire) else 0


def _render(reply: Message, limit: int) -> bytes:
    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        pass
    reply.additional.clear()  # RFC 2181 section 9: glue may be left out without a word
    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        reply.flags |= dns.flags.TC
        reply.answer.clear()
        reply.authority.clear()
        return reply.to_wire(max_size=limit)


def _within(source: Address, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(source in network for network in networks)
