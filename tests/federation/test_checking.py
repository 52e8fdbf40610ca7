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
    assert found["verdict"] == "The policy here keeps b.example out: this site exchanges nothing with b.example."
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
    dns.srv[f"_xmpps-server._tcp.{A}"] = [(5, 0, 5270, f"x.{A}")]
    found = await check(a, A, frozenset(shows[A][:1]))
    assert found["ok"], found
    assert [text.split(" leads")[0] for text in texts(found, "ok")] == [
        "our records: others are told to find a.example at x.a.example:5269, x.a.example:5270 (TLS)",
        "port in: 10.0.0.1:5269",
        "port in: 10.0.0.1:5270",
    ]
    dns.srv[f"_xmpps-server._tcp.{A}"] = [(5, 0, 5270, f"y.{A}")]
    found = await check(a, A, frozenset(shows[A][:1]))
    assert "y.a.example has no address" in found["verdict"]
    assert found["next"] == "publish an A or AAAA record for y.a.example"
    del dns.srv[f"_xmpps-server._tcp.{A}"]
    del dns.srv[f"_xmpp-server._tcp.{A}"]
    assert "has no SRV record" in (await check(a, A, frozenset(shows[A][:1])))["verdict"]


async def test_a_peer_that_insists_on_certificates_does_not_call_back(make: Any) -> None:
    anchors, shows = trusted(A, B)
    a = await make(A, shows=shows[A], trusts=anchors)
    await make(B, shows=shows[B], trusts=anchors, certificates="required", dialback=False)
    found = await check(a, certificates=frozenset(shows[A][:1]))
    assert found["ok"]
    assert found["verdict"].startswith("Messages to b.example go out. Whether theirs reach us could not be tried")
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
    assert found["next"].startswith("ask b.example's administrator for a right certificate")


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
    assert found["verdict"] == (
        "Nothing is exchanged with nowhere.example: "
        "the DNS has neither an SRV record nor an address of nowhere.example."
    )
    assert found["next"].startswith("look at how nowhere.example is written")
    dns.srv["_xmpp-server._tcp.no.example"] = [(0, 0, 0, "")]
    assert "says in the DNS that it exchanges no messages" in (await check(a, "no.example"))["verdict"]
    dns.srv["_xmpp-server._tcp.half.example"] = [(0, 0, 5269, "x.half.example")]
    found = await check(a, "half.example")
    assert "the SRV records of half.example lead to no address: x.half.example has no address" in found["verdict"]
    assert found["next"] == "ask half.example's administrator for an address of what its SRV records name"
    dns.hosts["x.half.example"] = ["192.168.3.4"]
    found = await check(a, "half.example")
    assert "192.168.3.4 is no public address" in found["verdict"]
    assert found["next"] == "if that is meant, allow its network: federation.target_networks"


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
    b = await make(B, shows=shows["other.example"], trusts=anchors)
    found = await check(a, certificates=frozenset(shows[A][:1]))
    assert any("not for b.example" in text for text in texts(found, "failed"))
    assert "port in" not in "".join(texts(found, "warning")), (
        "what this site requires of others is not required of itself"
    )
    assert found["steps"][-1]["what"] == "certificate", "what the policy here stops is not tried"
    assert found["next"].startswith("ask b.example's administrator for a right certificate; to talk by dialback until")
    b.servers.certificates = {"": leaf([B]).chain}
    found = await check(a, certificates=frozenset(shows[A][:1]))
    assert any("self-signed" in text for text in texts(found, "failed"))
    assert found["next"].startswith("add its authority to federation.trusted, or: moim federation policy set b.example")


async def test_no_encryption(make: Any) -> None:
    a = await make(A)
    await make(B, tls="off", certificates="off")
    found = await check(a)
    assert any("offers no encryption" in text for text in texts(found, "failed"))
    assert found["next"] == "moim federation policy set b.example --tls optional"
    await a.policies.put(B, Override(tls="optional"))
    found = await check(a)
    assert found["ok"]
    assert found["verdict"].endswith("go both ways. Yet x.b.example (10.0.0.2:5269) offers no encryption.")
    assert found["next"] == "tell b.example's administrator"


async def test_encryption_that_is_off_here(make: Any) -> None:
    a, b = await make(A), await make(B, tls="optional")
    await a.policies.put(B, Override(tls="off", certificates="off"))
    found = await check(a)
    assert found["ok"], found
    assert found["verdict"].endswith("go both ways. Yet encryption is off for b.example, by the policy here.")
    assert found["next"] == "moim federation policy set b.example --tls required"
    await b.policies.put(A, Override(tls="required"))
    found = await check(a)
    assert "the peer requires encryption, which is off for it here" in found["verdict"]
    assert found["next"] == "moim federation policy set b.example --tls required"


async def test_certificates_that_are_not_looked_at(make: Any) -> None:
    a, _ = await make(A), await make(B)
    await a.policies.put(B, Override(certificates="off"))
    found = await check(a)
    assert found["verdict"] == "Messages between a.example and b.example go both ways."
    assert "certificate: the certificate of b.example is not looked at, by the policy here" in texts(found, "ok")


async def test_a_peer_that_refuses_us(make: Any) -> None:
    a, b = await make(A), await make(B)
    await b.policies.put(A, Override(access="deny"))
    found = await check(a)
    assert not found["ok"]
    assert "opens no stream" in found["verdict"]
    assert "this site exchanges nothing with a.example" in found["verdict"]
    assert found["next"] == "ask b.example's administrator"
    assert "authentication" not in {step["what"] for step in found["steps"]}, "nothing more is to be found out"


async def test_targets_with_ipv6_addresses_alone(make: Any, dns: FakeDns, network: Network) -> None:
    a = await make(A, target_networks=("10.0.0.0/8", "fd00::/8"))
    b = await make(B)
    b.servers.listen("xmpp-server", "fd00::2", 5269, "server")
    dns.hosts[f"x.{B}"] = ["fd00::2"]
    found = await check(a)
    assert found["verdict"].startswith("Messages between a.example and b.example go both ways.")
    assert "port out: x.b.example (fd00::2:5269) accepts connections" in texts(found, "ok")
    a.running.streams.close_all(lambda _: True, "begin anew")
    network.down.add("fd00::2")
    found = await check(a)
    assert not found["ok"]
    assert "is an IPv6 address, and this host has no way there" in found["verdict"]
    assert "(os error" not in found["verdict"]
    assert found["next"] == "give this host IPv6, or ask b.example's administrator for an IPv4 address"
    dns.hosts[f"x.{B}"] = ["fd00::2", "10.0.0.2"]
    found = await check(a)
    assert found["ok"]
    assert any("this host has no way there" in text for text in texts(found, "warning"))
