"""DANE: what TLSA records stand for, over made-up answers, and over those of a resolver that checks DNSSEC."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from federation_names import A, B
from moim.federation import dane
from moim.federation.chains import Anchors, Role, read_chain
from moim.federation.guard import Guard
from moim.federation.locating import Located, Locator, Target
from moim.federation.policies import Policy
from moim.federation.proofs import Proofs, Verdict
from moim.net.resolver import Resolver, TlsaRecord
from peer_certificates import NOW, Made, authority, leaf
from s2s_network import FakeDns
from tiny_dns import TinyDns
from validating_resolver import ValidatingResolver

LOCATED = Located((Target("x.b.example", 5269, direct=False),), srv=True, authentic=True)


def record(made: Made, usage: int = 3, selector: int = 0, matching: int = 1) -> TlsaRecord:
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


async def test_what_any_server_says_counts_as_far_as_it_is_authentic() -> None:
    made = leaf(["b.example"])
    records = (
        "_xmpp-server._tcp.b.example. 60 IN SRV 0 0 5269 x.b.example.",
        f"_5269._tcp.x.b.example. 60 IN TLSA 3 0 1 {record(made).data.hex()}",
    )
    for authentic in (True, False):
        dns = TinyDns(records, authentic=authentic)
        resolver = Resolver([(dns.address, dns.port)])
        located = await Locator(resolver, Guard((), list)).locate("b.example", "required")
        why = await dane.prove(resolver, "b.example", located, read_chain(made.chain), "server", now=NOW)
        assert (not why) is authentic
        dns.close()


# --- with a resolver that checks signatures --------------------------------------------------------------------------

ROOT = authority()
OWN, UNDER, WRONG = leaf(["whatever.example"]), leaf(["x.b.example"], ROOT), leaf(["b.example"])


def tlsa(made: Made, usage: int, selector: int) -> str:
    found = record(made, usage, selector)
    return f"TLSA {usage} {selector} 1 {found.data.hex()}"


def server(*lines: str) -> tuple[str, ...]:
    """The zone of a domain whose server is ``x`` below it; ``lines`` are the records about its certificate."""
    certificates = (f"_5269._tcp.x 60 IN {line}" for line in lines)
    return ("_xmpp-server._tcp 60 IN SRV 0 0 5269 x", "x 60 IN A 10.0.0.2", *certificates)


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValidatingResolver]:
    forged = leaf(["forged.example"])
    made = ValidatingResolver(
        tmp_path_factory.mktemp("unbound"),
        signed={
            B: server(tlsa(OWN, 3, 1)),
            "authority.example": server(tlsa(ROOT, 2, 0)),
            "bare.example": server(),
            "forged.example": server(tlsa(forged, 3, 1)),
            "bound.example": ("_xmpp-server._tcp 60 IN SRV 0 0 5269 x.unsigned.example.",),
            "alias.example": (
                "_xmpp-server._tcp 60 IN CNAME elsewhere", "elsewhere 60 IN SRV 0 0 5269 x", "x 60 IN CNAME y",
                "y 60 IN A 10.0.0.2", "_5269._tcp.x 60 IN CNAME tlsa", f"tlsa 60 IN {tlsa(OWN, 3, 1)}",
            ),
        },
        unsigned={"unsigned.example": server(tlsa(OWN, 3, 1))},
        forged={record(forged, 3, 1).data.hex(): record(OWN, 3, 1).data.hex()},
    )  # fmt: skip
    made.start()
    yield made
    made.stop()


async def judge(unbound: ValidatingResolver, domain: str, made: Made, role: Role = "server") -> Verdict:
    dns = unbound.resolver()
    proofs = Proofs(Anchors([]), dns=dns, locator=Locator(dns, Guard(["10.0.0.0/8"], list)), fetch=None)
    return await proofs.judge(domain, made.chain, role, Policy("required", "required", False, True))


@pytest.mark.parametrize("role", ["server", "client"])
async def test_signed_records_prove_a_domain(unbound: ValidatingResolver, role: Role) -> None:
    assert (await judge(unbound, B, OWN, role)).proof == "dane"
    assert (await judge(unbound, "alias.example", OWN, role)).proof == "dane", "records may stand under another name"
    assert (await judge(unbound, "authority.example", leaf(["x.authority.example"], ROOT), role)).proof == "dane"
    assert (await judge(unbound, "authority.example", leaf(["authority.example"], ROOT), role)).proof == "dane"


@pytest.mark.parametrize(
    ("domain", "made", "why"),
    [
        (B, WRONG, "its TLSA records stand for another certificate"),
        ("authority.example", leaf(["evil.example"], ROOT), "its TLSA records stand for another certificate"),
        ("authority.example", leaf(["authority.example"], authority()), "stand for another certificate"),
        ("bare.example", OWN, "it has no TLSA records"),
        ("unsigned.example", OWN, "DNSSEC does not vouch for its records"),
        ("bound.example", OWN, "it has no TLSA records"),
        ("forged.example", OWN, "it has no TLSA records"),
        ("nothing.b.example", OWN, "it has no TLSA records"),
    ],
)
async def test_records_that_prove_nothing(unbound: ValidatingResolver, domain: str, made: Made, why: str) -> None:
    found = await judge(unbound, domain, made)
    assert found.proof is None
    assert why in found.reason


async def test_streams_between_sites_by_dane(unbound: ValidatingResolver, make: Any) -> None:
    """b.example shows a certificate that no authority signed; a.example insists on one, and believes its records."""
    a = await make(A, dns=unbound.resolver(), dnssec=True, certificates="required", dialback=False)
    b = await make(B, shows=OWN.chain)
    a.say(f"v@{B}")
    await b.hears()
    assert {stream.machine.proof for stream in a.running.streams if not stream.incoming} == {"dane"}
    b.say(f"u@{A}", "back")
    await a.hears()
    await b.stop()
    await make(B, shows=WRONG.chain)
    a.running.streams.close_all(lambda _: True, "once more")
    a.say(f"v@{B}", "to somebody else")
    [refused] = await a.hears()
    assert refused.get("type") == "error"
    assert "its TLSA records stand for another certificate" in refused.to_xml("")
