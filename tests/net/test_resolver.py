"""The stub resolver against a name server that answers what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import pytest

from moim.errors import PeerTimeout, PeerUnreachable, ProtocolError, UsageError
from moim.net.resolver import Resolver, Server, SrvRecord, parse_server

Reply = Callable[[dns.message.Message], "dns.message.Message | bytes | None"]


class Wire(asyncio.DatagramProtocol):
    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        answer = self.reply(dns.message.from_wire(data))
        if isinstance(answer, dns.message.Message):
            answer = answer.to_wire()
        if answer is not None:
            self.transport.sendto(answer, addr)


Serve = Callable[[Reply], "asyncio.Future[tuple[Server, Wire]]"]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    open_transports: list[asyncio.BaseTransport] = []

    async def begin(reply: Reply) -> tuple[Server, Wire]:
        transport, wire = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Wire(reply), local_addr=("127.0.0.1", 0)
        )
        open_transports.append(transport)
        host, port = transport.get_extra_info("sockname")
        return (host, port), wire

    yield begin  # type: ignore[misc]
    for transport in open_transports:
        transport.close()


def answer(*records: str, rcode: int = 0, authority: str = "") -> Callable[[dns.message.Message], dns.message.Message]:
    def reply(query: dns.message.Message) -> dns.message.Message:
        message = dns.message.make_response(query)
        message.set_rcode(dns.rcode.Rcode(rcode))
        for record in records:
            name, ttl, kind, data = record.split(" ", 3)
            if kind in (dns.rdatatype.to_text(query.question[0].rdtype), "CNAME"):
                message.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, *data.split("|")))
        if authority:
            message.authority.append(dns.rrset.from_text("example.com.", 300, "IN", "SOA", authority))
        return message

    return reply


async def test_services_and_addresses_with_their_lifetime(serve: Serve) -> None:
    server, _ = await serve(
        answer(
            "_x._tcp.example.com. 77 SRV 1 2 3 H.example.com.|0 0 0 .",
            "h.example.com. 50 A 192.0.2.1",
            "h.example.com. 40 AAAA 2001:db8::1",
        )
    )
    resolver = Resolver([server])
    found = await resolver.services("_x._tcp.Example.com")
    assert (found.status, found.ttl) == ("ok", 77)
    assert set(found.services) == {SrvRecord(1, 2, 3, "h.example.com"), SrvRecord(0, 0, 0, "")}
    addresses = await resolver.addresses("h.example.com")
    assert (addresses.addresses, addresses.ttl) == (("192.0.2.1", "2001:db8::1"), 40)


async def test_an_address_needs_no_question() -> None:
    assert (await Resolver([("127.0.0.1", 1)]).addresses("192.0.2.7")).addresses == ("192.0.2.7",)


async def test_aliases_are_followed_and_the_shortest_lifetime_counts(serve: Serve) -> None:
    server, _ = await serve(
        answer(
            "a.example.com. 9 CNAME b.example.com.", "b.example.com. 99 A 192.0.2.1", "x.example.com. 5 A 192.0.2.66"
        )
    )
    found = await Resolver([server]).addresses("a.example.com")
    assert (found.addresses, found.ttl) == (("192.0.2.1",), 9)


async def test_no_such_name_no_data_and_refusals(serve: Serve) -> None:
    soa = "ns. host. 1 2 3 4 30"
    for rcode, status, ttl in ((3, "no-name", 30), (0, "no-data", 30), (5, "refused", 0), (2, "failed", 0)):
        server, _ = await serve(answer(rcode=rcode, authority=soa if ttl else ""))
        found = await Resolver([server]).services("_x._tcp.example.com")
        assert (found.status, found.ttl) == (status, ttl)


async def test_the_next_server_is_asked_when_one_fails(serve: Serve) -> None:
    broken, _ = await serve(answer(rcode=2))
    silent, wire = await serve(lambda _: None)
    good, _ = await serve(answer("_x._tcp.example.com. 7 SRV 0 0 1 h."))
    found = await Resolver([broken, silent, good], timeout=0.05).services("_x._tcp.example.com")
    assert found.server == f"{good[0]}:{good[1]}"
    assert wire.asked == 2


async def test_a_silent_server_and_one_that_is_not_there(serve: Serve) -> None:
    silent, _ = await serve(lambda _: None)
    with pytest.raises(PeerTimeout):
        await Resolver([silent], timeout=0.05).services("_x._tcp.example.com")
    with pytest.raises(PeerUnreachable):
        await Resolver([("127.0.0.1", 1)]).services("_x._tcp.example.com")
    with pytest.raises(PeerUnreachable):
        await Resolver([]).services("_x._tcp.example.com")


async def test_answers_to_other_questions_are_not_taken(serve: Serve) -> None:
    def forged(query: dns.message.Message) -> dns.message.Message:
        other = dns.message.make_query("other.example.com", "SRV", id=query.id)
        return answer("other.example.com. 7 SRV 0 0 1 evil.")(other)

    def wrong_id(query: dns.message.Message) -> dns.message.Message:
        message = answer("_x._tcp.example.com. 7 SRV 0 0 1 evil.")(query)
        message.id = query.id ^ 1
        return message

    for reply in (forged, wrong_id, lambda _: b"\x00" * 40, lambda query: query.to_wire()):
        server, _ = await serve(reply)
        with pytest.raises(PeerTimeout):
            await Resolver([server], timeout=0.05).services("_x._tcp.example.com")


async def test_rubbish_in_an_answer_is_said(serve: Serve) -> None:
    def rubbish(query: dns.message.Message) -> bytes:
        head = dns.message.make_response(query).to_wire()[:6] + b"\x00\x09" + b"\x00" * 4
        return head + query.to_wire()[12:] + b"\xff" * 9

    server, _ = await serve(rubbish)
    with pytest.raises(ProtocolError):
        await Resolver([server]).services("_x._tcp.example.com")


async def test_records_of_another_class_are_no_answer(serve: Serve) -> None:
    def hesiod(query: dns.message.Message) -> dns.message.Message:
        message = dns.message.make_response(query)
        message.answer = [dns.rrset.from_text("far.test.", 60, "HS", "A", "\\# 4 c0000201")]
        return message

    server, _ = await serve(hesiod)
    assert (await Resolver([server]).addresses("far.test")).status == "no-data"


async def test_a_name_that_cannot_be_asked_for() -> None:
    with pytest.raises(UsageError):
        await Resolver([("127.0.0.1", 1)]).services("a..b")
    with pytest.raises(UsageError):
        await Resolver([("127.0.0.1", 1)]).addresses("x" * 64 + ".example.com")


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
    ],
)
def test_servers_are_written_as_addresses(text: str, server: Server) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize("text", ["", "host", "192.0.2.1:0", "192.0.2.1:x", "[::1]5", "192.0.2.1:70000"])
def test_what_is_no_server(text: str) -> None:
    with pytest.raises(ValueError):
        parse_server(text)
