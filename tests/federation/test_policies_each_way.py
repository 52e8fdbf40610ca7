"""Every value of the policies for one domain, between two sites, each opening streams to the other."""

from __future__ import annotations

from typing import Any

import pytest

from federation_names import A, B, trusted
from moim.federation.chains import Anchors
from moim.federation.policies import Override
from moim.proto.xmpp import ns
from peer_certificates import CLIENT, SERVER, authority, leaf
from s2s_network import Network

USES = ("off", "optional", "required")


async def goes(one: Any, other: Any) -> bool:
    """Whether a message arrives on a new stream; if not, it comes back with a reason."""
    for site, domain in ((one, other.domain), (other, one.domain)):
        site.running.streams.close_all(domain.__eq__, "begin anew")
        site.running.peers.forget(domain)
    await one.until(lambda: not len(one.running.streams) + len(other.running.streams))
    one.say(f"x@{other.domain}", "hello")
    await one.until(lambda: one.got or other.got)
    if other.got:
        await other.hears()
        return True
    [back] = await one.hears()
    assert back.get("type") == "error"
    assert back.find("error").find("text", ns.STANZA_ERRORS) is not None
    return False


def opened(site: Any, domain: str) -> list[Any]:
    """The open streams that a site opened to a domain."""
    return [stream for stream in site.row(domain)["streams"] if stream["openedBy"] == "us"]


@pytest.mark.parametrize("theirs", USES)
@pytest.mark.parametrize("ours", USES)
async def test_encryption(make: Any, ours: Any, theirs: Any) -> None:
    """Used unless one side has it off, and nothing goes when the other insists; in both directions."""
    a, b = await make(A), await make(B)
    await a.policies.put(B, Override(tls=ours))
    await b.policies.put(A, Override(tls=theirs))
    for one, other in ((a, b), (b, a)):
        if {ours, theirs} == {"off", "required"}:
            assert not await goes(one, other)
            assert "encryption" in one.row(other.domain)["lastError"]
            assert not opened(one, other.domain)
        else:
            assert await goes(one, other)
            assert [bool(stream["tls"]) for stream in opened(one, other.domain)] == ["off" not in (ours, theirs)]


@pytest.mark.parametrize("shown", ["right", "of another domain", "of nobody known", "none"])
@pytest.mark.parametrize("rule", USES)
async def test_certificates_of_a_domain(make: Any, rule: Any, shown: str) -> None:
    """Not looked at, used where right, or insisted on: of who accepts (a to b), and of who connects here (b to a)."""
    anchors, known = trusted(A, B, "other.example")
    chain = {"right": known[B], "of another domain": known["other.example"], "of nobody known": leaf([B]).chain}
    a = await make(A, shows=known[A], trusts=anchors)
    b = await make(B, shows=chain.get(shown, ()), trusts=anchors)
    await a.policies.put(B, Override(certificates=rule))
    allowed = rule != "required" or shown == "right"
    proven = rule != "off" and shown == "right"
    assert await goes(a, b) is allowed
    assert await goes(b, a) is allowed
    if not allowed:
        assert not [stream for stream in a.row(B)["streams"] if stream["direction"] != "out"]
        return
    [taken] = [stream for stream in a.row(B)["streams"] if stream["openedBy"] == "them"]
    assert taken["certificate"] == ("pkix" if proven else "not proven")
    assert taken["authenticatedBy"] == ("external" if proven else "dialback")
    assert bool(taken["certificateProblem"]) is (rule == "optional" and not proven)


@pytest.mark.parametrize("usages", [(SERVER,), (SERVER, CLIENT)])
@pytest.mark.parametrize("enough", [True, False])
async def test_certificates_for_servers_alone(make: Any, enough: bool, usages: Any) -> None:
    """Good enough for who connects here unless the policy says otherwise; always for who accepts."""
    root = authority()
    anchors = Anchors([root.certificate])
    a = await make(A, shows=leaf([A], root).chain, trusts=anchors)
    b = await make(B, shows=leaf([B], root, usages=usages).chain, trusts=anchors)
    await a.policies.put(B, Override(certificates="required", dialback=False, server_auth_only=enough))
    comes_in = enough or CLIENT in usages
    assert await goes(b, a) is comes_in
    if not comes_in:
        assert "it is for servers alone" in b.row(A)["lastError"]
    assert await goes(a, b)


@pytest.mark.parametrize("proof", [True, False])
async def test_dialback_alone_is_not_taken_where_it_is_off(make: Any, proof: bool) -> None:
    anchors, known = trusted(A, B)
    a = await make(A, shows=known[A], trusts=anchors)
    b = await make(B, shows=known[B] if proof else (), trusts=anchors)
    await a.policies.put(B, Override(dialback=False))
    assert await goes(a, b) is proof
    assert await goes(b, a) is proof


async def test_the_status_of_both_directions(make: Any, network: Network) -> None:
    """Of each stream: its direction, encryption, by what it was authenticated; of each peer: errors and what waits."""
    anchors, known = trusted(A)
    a, b = await make(A, shows=known[A], trusts=anchors), await make(B, trusts=anchors, certificates="off")
    for one, other, opener, where in (
        (a, b, "us", ("10.0.0.2", 5269, f"x.{B}")),
        (b, a, "them", ("10.0.0.2", 40000, "")),
    ):
        assert await goes(one, other)
        stream = next(stream for stream in a.row(B)["streams"] if stream["direction"] == "both")
        assert stream["openedBy"] == opener
        assert stream["tls"] == {"version": "TLSv1.3", "cipher": "TLS13_AES_256_GCM_SHA384"}
        assert (stream["authenticatedBy"], stream["certificate"]) == ("dialback", "not proven")
        assert stream["certificateProblem"] == "no certificate was shown"
        assert stream["pairs"] == [{"local": A, "remote": B}]
        assert (stream["address"], stream["port"], stream["host"]) == where
        assert stream["since"].endswith("+00:00")
    for site, domain in ((a, B), (b, A)):
        await site.policies.put(domain, Override(tls="off"))
    for one, other, direction in ((a, b, "out"), (b, a, "in")):
        assert await goes(one, other)
        [stream] = a.row(B)["streams"]
        assert (stream["direction"], stream["tls"], stream["authenticatedBy"]) == (direction, None, "dialback")
    row = a.row(B)
    assert (row["queue"], row["queueBytes"], row["lastError"], row["lastErrorAt"]) == (0, 0, "", None)
    network.silent.add("10.0.0.2")
    a.say(f"v@{B}")
    await a.until(lambda: a.row(B)["opening"])
    row = a.row(B)
    assert (row["queue"], [stream["direction"] for stream in row["streams"]]) == (1, ["in"])
    assert row["queueBytes"] > 0
    await a.hears()
    row = a.row(B)
    assert (row["queue"], row["returned"]) == (0, 1)
    assert "no answer in time" in row["lastError"]
    assert row["lastErrorAt"]
    assert row["retryInSeconds"] > 0
