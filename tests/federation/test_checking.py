"""The check of a domain between two sites in memory: each trouble is found, and named with its next step."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from federation_names import A, B, trusted
from moim.federation.chains import Anchors
from moim.federation.checking import Checker, Own
from moim.federation.policies import Override
from peer_certificates import NOW, authority, leaf
from s2s_network import FakeDns, Network


def checker(site: Any, certificates: frozenset[bytes]) -> Checker:
    running = site.running
    return Checker(
        lambda: Own(site.domain, f"x.{site.domain}", (site.address,), 5269, certificates),
        locator=running.locator,
        streams=running.streams,
        connector=running.connector,
        verifier=running.verifier,
        proofs=running.proofs,
        policies=site.policies,
        keys=running.keys,
        clock=site.clock,
        patience=1.0,
    )


async def check(site: Any, domain: str = B, certificates: frozenset[bytes] = frozenset()) -> dict[str, Any]:
    told = [step async for step in checker(site, certificates).check(domain)]
    assert told[:-1] == told[-1]["steps"]
    return told[-1]


def texts(found: dict[str, Any], state: str) -> list[str]:
    return [f"{step['what']}: {step['text']}" for step in found["steps"] if step["state"] == state]


async def test_all_is_well(make: Any) -> None:
    anchors, shows = trusted(A, B)
    a = await make(A, shows=shows[A], trusts=anchors)
    await make(B, shows=shows[B], trusts=anchors)
    found = await check(a, certificates=frozenset(shows[A][:1]))
    assert found["ok"], texts(found, "failed")
    assert found["verdict"] == "Messages between a.example and b.example go both ways."
    assert [step["what"] for step in found["steps"]] == [
        "policy", "our records", "port in", "their records", "port out", "encryption", "certificate",
        "dialback to them", "dialback to us", "authentication",
    ]  # fmt: skip
    assert not texts(found, "failed") + texts(found, "warning")


async def test_a_domain_that_is_not_allowed(make: Any) -> None:
    a = await make(A)
    await a.policies.put(B, Override(access="deny"))
    found = await check(a)
    assert not found["ok"]
    assert found["next"] == "moim federation policy set b.example --access allow"


async def test_our_own_domain(make: Any, dns: FakeDns) -> None:
    anchors, shows = trusted(A)
    a = await make(A, shows=shows[A], trusts=anchors)
    found = await check(a, A, frozenset(shows[A][:1]))
    assert found["ok"]
    assert found["verdict"] == "a.example is this site's own domain, and others are told to find it here."
    found = await check(a, A, frozenset([b"another"]))
    assert not found["ok"]
    assert "at 10.0.0.1:5269 another server answers for a.example" in found["verdict"]
    assert found["next"].startswith("point the records of a.example")
    del dns.srv[f"_xmpp-server._tcp.{A}"]
    assert "has no SRV record" in (await check(a, A, frozenset(shows[A][:1])))["verdict"]


async def test_a_peer_that_insists_on_certificates_does_not_call_back(make: Any) -> None:
    anchors, shows = trusted(A, B)
    a = await make(A, shows=shows[A], trusts=anchors)
    await make(B, shows=shows[B], trusts=anchors, certificates="required", dialback=False)
    found = await check(a, certificates=frozenset(shows[A][:1]))
    assert found["ok"]
    assert found["verdict"].startswith("Messages to b.example go out. Whether it reaches us could not be tried")
    assert any("dialback to us: b.example takes certificates alone" in text for text in texts(found, "unknown"))


async def test_their_records_lead_to_a_server_that_knows_nothing_of_them(make: Any, dns: FakeDns) -> None:
    dns.srv["_xmpp-server._tcp.c.example"] = [(0, 0, 5269, f"x.{B}")]
    a, _ = await make(A), await make(B)
    found = await check(a, "c.example")
    assert "does not serve c.example: its records lead to somebody else's server" in found["verdict"]
    assert found["next"].startswith("ask c.example's administrator to correct the SRV records")


async def test_a_certificate_that_ended(make: Any) -> None:
    root = authority()
    anchors, own = Anchors([root.certificate]), leaf([A], root).chain
    a = await make(A, shows=own, trusts=anchors)
    await make(B, shows=leaf([B], root, end=NOW - timedelta(hours=2)).chain, trusts=anchors)
    found = await check(a, certificates=frozenset(own[:1]))
    assert found["ok"]
    assert found["verdict"].startswith(
        "Messages between a.example and b.example go both ways. Yet the certificate ended on"
    )
    assert found["next"] == "tell b.example's administrator; until then dialback vouches for b.example"
    await a.policies.put(B, Override(certificates="required"))
    found = await check(a, certificates=frozenset(own[:1]))
    assert not found["ok"]
    assert "the certificate ended on" in found["verdict"]
    assert "federation.trusted" in found["next"]


async def test_a_port_that_is_closed(make: Any, network: Network) -> None:
    a = await make(A)
    network.down.add("10.0.0.2")
    found = await check(a)
    assert "port out: x.b.example (10.0.0.2:5269) cannot be reached: connection refused" in texts(found, "failed")
    assert found["next"].startswith("open TCP 5269 from this host")


async def test_no_records(make: Any, dns: FakeDns) -> None:
    a = await make(A)
    found = await check(a, "nowhere.example")
    assert (
        "their records: nowhere.example has no SRV record, so its own address is tried: nowhere.example:5269"
        in texts(found, "warning")
    )
    assert "nowhere.example has no address that can be connected to" in found["verdict"]
    dns.srv["_xmpp-server._tcp.no.example"] = [(0, 0, 0, "")]
    assert "says in the DNS that it exchanges no messages" in (await check(a, "no.example"))["verdict"]


async def test_our_own_records_are_missing_or_lead_to_a_hoster(make: Any, dns: FakeDns) -> None:
    a, _ = await make(A), await make(B)
    del dns.srv[f"_xmpp-server._tcp.{A}"]
    found = await check(a)
    assert "our records: a.example has no SRV record as seen from here" in texts(found, "warning")
    dns.srv[f"_xmpp-server._tcp.{A}"] = [(5, 0, 5269, "xmpp-server.l.google.com")]
    found = await check(a)
    assert "lead to Google" in texts(found, "failed")[0]
    assert "take a.example out of Google" in found["next"]


async def test_somebody_else_answers_for_our_domain(make: Any, dns: FakeDns) -> None:
    """The other one calls back whoever the DNS names for us, and that one knows nothing of our keys."""
    a, b = await make(A), await make(B)
    squatter = await make("a.example", shows=[b"another certificate"])
    network_of_b = FakeDns()
    network_of_b.srv = {f"_xmpp-server._tcp.{A}": [(0, 0, 5269, "squatter.example")]}
    network_of_b.hosts = {"squatter.example": ["10.0.0.77"]}
    squatter.servers.listen("xmpp-server", "10.0.0.77", 5269, "server")
    a.servers.listen("xmpp-server", a.address, 5269, "server")
    b.running.locator._dns = network_of_b
    found = await check(a)
    assert any("somebody else may host a.example" in text for text in texts(found, "failed"))
    assert "find out who else hosts a.example" in found["next"]


async def test_a_firewall_that_lets_nobody_in(make: Any, network: Network, dns: FakeDns) -> None:
    a, b = await make(A), await make(B)
    unreachable = FakeDns()
    b.running.locator._dns = unreachable
    found = await check(a)
    assert not found["ok"]
    assert any(text.startswith("dialback to us") for text in texts(found, "failed"))
    assert found["next"].startswith("let TCP 5269 from the internet through")
    del dns, network


async def test_a_wrong_certificate(make: Any) -> None:
    anchors, shows = trusted(A, B, "other.example")
    a = await make(A, shows=shows[A], trusts=anchors, certificates="required")
    await make(B, shows=shows["other.example"], trusts=anchors)
    found = await check(a)
    assert any("not for b.example" in text for text in texts(found, "failed"))
    assert "federation.trusted" in found["next"]


async def test_no_encryption(make: Any) -> None:
    a = await make(A)
    await make(B, tls="off", certificates="off")
    found = await check(a)
    assert any("offers no encryption" in text for text in texts(found, "failed"))
    assert found["next"] == "moim federation policy set b.example --tls optional"
