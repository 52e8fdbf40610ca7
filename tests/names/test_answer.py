"""From bytes to bytes: codes, flags, sizes, and that no bytes make the responder fail or answer at length."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.tsigkeyring
import pytest
from dns.message import Message
from hypothesis import given
from hypothesis import strategies as st

from moim.names import Responder, Settings, build
from moim.names.answer import Forward, truncated
from moim.settings import Site, SiteSettings

LOCAL = ipaddress.ip_address("127.0.0.1")
LONG = [{"name": "long", "type": "TXT", "value": f'"{i}" "{"a" * 200}"'} for i in range(8)]


def responder(*, forwarding: bool = False, **names: object) -> Responder:
    settings = Settings.model_validate(names)
    site = Site(Path("/x"), SiteSettings.model_validate({"domain": "example.test"}), {"names": settings})
    return Responder([build(site, settings, "inside", serial=7)], settings, forwarding=forwarding)


PLAIN = responder(records=LONG)


def ask(
    name: str, kind: str = "A", *, of: Responder = PLAIN, stream: bool = False, rdclass: str = "IN", **options: object
) -> Message:
    query = dns.message.make_query(name, kind, rdclass, **options)  # type: ignore[arg-type]
    replies = of.answer(query.to_wire(), LOCAL, stream=stream)
    assert not isinstance(replies, Forward)
    reply = dns.message.from_wire(replies[0])
    assert reply.id == query.id
    return reply


def test_a_positive_answer_is_authoritative_and_offers_no_recursion() -> None:
    reply = ask("_cisco-uds._tcp.example.test", "SRV")
    assert reply.rcode() == dns.rcode.NOERROR
    assert reply.flags & dns.flags.AA
    assert not reply.flags & dns.flags.RA
    assert reply.flags & dns.flags.RD
    assert [str(rrset) for rrset in reply.answer] == [
        "_cisco-uds._tcp.example.test. 60 IN SRV 0 0 18443 inside.example.test."
    ]
    assert [str(rrset) for rrset in reply.additional] == ["inside.example.test. 60 IN A 127.0.0.1"]


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("nobody.example.test", "A", dns.rcode.NXDOMAIN),
        ("_collab-edge._tls.example.test", "SRV", dns.rcode.NXDOMAIN),
        ("inside.example.test", "AAAA", dns.rcode.NOERROR),
        ("_tcp.example.test", "SRV", dns.rcode.NOERROR),
        ("a.b.c.d.inside.example.test", "A", dns.rcode.NXDOMAIN),
    ],
)
def test_negative_answers_carry_the_soa_with_the_negative_ttl(name: str, kind: str, code: dns.rcode.Rcode) -> None:
    reply = ask(name, kind)
    assert reply.rcode() == code
    assert reply.flags & dns.flags.AA
    assert not reply.answer
    soa = reply.authority[0]
    assert (soa.rdtype, soa.ttl, soa[0].minimum, soa[0].serial) == (dns.rdatatype.SOA, 30, 30, 7)


def test_an_alias_to_nowhere_is_nxdomain_with_the_alias() -> None:
    held = responder(records=[{"name": "w", "type": "CNAME", "value": "gone"}])
    reply = ask("w.example.test", of=held)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert len(reply.answer) == 1
    assert reply.authority[0].rdtype == dns.rdatatype.SOA


def test_an_alias_out_of_the_zone_is_given_as_it_is() -> None:
    held = responder(records=[{"name": "w", "type": "CNAME", "value": "www.example.org."}])
    reply = ask("w.example.test", of=held)
    assert (reply.rcode(), len(reply.answer), reply.authority) == (dns.rcode.NOERROR, 1, [])


def test_letter_case_comes_back_as_it_was_asked() -> None:
    query = dns.message.make_query("_CiScO-uDs._TCP.eXample.TEST", "SRV")
    replies = PLAIN.answer(query.to_wire(), LOCAL, stream=False)
    assert not isinstance(replies, Forward)
    reply = dns.message.from_wire(replies[0])
    assert str(reply.question[0].name) == "_CiScO-uDs._TCP.eXample.TEST."
    assert str(reply.answer[0].name) == "_CiScO-uDs._TCP.eXample.TEST."


@pytest.mark.parametrize(
    ("name", "kind", "rdclass", "code"),
    [
        ("example.org", "A", "IN", dns.rcode.REFUSED),
        (".", "NS", "IN", dns.rcode.REFUSED),
        ("test", "SOA", "IN", dns.rcode.REFUSED),
        ("version.bind", "TXT", "CH", dns.rcode.REFUSED),
        ("example.test", "AXFR", "IN", dns.rcode.REFUSED),
        ("example.test", "IXFR", "IN", dns.rcode.REFUSED),
        ("example.test", "OPT", "IN", dns.rcode.FORMERR),
        ("example.test", "MAILB", "IN", dns.rcode.NOTIMP),
    ],
)
def test_what_is_not_served_is_refused(name: str, kind: str, rdclass: str, code: dns.rcode.Rcode) -> None:
    query = dns.message.make_query(name, kind, rdclass)
    for stream in (False, True):
        replies = PLAIN.answer(query.to_wire(), LOCAL, stream=stream)
        assert not isinstance(replies, Forward)
        assert dns.message.from_wire(replies[0]).rcode() == code


def test_any_is_minimal() -> None:
    reply = ask("example.test", "ANY")
    assert [rrset.to_text() for rrset in reply.answer] == ['example.test. 3600 IN HINFO "RFC8482" ""']
    assert ask("nobody.example.test", "ANY").rcode() == dns.rcode.NXDOMAIN


def test_udp_answers_keep_to_the_size_that_the_client_takes() -> None:
    for options, limit in (({}, 512), ({"payload": 4096}, 1232), ({"payload": 100}, 512)):
        query = dns.message.make_query("long.example.test", "TXT", **options)  # type: ignore[arg-type]
        replies = PLAIN.answer(query.to_wire(), LOCAL, stream=False)
        assert not isinstance(replies, Forward)
        reply = dns.message.from_wire(replies[0])
        assert len(replies[0]) <= limit
        assert reply.flags & dns.flags.TC
        assert not reply.answer
    assert len(ask("long.example.test", "TXT", stream=True).answer[0]) == 8


def test_glue_goes_before_anything_is_truncated() -> None:
    records = [{"name": "_s._tcp", "type": "SRV", "value": f"0 0 {i} h{i}"} for i in range(1, 13)]
    records += [{"name": f"h{i}", "type": "A", "value": "192.0.2.1"} for i in range(1, 13)]
    held = responder(records=records)
    reply = ask("_s._tcp.example.test", "SRV", of=held)
    assert not reply.flags & dns.flags.TC
    assert len(reply.answer[0]) == 12
    assert not reply.additional
    assert len(ask("_s._tcp.example.test", "SRV", of=held, payload=1232).additional) == 12


def test_edns_is_answered_with_edns() -> None:
    reply = ask("inside.example.test", payload=1400, want_dnssec=True)
    assert (reply.edns, reply.payload) == (0, 1232)
    assert reply.ednsflags & dns.flags.DO
    assert ask("inside.example.test").edns == -1
    assert ask("inside.example.test", use_edns=1).rcode() == dns.rcode.BADVERS


def test_a_signed_query_is_told_that_no_key_is_known() -> None:
    query = dns.message.make_query("example.test", "SOA")
    query.use_tsig(dns.tsigkeyring.from_text({"key": "c2VjcmV0"}))
    replies = PLAIN.answer(query.to_wire(), LOCAL, stream=False)
    assert not isinstance(replies, Forward)
    assert dns.message.from_wire(replies[0]).rcode() == dns.rcode.NOTAUTH


def test_a_transfer_is_the_whole_zone_between_two_soas() -> None:
    held = responder(
        records=[*LONG, *({"name": f"h{i}", "type": "TXT", "value": '"' + "b" * 200 + '"'} for i in range(400))],
        allow_transfer=["127.0.0.0/8"],
    )
    query = dns.message.make_query("example.test", "AXFR")
    replies = held.answer(query.to_wire(), LOCAL, stream=True)
    assert not isinstance(replies, Forward)
    assert len(replies) > 1
    assert all(len(reply) < 65536 for reply in replies)
    sets = [rrset for reply in replies for rrset in dns.message.from_wire(reply, one_rr_per_rrset=True).answer]
    assert sets[0].rdtype == sets[-1].rdtype == dns.rdatatype.SOA
    assert sum(rrset.rdtype == dns.rdatatype.TXT for rrset in sets) == 408
    udp = held.answer(query.to_wire(), LOCAL, stream=False)
    assert not isinstance(udp, Forward)
    assert dns.message.from_wire(udp[0]).rcode() == dns.rcode.FORMERR
    other = held.answer(query.to_wire(), ipaddress.ip_address("192.0.2.1"), stream=True)
    assert not isinstance(other, Forward)
    assert dns.message.from_wire(other[0]).rcode() == dns.rcode.REFUSED


def test_foreign_names_are_forwarded_only_for_own_networks_and_with_recursion_desired() -> None:
    held = responder(forwarding=True, forwarders=["192.0.2.53"])
    query = dns.message.make_query("example.org", "A")
    assert held.answer(query.to_wire(), LOCAL, stream=False) == Forward(query.to_wire())
    stranger = held.answer(query.to_wire(), ipaddress.ip_address("192.0.2.77"), stream=False)
    assert not isinstance(stranger, Forward)
    assert dns.message.from_wire(stranger[0]).rcode() == dns.rcode.REFUSED
    query.flags = dns.flags.Flag(0)
    assert not isinstance(held.answer(query.to_wire(), LOCAL, stream=False), Forward)
    assert ask("inside.example.test", of=held).flags & dns.flags.RA


def header(flags: int, *counts: int) -> bytes:
    return b"\x12\x34" + flags.to_bytes(2, "big") + b"".join(count.to_bytes(2, "big") for count in counts)


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (header(0x0100, 0, 0, 0, 0), dns.rcode.FORMERR),
        (header(0x0100, 2, 0, 0, 0) + b"\x00\x00\x01\x00\x01" * 2, dns.rcode.FORMERR),
        (header(0x0100, 1, 1, 0, 0) + b"\x00\x00\x01\x00\x01", dns.rcode.FORMERR),
        (header(0x0100, 1, 0, 0, 9) + b"\x00\x00\x01\x00\x01", dns.rcode.FORMERR),
        (header(0x0100, 1, 0, 0, 0), dns.rcode.FORMERR),
        (header(0x0100, 1, 0, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01", dns.rcode.FORMERR),
        (header(0x0100, 1, 0, 0, 0) + b"\x40abc\x00\x00\x01\x00\x01", dns.rcode.FORMERR),
        (header(0x0100, 1, 0, 0, 0) + b"\x00\x00\x01\x00\x01rubbish", dns.rcode.FORMERR),
        (header(0x0100, 1, 0, 0, 0) + b"\x01a" * 1500 + b"\x00\x00\x01\x00\x01", dns.rcode.FORMERR),
        (header(0x2900, 1, 0, 0, 0) + b"\x00\x00\x06\x00\x01", dns.rcode.NOTIMP),
        (header(0x1000, 0, 0, 0, 0), dns.rcode.NOTIMP),
    ],
)
def test_rubbish_gets_the_shortest_error(wire: bytes, code: dns.rcode.Rcode) -> None:
    replies = PLAIN.answer(wire, LOCAL, stream=False)
    assert not isinstance(replies, Forward)
    assert len(replies[0]) == 12
    assert replies[0][:2] == b"\x12\x34"
    assert replies[0][3] & 0xF == code


def test_what_is_no_query_gets_no_answer() -> None:
    assert PLAIN.answer(b"", LOCAL, stream=False) == ()
    assert PLAIN.answer(b"\x00" * 11, LOCAL, stream=False) == ()
    assert PLAIN.answer(header(0x8180, 1, 0, 0, 0), LOCAL, stream=False) == ()


@given(st.binary(min_size=12, max_size=600), st.booleans())
def test_any_bytes_are_answered_shortly_or_not_at_all(wire: bytes, stream: bool) -> None:
    replies = PLAIN.answer(wire, LOCAL, stream=stream)
    assert not isinstance(replies, Forward)
    assert sum(map(len, replies)) <= max(len(wire), 512) or stream
    assert len(truncated(wire)) <= max(12, len(wire))


labels = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


@given(
    labels, st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 0x7FFF), st.binary(max_size=60), st.booleans()
)
def test_any_question_below_the_zone_is_answered(
    owner: list[bytes], kind: int, rdclass: int, flags: int, opt: bytes, below: bool
) -> None:
    name = b"".join(bytes([len(label)]) + label for label in owner)
    name += b"\x07example\x04test\x00" if below else b"\x00"
    body = name + kind.to_bytes(2, "big") + rdclass.to_bytes(2, "big")
    additional = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00" + len(opt).to_bytes(2, "big") + opt
    wire = header(flags & ~0x7800, 1, 0, 0, 1) + body + additional
    replies = PLAIN.answer(wire, LOCAL, stream=False)
    assert not isinstance(replies, Forward)
    assert len(replies) == 1
    assert len(replies[0]) <= 1232
    assert replies[0][2] & 0x80
