"""Policies that change while streams are up: what does not fulfil the new one ends at once, in either direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from federation_names import A, B, trusted
from moim.bus import Bus, Hub
from moim.federation.policies import Override
from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.s2s import dialback
from s2s_network import FakePlane, Network

from .test_routes import node


async def both_ways(a: Any, b: Any) -> None:
    a.say(f"v@{B}", "there")
    b.say(f"u@{A}", "back")
    await b.hears()
    await a.hears()


@pytest.mark.parametrize("domain", [B, "*.example"])
async def test_encryption_is_required_from_now_on(make: Any, domain: str) -> None:
    a, b = await make(A, tls="optional"), await make(B, tls="off", certificates="off")
    service = node(a, Bus())
    await both_ways(a, b)
    streams = tuple(a.running.streams)
    assert {stream.incoming for stream in streams} == {True, False}
    assert all(stream["tls"] is None for stream in a.row(B)["streams"])
    await service.set_policy(domain, Override(tls="required"))
    assert not [stream for stream in streams if stream.usable]
    await b.until(lambda: not b.row(A)["streams"])
    for one, to in ((a, f"v@{B}"), (b, f"u@{A}")):
        one.say(to, "in the clear?")
        [back] = await one.hears()
        assert back.get("type") == "error"
        assert "encryption" in back.to_xml() or "connection ended" in back.to_xml()
    assert not [stream for stream in (*a.row(B)["streams"], *b.row(A)["streams"]) if stream["tls"] is None]


async def test_a_domain_is_denied_and_let_in_again(make: Any) -> None:
    anchors, shows = trusted(A, B)
    a, b = await make(A, shows=shows[A], trusts=anchors), await make(B, shows=shows[B], trusts=anchors)
    service = node(a, Bus())
    await both_ways(a, b)
    streams = tuple(a.running.streams)
    await service.set_policy(B, Override(access="deny"))
    assert not [stream for stream in streams if stream.usable]
    await b.until(lambda: not len(b.running.streams))
    a.say(f"v@{B}")
    b.say(f"u@{A}")
    assert (await a.hears())[0].get("type") == (await b.hears())[0].get("type") == "error"
    await service.drop_policy(B)
    b.running.peers.forget(A)
    await both_ways(a, b)


class ByHand:
    """A server that opens one stream and says what the test says."""

    def __init__(self, network: Network, shows: Sequence[bytes]) -> None:
        self.plane = FakePlane(network, "10.0.0.7", {"": shows})
        self.plane.attach(lambda batch: self.heard.extend(batch))
        self.heard: list[Any] = []

    def open(self, address: str, sender: str, to: str) -> None:
        self.sid = self.plane.connect(address, 5270, tls=True, server_name=to, local=sender, timeout=5)
        self._header = {"from": sender, "to": to, "version": "1.0"}

    def say(self, *elements: Element) -> None:
        self.plane.send(self.sid, elements)

    def header(self) -> None:
        self.plane.open_stream(self.sid, self._header)

    def results(self) -> list[tuple[str, str]]:
        """Who answered which question about a domain, and how."""
        said = [event[2] for event in self.heard if event[0] == "stanza"]
        return [(one.get("to") or "", one.get("type") or "") for one in said if dialback.is_dialback(one)]


async def test_a_stream_of_several_domains_ends_with_any_of_them(make: Any, network: Network) -> None:
    """The second domain of a stream is shown and ended like the first."""
    anchors, shows = trusted(A)
    b = await make(B, trusts=anchors)
    service = node(b, Bus())
    hand = ByHand(network, shows[A])
    hand.open("10.0.0.2", A, B)
    await b.until(lambda: any(event[0] == "tls" for event in hand.heard))
    hand.header()
    hand.plane.authenticated(hand.sid, B)
    await b.until(lambda: any(event[0] == "stanza" for event in hand.heard))
    for sender in (A, f"rooms.{A}"):
        hand.say(dialback.request("result", sender=sender, target=B, key="made-up"))
    await b.until(lambda: len(hand.results()) == 2)
    assert set(hand.results()) == {(A, "valid"), (f"rooms.{A}", "valid")}
    for domain in (A, f"rooms.{A}"):
        [shown] = b.row(domain)["streams"]
        assert shown["authenticatedBy"] == "certificate"
    hand.say(Element("message", ns.CLIENT, {"from": f"r@rooms.{A}", "to": f"v@{B}"}))
    await b.hears()
    await service.set_policy(f"rooms.{A}", Override(access="deny"))
    await b.until(lambda: any("reset" in event[2] for event in hand.heard if event[0] == "closed"))
    assert not b.row(A)["streams"]


async def test_a_node_that_was_not_reached_ends_streams_when_it_reads_the_policies(make: Any) -> None:
    one, b = await make(A), await make(B)
    two = await make(A, beside=one)
    hub = Hub()
    first, second = node(one, Bus(hub), "inside", ["inside2"]), node(two, Bus(hub), "inside2", ["inside"])
    two.say(f"v@{B}")
    await b.hears()
    streams = [stream for stream in two.running.streams if stream.sends]
    await hub.cut()
    await second.refresh()
    assert [stream for stream in streams if stream.usable], "nothing has changed"
    await first.set_policy(B, Override(certificates="required"))
    assert [stream for stream in streams if stream.usable], "nobody told it"
    await second.refresh()
    assert not [stream for stream in streams if stream.usable]
    await first.drop_policy(B)
    assert await two.policies.load() == {B}
    assert await two.policies.load() == set()


@pytest.mark.parametrize("slow", [True, False])
async def test_what_is_being_opened_is_opened_under_the_new_policy(make: Any, network: Network, slow: bool) -> None:
    """Before the connection is up, and after; nothing that waits is lost."""
    a, b = await make(A, tls="optional"), await make(B, tls="optional", certificates="off")
    service = node(a, Bus())
    if slow:
        network.slow.add("10.0.0.2")
    connect = a.servers.connect

    def connect_and_say_nothing(*where: Any, **how: Any) -> int:
        sid: int = connect(*where, **how)
        a.servers.ends[sid].deaf = True
        a.servers.connect = connect
        return sid

    a.servers.connect = connect_and_say_nothing
    a.say(f"v@{B}", "waits")
    await a.until(lambda: network.tried)
    [stream] = a.running.streams
    await a.until(lambda: slow or stream.connected.done())
    await service.set_policy(B, Override(tls="off", certificates="off"))
    [heard] = await b.hears()
    assert heard.get("id") == "waits"
    assert [stream["tls"] for stream in a.row(B)["streams"] if stream["openedBy"] == "us"] == [None]
    assert not a.got


async def test_what_is_being_opened_is_not_opened_to_a_domain_that_was_denied(make: Any, network: Network) -> None:
    a, _ = await make(A), await make(B)
    network.slow.add("10.0.0.2")
    a.say(f"v@{B}")
    await a.until(lambda: network.tried)
    await node(a, Bus()).set_policy(B, Override(access="deny"))
    [back] = await a.hears()
    assert "this site exchanges nothing with b.example" in back.to_xml()
    assert not a.row(B)["streams"]
