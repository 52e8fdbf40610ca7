"""Asks name servers: one exchange of raw messages, and a small stub resolver for SRV and addresses.

The resolver asks exactly the servers it was given, or the system's. It does not cache: who uses it knows how long an
answer may live (``Answer.ttl``).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from moim.errors import MoimError, PeerError, PeerTimeout, PeerUnreachable, ProtocolError, UsageError

Server = tuple[str, int]
Status = Literal["ok", "no-data", "no-name", "refused", "failed"]

_UDP_PAYLOAD = 1232
_UDP_TRIES = 2
_MAX_RECORDS = 64
_MAX_CHAIN = 8


@dataclass(frozen=True, slots=True)
class SrvRecord:
    """RFC 2782. ``target`` has no final dot; it is empty when the record says "not available here"."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class TlsaRecord:
    """RFC 6698: how ``data`` stands for a certificate or its key."""

    usage: int
    selector: int
    matching: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a name server said. ``ttl`` in seconds: of the records, or of the "no" (RFC 2308).

    ``authentic``: the server says that DNSSEC vouches for it (AD bit); worth what the way to that server is worth.
    """

    status: Status
    server: str
    ttl: int = 0
    services: tuple[SrvRecord, ...] = ()
    addresses: tuple[str, ...] = ()
    detail: str = ""
    associations: tuple[TlsaRecord, ...] = ()
    authentic: bool = False


class Resolver:
    """A stub resolver. ``servers`` are (IP address, port); None takes the system's way of resolving names."""

    def __init__(self, servers: Sequence[Server] | None = None, *, timeout: float = 2.0) -> None:
        self._system = servers is None
        self._timeout = timeout
        self.servers: tuple[Server, ...] = tuple(servers) if servers is not None else system_servers()

    @property
    def label(self) -> str:
        """The servers in words, for messages."""
        return ", ".join(f"{host}:{port}" for host, port in self.servers) or "no name server"

    async def services(self, name: str) -> Answer:
        """The SRV records of a name. Raises PeerError when no server answers."""
        return await self._ask(name, RdataType.SRV)

    async def associations(self, name: str) -> Answer:
        """The TLSA records of a name. Raises PeerError when no server answers."""
        return await self._ask(name, RdataType.TLSA)

    async def addresses(self, host: str) -> Answer:
        """The IPv4 and IPv6 addresses of a host name, or the address that ``host`` is. Raises PeerError."""
        with contextlib.suppress(ValueError):
            return Answer("ok", "", ttl=86400, addresses=(str(ipaddress.ip_address(host.strip("[]"))),))
        if self._system:
            return await self._system_addresses(host)
        results = await asyncio.gather(
            self._ask(host, RdataType.A), self._ask(host, RdataType.AAAA), return_exceptions=True
        )
        answers = [result for result in results if isinstance(result, Answer)]
        found = [answer for answer in answers if answer.addresses]
        if found:
            addresses = tuple(address for answer in found for address in answer.addresses)
            return Answer("ok", found[0].server, min(answer.ttl for answer in found), addresses=addresses)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return next((answer for answer in answers if answer.status != "no-data"), answers[0])

    async def _system_addresses(self, host: str) -> Answer:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout * _UDP_TRIES * max(1, len(self.servers))):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise PeerTimeout(f"the system's name servers did not answer for {host}") from None
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise PeerUnreachable(f"the system's name servers could not be asked for {host}") from None
            return Answer("no-name", "system", detail=error.strerror or "")
        except UnicodeError:
            return Answer("no-name", "system", detail="the name cannot be written in the DNS")
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MAX_RECORDS]
        return Answer("ok", "system", addresses=addresses)

    async def _ask(self, name: str, kind: RdataType) -> Answer:
        try:
            owner = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            raise UsageError(f"'{name}' cannot be asked for in the DNS") from None
        query = dns.message.make_query(owner, kind, use_edns=0, payload=_UDP_PAYLOAD)
        query.flags |= dns.flags.AD  # RFC 6840 section 5.7: "tell me whether it is authentic"
        if not self.servers:
            raise PeerUnreachable("this machine has no name server", hint="name one with --dns HOST:PORT")
        problem: MoimError | None = None
        refused: Answer | None = None
        for server in self.servers:
            try:
                answer = _read(query, await self._exchange(query, server), owner, kind, server)
            except PeerError as error:
                problem = problem or error
                continue
            # A server that fails or refuses may have a sibling that does not.
            if answer.status in ("ok", "no-data", "no-name"):
                return answer
            refused = refused or answer
        if refused is not None:
            return refused
        assert problem is not None
        raise problem

    async def _exchange(self, query: dns.message.Message, server: Server) -> bytes:
        for attempt in range(_UDP_TRIES):
            query.id = secrets.randbelow(0x10000)
            try:
                reply = await exchange(query.to_wire(), server, timeout=self._timeout)
            except PeerTimeout:
                if attempt + 1 == _UDP_TRIES:
                    raise
                continue
            if reply[2] & 0x02:
                return await exchange(query.to_wire(), server, timeout=self._timeout, stream=True)
            return reply
        raise AssertionError("unreachable")


def system_servers() -> tuple[Server, ...]:
    """The name servers of this machine's configuration; none when it has none."""
    try:
        configured = dns.resolver.Resolver(configure=True)
    except (dns.exception.DNSException, OSError):
        return ()
    return tuple((str(server), configured.port) for server in configured.nameservers if isinstance(server, str))


def parse_server(text: str) -> Server:
    """``(IP address, port)`` of ``192.0.2.53``, ``192.0.2.53:5353``, ``2001:db8::1`` or ``[2001:db8::1]:5353``.

    Raises ValueError.
    """
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not rest.startswith(":"):
            raise ValueError(f"'{text}' is not an address with a port")
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    ipaddress.ip_address(host)
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"'{text}' has no usable port")
    return host, int(port) if port else 53


async def exchange(query: bytes, server: Server, *, timeout: float, stream: bool = False) -> bytes:  # noqa: ASYNC109
    """Sends one query to one server and returns the answer to it: same ID, same question, QR set.

    Raises PeerTimeout (``timeout`` seconds), PeerUnreachable, or ProtocolError for an answer over TCP that is none.
    """
    where = f"{server[0]}:{server[1]}"
    try:
        async with asyncio.timeout(timeout):
            return await (_over_tcp(query, server) if stream else _over_udp(query, server))
    except TimeoutError:
        raise PeerTimeout(
            f"the name server {where} did not answer in {timeout:g} s",
            hint="check its address, and that UDP and TCP to that port are open",
        ) from None
    except asyncio.IncompleteReadError:
        raise ProtocolError(f"the name server {where} closed the connection without an answer") from None
    except OSError as error:
        raise PeerUnreachable(
            f"the name server {where} cannot be reached: {error.strerror or error}",
            hint="check that it runs and that the address is right",
        ) from None


async def _over_udp(query: bytes, server: Server) -> bytes:
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[bytes] = loop.create_future()
    # Connected, and on a port of its own for each query: an attacker must guess port and ID.
    transport, _ = await loop.create_datagram_endpoint(lambda: _Exchange(query, reply), remote_addr=server)
    try:
        transport.sendto(query)
        return await reply
    finally:
        transport.close()


async def _over_tcp(query: bytes, server: Server) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        await writer.drain()
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if not _answers(query, reply):
        raise ProtocolError(f"the name server {server[0]}:{server[1]} answered something else than it was asked")
    return reply


class _Exchange(asyncio.DatagramProtocol):
    def __init__(self, query: bytes, reply: asyncio.Future[bytes]) -> None:
        self._query = query
        self._reply = reply

    def datagram_received(self, data: bytes, addr: object) -> None:
        # Anything else is a late or forged packet: the true answer may still come.
        if not self._reply.done() and _answers(self._query, data):
            self._reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(exc)


def _answers(query: bytes, reply: bytes) -> bool:
    """Whether ``reply`` answers ``query``; a bare error header need not repeat the question."""
    if len(reply) < 12 or reply[:2] != query[:2] or not reply[2] & 0x80:
        return False
    questions = int.from_bytes(reply[4:6], "big")
    if questions == 0:
        return bool(reply[3] & 0x0F) or bool(reply[2] & 0x02)
    end = _question_end(query)
    return questions == 1 and reply[12:end].lower() == query[12:end].lower()


def _question_end(query: bytes) -> int:
    at = 12
    while at < len(query) and query[at]:
        at += 1 + query[at]
    return at + 5


def _read(query: dns.message.Message, wire: bytes, owner: dns.name.Name, kind: RdataType, server: Server) -> Answer:
    where = f"{server[0]}:{server[1]}"
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
        rcode = message.rcode()
    except (dns.exception.DNSException, ValueError, IndexError, OverflowError):
        raise ProtocolError(f"the name server {where} answered rubbish") from None
    if rcode in (dns.rcode.REFUSED, dns.rcode.NOTAUTH):
        return Answer("refused", where, detail=dns.rcode.to_text(rcode))
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Answer("failed", where, detail=dns.rcode.to_text(rcode))
    ttls: list[int] = []
    authentic = bool(message.flags & dns.flags.AD)
    name = owner
    answers = [rrset for rrset in message.answer if rrset.rdclass == RdataClass.IN]
    for _ in range(_MAX_CHAIN):
        found = next((rrset for rrset in answers if rrset.name == name and rrset.rdtype == kind), None)
        if found is not None:
            records = list(found)[:_MAX_RECORDS]
            ttl = min([*ttls, found.ttl])
            if kind == RdataType.SRV:
                services = tuple(
                    SrvRecord(r.priority, r.weight, r.port, r.target.to_text(omit_final_dot=True).rstrip(".").lower())
                    for r in records
                )
                return Answer("ok", where, ttl, services=services, authentic=authentic)
            if kind == RdataType.TLSA:
                associations = tuple(TlsaRecord(r.usage, r.selector, r.mtype, bytes(r.cert)) for r in records)
                return Answer("ok", where, ttl, associations=associations, authentic=authentic)
            return Answer("ok", where, ttl, addresses=tuple(str(r.address) for r in records), authentic=authentic)
        alias = next((r for r in answers if r.name == name and r.rdtype == RdataType.CNAME), None)
        if alias is None:
            break
        ttls.append(alias.ttl)
        name = alias[0].target
    soa = next((r for r in message.authority if r.rdclass == RdataClass.IN and r.rdtype == RdataType.SOA), None)
    ttl = min([*ttls, soa.ttl, soa[0].minimum]) if soa is not None else 0
    status: Status = "no-name" if rcode == dns.rcode.NXDOMAIN else "no-data"
    return Answer(status, where, ttl, authentic=authentic)
