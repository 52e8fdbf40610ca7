"""Names, authorities, DANE and POSH: what proves a domain, and what only looks as if it did."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import MoimError, PeerUntrusted
from moim.federation.chains import Anchors, Role, load_files, read_chain, system_anchors
from moim.federation.identity import names_domain, presented_names
from peer_certificates import CLIENT, NOW, SERVER, Made, authority, leaf, srv_name, xmpp_address


def named(*names: Any) -> x509.Certificate:
    return leaf(names).certificate


@pytest.mark.parametrize(
    ("names", "domain", "right"),
    [
        (["b.example"], "b.example", True),
        (["B.EXAMPLE"], "b.example", True),
        (["b.example"], "B.Example", True),
        (["b.example"], "x.b.example", False),
        (["*.b.example"], "rooms.b.example", True),
        (["*.b.example"], "b.example", False),
        (["*.b.example"], "x.rooms.b.example", False),
        (["*.example"], "b.example", False),
        (["r*.b.example"], "rooms.b.example", False),
        (["*.*.example"], "rooms.b.example", False),
        (["xn--bcher-kva.example"], "bücher.example", True),
        ([srv_name("b.example")], "b.example", True),
        ([srv_name("b.example", "xmpp-client")], "b.example", False),
        ([srv_name("x.b.example")], "b.example", False),
        ([xmpp_address("b.example")], "b.example", True),
        ([xmpp_address("u@b.example")], "b.example", False),
        ([xmpp_address("bücher.example")], "xn--bcher-kva.example", True),
        ([x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5"), b"\x04\x09b.example")], "b.example", False),
        ([x509.RFC822Name("b.example@example.org")], "b.example", False),
        ([x509.UniformResourceIdentifier("https://b.example")], "b.example", False),
        ([], "b.example", False),
        (["192.0.2.1"], "192.0.2.1", False),
    ],
)
def test_names(names: list[Any], domain: str, right: bool) -> None:
    assert names_domain(named(*names), domain) is right


def test_an_address_as_a_domain() -> None:
    import ipaddress

    certificate = named(x509.IPAddress(ipaddress.ip_address("2001:db8::1")))
    assert names_domain(certificate, "[2001:db8::1]")
    assert not names_domain(certificate, "[2001:db8::2]")


def test_the_common_name_does_not_count() -> None:
    assert not names_domain(named("other.example"), "a server")
    assert presented_names(named("b.example", srv_name("c.example"))) == ["b.example", "_xmpp-server.c.example"]


@given(st.sampled_from([0x16, 0x0C, 0x04]), st.binary(max_size=100))
def test_any_other_name_is_read_or_passed_over(tag: int, value: bytes) -> None:
    der = bytes([tag, len(value)]) + value
    certificate = named(x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7"), der))
    assert names_domain(certificate, "b.example") in (True, False)


ROOT = authority()
MIDDLE = authority("In between", ROOT, usages=(SERVER,))
ANCHORS = Anchors([ROOT.certificate])


def verify(made: Made, role: Role = "server", anchors: Anchors = ANCHORS, **options: Any) -> str:
    try:
        anchors.verify(read_chain(made.chain), role, now=NOW, **options)
    except PeerUntrusted as error:
        return error.message
    return ""


def test_a_chain_to_a_trusted_authority() -> None:
    assert not verify(leaf(["b.example"], ROOT))
    assert not verify(leaf(["b.example"], MIDDLE))
    assert not verify(leaf(["b.example"], ROOT, usages=()))


def test_a_chain_holds_until_the_first_of_it_ends() -> None:
    """RFC 6120 section 13.7.2: with the certificates that it depends on, and no others."""
    soon, late = NOW + timedelta(days=1), NOW + timedelta(days=9)

    def until(made: Made, anchors: Anchors) -> Any:
        return anchors.verify(read_chain(made.chain), "server", now=NOW)

    for ends in ((late, late, soon), (late, soon, late), (soon, late, late)):
        root = authority(end=ends[0])
        made = leaf(["b.example"], authority("In between", root, end=ends[1]), end=ends[2])
        assert until(made, Anchors([root.certificate])) == soon.replace(microsecond=0)
    unrelated = Made(made.certificate, made.key, (*made.issuers, leaf(["c.example"], end=NOW).certificate))
    assert until(unrelated, Anchors([root.certificate])) == soon.replace(microsecond=0)
    own = leaf(["b.example"], end=late)
    assert until(own, Anchors([own.certificate])) == late.replace(microsecond=0)


def test_certificates_for_servers_alone_by_policy() -> None:
    made = leaf(["b.example"], MIDDLE, usages=(SERVER,))
    assert not verify(made, "client", server_auth_only=True)
    assert "for servers alone" in verify(made, "client", server_auth_only=False)
    assert not verify(leaf(["b.example"], ROOT, usages=(CLIENT,)), "client", server_auth_only=False)
    assert "usages do not allow" in verify(leaf(["b.example"], ROOT, usages=(CLIENT,)), "server")


def test_what_is_not_trusted_and_why() -> None:
    assert "self-signed" in verify(leaf(["b.example"]))
    assert "no authority that is trusted here signed" in verify(leaf(["b.example"], authority()))
    alone = leaf(["b.example"], MIDDLE)
    assert "without the certificates in between" in verify(Made(alone.certificate, alone.key))
    assert "ended on" in verify(leaf(["b.example"], ROOT, end=NOW - timedelta(hours=1)))
    assert "is valid from" in verify(leaf(["b.example"], ROOT, start=NOW + timedelta(hours=1)))
    assert "critical extension" in verify(leaf(["b.example"], ROOT, critical=True))
    assert "no authority is trusted here" in verify(leaf(["b.example"], ROOT), anchors=Anchors([]))


def test_a_leaf_does_not_sign_others() -> None:
    signer = leaf(["evil.example"], ROOT)
    assert verify(leaf(["b.example"], signer))


def test_a_single_self_signed_certificate_that_was_trusted() -> None:
    made = leaf(["b.example"])
    anchors = Anchors([made.certificate])
    assert not verify(made, anchors=anchors)
    assert not verify(made, "client", anchors=anchors)
    assert verify(leaf(["b.example"]), anchors=anchors)
    late = leaf(["b.example"], end=NOW - timedelta(hours=1))
    assert "ended on" in verify(late, anchors=Anchors([late.certificate]))


def test_rubbish_is_no_certificate() -> None:
    with pytest.raises(PeerUntrusted):
        read_chain([b"rubbish"])


def test_files_of_authorities(tmp_path: Any) -> None:
    path = tmp_path / "trusted.pem"
    path.write_bytes(ROOT.chain_pem + MIDDLE.chain_pem)
    assert len(load_files([path])) == 3
    path.write_text("nothing")
    with pytest.raises(MoimError, match="holds no certificate"):
        load_files([path])
    with pytest.raises(MoimError, match="cannot be read"):
        load_files([tmp_path / "missing.pem"])


def test_the_systems_authorities_are_there() -> None:
    assert len(system_anchors()) > 50
