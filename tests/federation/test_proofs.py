"""All proofs together: the first that holds counts, and web servers are asked only where it decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from moim.errors import NotFound
from moim.federation.chains import Anchors
from moim.federation.guard import Guard
from moim.federation.locating import Locator
from moim.federation.policies import Policy
from moim.federation.proofs import Proofs
from peer_certificates import NOW, Made, authority, leaf
from s2s_network import FakeDns

from .test_dane import record
from .test_posh import document

ROOT = authority()
ANCHORS = Anchors([ROOT.certificate])


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


async def test_how_long_a_proof_holds() -> None:
    """What DANE and POSH vouch for holds on when it has ended already."""
    for end, holds in ((NOW + timedelta(days=1), True), (NOW - timedelta(days=1), False)):
        until = end.replace(microsecond=0) if holds else None
        own, dns = leaf(["b.example"], start=NOW - timedelta(days=2), end=end), FakeDns()
        dns.tlsa["_5269._tcp.x.b.example"] = [record(own)]
        found, _ = await judge(own, dns=dns)
        assert (found.proof, found.until) == ("dane", until)
        found, _ = await judge(own, documents=document(own), certificates="required")
        assert (found.proof, found.until) == ("posh", until)
    found, _ = await judge(leaf(["b.example"], ROOT, end=NOW + timedelta(days=1)))
    assert found.until == (NOW + timedelta(days=1)).replace(microsecond=0)


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
    assert found.reason == "no certificate was shown"
