"""Names, authorities, DANE and POSH: what proves a domain, and what only looks as if it did."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import MoimError, NotFound, PeerUntrusted
from moim.federation import dane, posh
from moim.federation.chains import Anchors, Role, load_files, read_chain, system_anchors
from moim.federation.guard import Guard
from moim.federation.identity import names_domain, presented_names
from moim.federation.locating import Located, Locator, Target
from moim.federation.policies import Policy
from moim.federation.proofs import Proofs
from moim.net.resolver import Resolver, TlsaRecord
from peer_certificates import CLIENT, NOW, SERVER, Made, authority, leaf, srv_name, xmpp_address
from s2s_network import FakeDns
from tiny_dns import TinyDns


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


# --- DANE -----------------------------------------------------------------------------------------------------------

LOCATED = Located((Target("x.b.example", 5269, direct=False),), srv=True, authentic=True)


def record(made: Made, usage: int = 3, selector: int = 0, matching: int = 1) -> TlsaRecord:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = made.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    data = key if selector else made.der
    hashed = {0: data, 1: hashlib.sha256(data).digest(), 2: hashlib.sha512(data).digest()}[matching]
    return TlsaRecord(usage, selector, matching, hashed)


async def by_dane(made: Made, *records: TlsaRecord, authentic: bool = True, located: Located = LOCATED) -> str:
    dns = FakeDns(authentic=authentic)
    dns.tlsa["_5269._tcp.x.b.example"] = list(records)
    return await dane.prove(dns, "b.example", located, read_chain(made.chain), "server", now=NOW)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
async def test_dane_stands_for_the_certificate_itself(selector: int, matching: int) -> None:
    made = leaf(["whatever.example"], end=NOW - timedelta(hours=1))
    assert not await by_dane(made, record(made, 3, selector, matching))
    assert "another certificate" in await by_dane(leaf(["b.example"]), record(made, 3, selector, matching))


async def test_dane_stands_for_an_authority_and_names_count_then() -> None:
    root = authority()
    assert not await by_dane(leaf(["b.example"], root), record(root, 2))
    assert not await by_dane(leaf(["x.b.example"], root), record(root, 2)), "the SRV target is as good"
    assert await by_dane(leaf(["evil.example"], root), record(root, 2))
    assert await by_dane(leaf(["b.example"], authority()), record(root, 2))
    assert await by_dane(leaf(["b.example"], root, end=NOW - timedelta(hours=1)), record(root, 2))


async def test_dane_without_dnssec_is_nothing() -> None:
    made = leaf(["b.example"])
    assert await by_dane(made, record(made), authentic=False)
    unsafe = Located(LOCATED.targets, srv=True, authentic=False)
    assert "DNSSEC does not vouch" in await by_dane(made, record(made), located=unsafe)
    assert "no TLSA records" in await by_dane(made)
    assert await by_dane(made, record(made, 0)), "usages 0 and 1 narrow down, they do not prove"
    assert await by_dane(made, TlsaRecord(3, 9, 9, b""))


@pytest.mark.parametrize("authentic", [True, False])
async def test_dane_over_real_messages(authentic: bool) -> None:
    made = leaf(["b.example"])
    wire = record(made)
    dns = TinyDns(
        [
            "_xmpp-server._tcp.b.example. 60 IN SRV 0 0 5269 x.b.example.",
            f"_5269._tcp.x.b.example. 60 IN TLSA 3 0 1 {wire.data.hex()}",
        ],
        authentic=authentic,
    )
    resolver = Resolver([(dns.address, dns.port)])
    located = await Locator(resolver, Guard((), list)).locate("b.example", "required")
    why = await dane.prove(resolver, "b.example", located, read_chain(made.chain), "server", now=NOW)
    assert (not why) is authentic
    dns.close()


# --- POSH -----------------------------------------------------------------------------------------------------------


def document(made: Made, **more: Any) -> bytes:
    digest = base64.b64encode(hashlib.sha256(made.der).digest()).decode()
    return json.dumps({"fingerprints": [{"sha-256": digest}], "expires": 3600} | more).encode()


async def by_posh(made: Made, documents: dict[str, bytes]) -> str:
    async def fetch(host: str, path: str) -> bytes:
        if f"{host}{path}" not in documents:
            raise NotFound("not there")
        return documents[f"{host}{path}"]

    return await posh.prove(fetch, "b.example", made.der)


async def test_posh() -> None:
    made, here = leaf(["x"]), f"b.example{posh.PATH}"
    assert not await by_posh(made, {here: document(made)})
    assert "another certificate" in await by_posh(made, {here: document(leaf(["x"]))})
    assert "vouches for nothing" in await by_posh(made, {})
    leading = json.dumps({"url": "https://hoster.example/posh.json", "expires": 60}).encode()
    assert not await by_posh(made, {here: leading, "hoster.example/posh.json": document(made)})
    assert "on and on" in await by_posh(made, {here: leading, "hoster.example/posh.json": leading})
    for url in ("http://hoster.example/x", "https://hoster.example:8443/x", "file:///etc/passwd"):
        lead = json.dumps({"url": url, "expires": 60}).encode()
        assert "not HTTPS" in await by_posh(made, {here: lead})


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"fingerprints": []}', b'{"expires": 0, "fingerprints": []}', b"[" * 100_000,
        b'{"expires": true, "fingerprints": []}', b'{"expires": 1, "fingerprints": [{"sha-256": "?"}]}',
        b'{"expires": 1, "fingerprints": [], "url": "https://x"}', b" " * 70_000,
    ],
)  # fmt: skip
def test_posh_documents_that_are_none(body: bytes) -> None:
    with pytest.raises(ValueError):
        posh.read(body)


@given(st.binary(max_size=200))
def test_any_posh_document_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        posh.read(body)


# --- all together ---------------------------------------------------------------------------------------------------


async def judge(made: Made, *, dns: FakeDns | None = None, documents: bytes | None = None, **policy: Any) -> Any:
    names = FakeDns(authentic=True)
    names.srv["_xmpp-server._tcp.b.example"] = [(0, 0, 5269, "x.b.example")]
    names.tlsa = dns.tlsa if dns is not None else {}
    asked: list[str] = []

    async def fetch(host: str, path: str) -> bytes:
        asked.append(host)
        if documents is None:
            raise NotFound("not there")
        return documents

    proofs = Proofs(
        ANCHORS, dns=names if dns is not None else None, locator=Locator(names, Guard((), list)), fetch=fetch
    )
    usual: dict[str, Any] = {"tls": "required", "certificates": "optional", "dialback": True, "server_auth_only": True}
    rules = Policy(**(usual | policy))
    return await proofs.judge("b.example", made.chain, "server", rules), asked


async def test_the_first_proof_that_holds_counts() -> None:
    found, asked = await judge(leaf(["b.example"], ROOT))
    assert found.proof == "pkix"
    own = leaf(["b.example"])
    dns = FakeDns()
    dns.tlsa["_5269._tcp.x.b.example"] = [record(own)]
    found, _ = await judge(own, dns=dns)
    assert found.proof == "dane"
    found, asked = await judge(own, documents=document(own), certificates="required")
    assert found.proof == "posh"
    assert asked == ["b.example"]


async def test_web_servers_are_asked_only_where_it_decides() -> None:
    own = leaf(["b.example"])
    found, asked = await judge(own, documents=document(own))
    assert found.proof is None
    assert not asked
    assert "self-signed" in found.reason


async def test_no_certificate_at_all() -> None:
    found = await Proofs(ANCHORS, dns=None, locator=Locator(FakeDns(), Guard((), list)), fetch=None).judge(
        "b.example", [], "client", Policy("required", "optional", True, True)
    )
    assert found.proof is None
    assert found.reason == "it showed no certificate"
