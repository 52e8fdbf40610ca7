"""Whole conversations between two sites: who gets through, what comes back, and what happens when a peer dies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from federation_names import A, B, trusted
from moim.federation.policies import Override
from moim.proto.xmpp import Element, ns, s2s
from s2s_network import FakeDns, FakePlane, Network


def bodies(stanzas: list[Element]) -> list[str]:
    return [body.text if (body := one.find("body")) is not None else one.get("type") or "" for one in stanzas]


def error_of(stanza: Element) -> tuple[str, str]:
    error = stanza.find("error")
    assert error is not None, stanza.to_xml()
    condition = next(c.name for c in error.elements() if c.name != "text")
    return condition, next((c.text for c in error.elements() if c.name == "text"), "")


async def test_messages_go_both_ways_by_dialback(make: Any) -> None:
    a, b = await make(A), await make(B)
    for number in range(5):
        a.say(f"v@{B}", str(number))
    assert bodies(await b.hears(5)) == ["0", "1", "2", "3", "4"]
    b.say(f"u@{A}", "back")
    assert bodies(await a.hears()) == ["back"]
    row = a.row(B)
    assert {s["authenticatedBy"] for s in row["streams"]} == {"dialback"}
    assert row["streams"][0]["tls"]["version"] == "TLSv1.3"
    assert row["sent"] == 5
    assert row["queue"] == 0


async def test_right_certificates_need_no_calling_back(make: Any, network: Network) -> None:
    anchors, certificates = trusted(A, B)
    a = await make(A, shows=certificates[A], trusts=anchors, certificates="required", dialback=False)
    b = await make(B, shows=certificates[B], trusts=anchors, certificates="required", dialback=False)
    a.say(f"v@{B}")
    await b.hears()
    assert network.tried == [("10.0.0.2", 5269)]
    stream = b.row(A)["streams"][0]
    assert (stream["authenticatedBy"], stream["certificate"], stream["direction"]) == ("external", "pkix", "both")
    b.say(f"u@{A}", "back")  # on the same stream: it goes both ways
    assert bodies(await a.hears()) == ["back"]
    assert len(network.tried) == 1


@pytest.mark.parametrize("proven", [True, False])
async def test_both_begin_at_once(make: Any, proven: bool) -> None:
    """Each stream is for both directions, and what waits at the one who accepts it goes out on it at once."""
    anchors, shows = trusted(A, B)
    a = await make(A, shows=shows[A] if proven else (), trusts=anchors)
    b = await make(B, shows=shows[B] if proven else (), trusts=anchors)
    for number in range(5):
        a.say(f"v@{B}", str(number))
        b.say(f"u@{A}", str(number))
    for site in (a, b):
        assert bodies(await site.hears(5)) == ["0", "1", "2", "3", "4"]
        assert {stream["direction"] for stream in site.row(A if site is b else B)["streams"]} == {"both"}


async def test_a_wrong_certificate_is_refused_and_the_sender_hears_why(make: Any) -> None:
    anchors, certificates = trusted(A, B, "other.example")
    a = await make(A, shows=certificates[A], trusts=anchors, certificates="required")
    b = await make(B, shows=certificates["other.example"], trusts=anchors)
    a.say(f"v@{B}")
    condition, text = error_of((await a.hears())[0])
    assert condition == "remote-server-timeout"
    assert "the certificate is for other.example, *.other.example, not for b.example" in text
    assert not b.got
    row = a.row(B)
    assert "other.example" in row["lastError"]
    assert row["retryInSeconds"] > 0


async def test_a_domain_that_is_not_allowed(make: Any, network: Network) -> None:
    a, b = await make(A, mode="allow-list", allow=("c.example",)), await make(B)
    a.say(f"v@{B}")
    assert error_of((await a.hears())[0]) == ("not-allowed", "b.example is not on this site's list of domains")
    assert not network.tried
    b.say(f"u@{A}")
    condition, text = error_of((await b.hears())[0])
    assert condition == "remote-server-timeout"
    assert "b.example is not on this site's list" in text
    assert not a.got


async def test_a_policy_that_admins_set_counts_for_the_next_stream(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}")
    await b.hears()
    await a.policies.put(B, Override(access="deny"))
    a.say(f"v@{B}")
    assert error_of((await a.hears())[0])[0] == "not-allowed"
    await a.policies.put(B, Override(tls="off", certificates="off"))
    await b.policies.put("*.example", Override(tls="optional"))
    a.running.streams.close_all(lambda domain: domain == B, "the policy changed")
    await a.until(lambda: not len(a.running.streams))
    a.say(f"v@{B}")
    await b.hears()
    assert a.row(B)["streams"][0]["tls"] is None


async def test_no_such_server(make: Any, dns: FakeDns) -> None:
    a = await make(A)
    a.say("v@nowhere.example")
    condition, text = error_of((await a.hears())[0])
    assert condition == "remote-server-not-found"
    assert "nowhere.example has no address" in text
    dns.failing.add("unknown.example")
    a.say("v@unknown.example")
    condition, text = error_of((await a.hears())[0])
    assert condition == "remote-server-timeout"
    assert "the addresses of unknown.example are not known: SERVFAIL" in text
    dns.srv["_xmpp-server._tcp.no.example"] = [(0, 0, 0, "")]
    a.say("v@no.example")
    assert error_of((await a.hears())[0])[0] == "remote-server-not-found"


async def test_records_that_lead_inside_are_not_followed(make: Any, dns: FakeDns, network: Network) -> None:
    a = await make(A)
    dns.srv["_xmpp-server._tcp.evil.example"] = [
        (0, 0, 5269, "evil.example"),
        (1, 0, 22, "x.b.example"),
        (2, 0, 5269, f"x.{A}"),
    ]
    dns.hosts["evil.example"] = [
        "127.0.0.1",
        "::1",
        "192.168.1.1",
        "169.254.169.254",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
    ]
    a.say("v@evil.example")
    condition, text = error_of((await a.hears())[0])
    assert condition == "remote-server-timeout"
    assert "127.0.0.1 is no public address" in text
    assert "this server itself" in text
    assert "port 22" in text
    assert not network.tried


async def test_the_next_address_when_the_first_is_down(make: Any, dns: FakeDns, network: Network) -> None:
    a, b = await make(A), await make(B)
    dns.srv[f"_xmpp-server._tcp.{B}"] = [(0, 0, 5269, "down.b.example"), (1, 0, 5269, f"x.{B}")]
    dns.hosts["down.b.example"] = ["10.0.0.9"]
    a.say(f"v@{B}")
    await b.hears()
    assert network.tried[:2] == [("10.0.0.9", 5269), ("10.0.0.2", 5269)]


async def test_a_silent_address_does_not_hold_up_the_next(make: Any, dns: FakeDns, network: Network) -> None:
    a, b = await make(A), await make(B)
    dns.srv[f"_xmpp-server._tcp.{B}"] = [(0, 0, 5269, "silent.b.example"), (1, 0, 5269, f"x.{B}")]
    dns.hosts["silent.b.example"] = ["10.0.0.9"]
    network.silent.add("10.0.0.9")
    a.say(f"v@{B}")
    await b.hears()


async def test_a_target_that_accepts_and_says_nothing_is_passed_over(make: Any, dns: FakeDns, network: Network) -> None:
    a, b = await make(A), await make(B)
    FakePlane(network, "10.0.0.9").listen("mute", "10.0.0.9", 5269, "server")
    dns.srv[f"_xmpp-server._tcp.{B}"] = [
        (0, 0, 5269, f"nowhere.{B}"),
        (1, 0, 5269, f"mute.{B}"),
        (2, 0, 5270, f"mute.{B}"),
        (3, 0, 5269, f"x.{B}"),
    ]
    dns.hosts[f"mute.{B}"] = ["10.0.0.9"]
    a.say(f"v@{B}", "1")
    a.say(f"v@{B}", "2")
    await a.until(lambda: any(stream.connected.done() for stream in a.running.streams))
    a.now += 31
    assert bodies(await b.hears(2)) == ["1", "2"]
    assert [place for place in network.tried if place[0] != "10.0.0.1"] == [
        ("10.0.0.9", 5269),
        ("10.0.0.9", 5270),
        ("10.0.0.2", 5269),
    ], "another port of the same address may lead to another program"
    assert not a.got


async def test_a_worse_priority_is_for_when_the_better_one_is_down(make: Any, dns: FakeDns, network: Network) -> None:
    dns.srv[f"_xmpp-server._tcp.{B}"] = [(0, 0, 5269, f"x.{B}"), (10, 0, 5269, f"backup.{B}")]
    dns.hosts[f"backup.{B}"] = ["10.0.0.99"]
    network.slow.add("10.0.0.2")
    a, b = await make(A), await make(B)
    a.say(f"v@{B}", "far away")
    await b.hears()
    assert [place for place in network.tried if place[0] != "10.0.0.1"] == [("10.0.0.2", 5269)]


async def test_direct_tls_by_its_own_records(make: Any, dns: FakeDns, network: Network) -> None:
    a, b = await make(A), await make(B)
    dns.srv[f"_xmpps-server._tcp.{B}"] = [(0, 0, 5270, f"x.{B}")]
    dns.srv[f"_xmpp-server._tcp.{B}"] = [(5, 0, 5269, f"x.{B}")]
    a.say(f"v@{B}")
    await b.hears()
    assert network.tried[0] == ("10.0.0.2", 5270)


async def test_a_dead_peer_is_left_alone_for_a_while_and_then_found_again(make: Any, network: Network) -> None:
    a, b = await make(A), await make(B)
    network.down.add("10.0.0.2")
    a.say(f"v@{B}", "1")
    assert error_of((await a.hears())[0])[0] == "remote-server-timeout"
    tried = len(network.tried)
    a.say(f"v@{B}", "2")
    assert "connection refused" in error_of((await a.hears())[0])[1]
    assert len(network.tried) == tried
    network.down.clear()
    a.now += 10
    a.say(f"v@{B}", "3")
    assert bodies(await b.hears()) == ["3"]


async def test_what_a_dying_peer_did_not_get_comes_back_or_goes_by_another_stream(make: Any, network: Network) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}", "1")
    lost = await b.hears()
    request = Element("iq", ns.CLIENT, {"from": f"u@{A}/r", "to": f"v@{B}", "type": "get", "id": "q"})
    b.servers.crash([*lost, request])
    assert bodies(await b.hears()) == ["1"], "the peer is back, and gets it after all"
    [returned] = await a.hears()
    assert (returned.name, returned.get("id")) == ("iq", "q"), "a request may have been carried out"
    assert error_of(returned)[0] == "remote-server-timeout"
    b.servers.crash(lost)
    assert "the connection was reset" in error_of((await a.hears())[0])[1], "the second time in a row is one too many"
    a.now += 60
    a.say(f"v@{B}", "2")
    lost = await b.hears()
    b.servers.crash(lost)
    assert bodies(await b.hears()) == ["2"]


async def test_a_peer_that_starts_again_gets_what_it_did_not_take(make: Any, network: Network) -> None:
    a, b = await make(A, retry_first_seconds=0.05), await make(B)
    a.say(f"v@{B}", "1")
    lost = await b.hears()
    network.down.add("10.0.0.2")
    tried = len(network.tried)
    b.servers.crash(lost)
    await a.until(lambda: len(network.tried) >= tried + 2)
    a.say(f"v@{B}", "2")
    network.down.clear()
    assert bodies(await b.hears(2)) == ["1", "2"]
    assert not a.got


async def test_what_a_peer_does_not_take_in_time_comes_back(make: Any, network: Network) -> None:
    a, b = await make(A, retry_first_seconds=0.05, queue_seconds=0.3), await make(B)
    a.say(f"v@{B}", "1")
    lost = await b.hears()
    network.down.add("10.0.0.2")
    b.servers.crash(lost)
    condition, text = error_of((await a.hears())[0])
    assert condition == "remote-server-timeout"
    assert "connection refused" in text


async def test_what_a_stream_did_not_carry_goes_before_what_came_after_its_end(make: Any) -> None:
    a, b = await make(A), await make(B)
    for number in "12":
        a.say(f"v@{B}", number)
    lost = await b.hears(2)
    [stream] = [one for one in a.running.streams if one.sends]
    a.servers.ends[stream.sid].unsent.extend(lost)
    stream.close("it was idle")
    a.say(f"v@{B}", "3")
    assert bodies(await b.hears(3)) == ["1", "2", "3"]
    assert not a.got


async def test_what_comes_too_late_for_a_stream_goes_by_another_one(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}", "1")
    late = await b.hears()
    stream = next(iter(a.running.streams))
    stream.close("it was idle")
    await a.until(lambda: stream.over)
    a.servers._tell("undelivered", stream.sid, list(late))
    assert bodies(await b.hears()) == ["1"]


async def test_what_the_plane_carries_alone_counts(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}")
    await b.hears()
    stream = next(iter(a.running.streams))
    assert a.servers.ends[stream.sid].ways == {(A, B)}, "what waited has gone out"
    before = stream.last_out
    a.now += 300
    a.servers._tell("carried", stream.sid, 2, 3)
    await a.until(lambda: stream.last_out >= before + 300)
    row = a.row(B)
    assert (row["received"], row["sent"]) == (2, 4)


async def test_silence_is_noticed(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}")
    await b.hears()
    stream = next(iter(a.running.streams))
    a.servers.ends[stream.sid].deaf = True
    a.say(f"v@{B}", "into the void")
    a.now += 61
    await a.until(lambda: stream.asked_at is not None)
    a.now += 61
    await a.until(lambda: stream.over)
    assert "did not answer" in stream.reason


async def test_a_ping_is_answered_and_the_stream_stays(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}")
    await b.hears()
    stream = next(one for one in a.running.streams if one.sends)
    stream.last_out = a.clock() + 0.5
    a.now += 61
    ping = (await b.hears())[0]
    assert ping.find("ping", ns.PING) is not None
    assert (ping.get("from"), ping.get("to")) == (A, B)
    b.running.peers.send(Element("iq", ns.CLIENT, {"type": "result", "id": ping.get("id") or "", "from": B, "to": A}))
    await a.until(lambda: stream.asked_at is None)
    assert stream.usable
    assert not a.got, "the answer is not for people"


async def test_idle_streams_end(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}")
    await b.hears()
    a.now += 601
    await a.until(lambda: not len(a.running.streams))


async def test_the_queue_is_bounded_and_in_order(make: Any, network: Network) -> None:
    a = await make(A, queue_stanzas=3)
    network.silent.add("10.0.0.2")
    for number in range(5):
        a.say(f"v@{B}", str(number))
    errors = await a.hears(5)
    assert [error_of(one)[0] for one in errors[:2]] == ["resource-constraint"] * 2
    assert [one.get("id") for one in errors] == ["3", "4", "0", "1", "2"]
    assert a.running.outbox.total_bytes == 0


async def test_spoofing_ends_the_stream(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}")
    await b.hears()
    stream = next(one for one in a.running.streams if one.sends)
    a.servers.send(stream.sid, [Element("message", ns.CLIENT, {"from": "ceo@c.example", "to": f"v@{B}"})])
    await a.until(lambda: stream.over)
    assert not b.got


async def test_a_stranger_cannot_make_us_call_the_world(make: Any, network: Network) -> None:
    a, b = await make(A), await make(B, verifications_per_minute=3)

    answers = await asyncio.gather(
        *(b.running.verifier.verify(s2s.Verify(B, f"x{number}.example", "s", "k"), "192.0.2.1") for number in range(10))
    )
    assert [condition for condition, _ in answers].count("resource-constraint") == 7
    again, _ = await b.running.verifier.verify(s2s.Verify(B, "x0.example", "s2", "k"), "192.0.2.2")
    assert again == "remote-server-not-found"
    assert len(network.tried) == 0
    del a


async def test_rooms_have_streams_of_their_own(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"room@rooms.{B}", "join")
    await b.hears()
    b.say(f"u@{A}", "welcome", sender=f"room@rooms.{B}")
    assert bodies(await a.hears()) == ["welcome"]


async def test_probes_and_goodbyes_do_not_come_back(make: Any, network: Network) -> None:
    a = await make(A)
    network.down.add("10.0.0.2")
    for kind in ("probe", "unavailable", "unsubscribe"):
        a.running.peers.send(Element("presence", ns.CLIENT, {"from": f"u@{A}", "to": f"v@{B}", "type": kind}))
    a.say(f"v@{B}")
    assert len(await a.hears()) == 1
    assert not a.got


async def test_too_many_streams_of_one_address(make: Any) -> None:
    a, b = await make(A), await make(B, max_streams_per_address=1)
    a.say(f"v@{B}")
    await b.hears()
    a.say(f"v@{B}", sender=f"room@rooms.{A}")
    assert "too many streams" in error_of((await a.hears())[0])[1]


async def test_what_waits_for_a_stream_is_held_until_it_is_under_way_or_back(make: Any, network: Network) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}", "out")
    assert a.held == 1
    await b.hears()
    assert a.held == 0
    a.say(f"v@{B}", "on the open stream")
    assert a.held == 0
    network.down.add("10.0.0.3")
    a.say("v@other.example", "back")
    assert a.held == 1
    assert error_of((await a.hears())[0])[0].startswith("remote-server")
    await a.until(lambda: not a.held)


async def test_what_came_is_acknowledged_when_the_chat_room_has_dealt_with_it(make: Any) -> None:
    a, b = await make(A), await make(B)
    for number in range(2):
        a.say(f"v@{B}", str(number))
    await b.hears(2)
    assert b.servers.done_with == []
    first, second = b.overs
    second(True)
    (stream,) = [one for one in b.running.streams if one.incoming]
    stream.event(("close", stream.sid), 0.0)
    assert not stream.over
    assert not stream.usable
    first(True)
    assert len(b.servers.done_with) == 2
    await b.until(lambda: stream.over)


async def test_a_stream_ends_whose_message_cannot_be_kept(make: Any) -> None:
    a, b = await make(A), await make(B)
    a.say(f"v@{B}")
    await b.hears()
    b.overs[0](False)
    assert b.servers.done_with == []
    await a.until(lambda: "resource-constraint" in a.row(B)["lastError"] or not a.row(B)["streams"])


async def test_what_did_not_leave_before_a_stop_comes_back(make: Any, network: Network) -> None:
    """Nobody hears nothing: what waits for a stream, what a slow stream has not taken, and what comes too late."""
    a, b = await make(A), await make(B)
    a.say(f"v@{B}", "1")
    [first] = await b.hears()
    next(end for end in a.servers.ends.values() if end.client).unsent.append(first)
    network.silent.add("10.0.0.9")
    dns_of_a = a.running.dns
    dns_of_a.hosts["c.example"] = ["10.0.0.9"]
    a.say("w@c.example", "2")
    await a.running.stop()
    a.say(f"v@{B}", "3")
    came_back = await a.hears(3)
    assert {one.get("id") for one in came_back} == {"1", "2", "3"}
    assert {error_of(one) for one in came_back} == {("remote-server-timeout", "this server is stopping")}
    assert not a.held
