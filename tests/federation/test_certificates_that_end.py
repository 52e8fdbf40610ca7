"""Certificates that end while a stream is up (RFC 6120 section 13.7.2): it ends too, the next proves itself anew."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from federation_names import A, B
from moim.federation.chains import Anchors
from moim.proto.xmpp import Element
from peer_certificates import NOW, authority, leaf
from s2s_network import Network

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


async def pair(make: Any, *, ends: dict[str, timedelta], **settings: Any) -> tuple[Any, Any]:
    """a and b, with certificates that end so much later; each looks at them as ``settings`` say."""
    root = authority()
    anchors = Anchors([root.certificate])
    shows = {name: leaf([name], root, end=NOW + ends.get(name, 20 * DAY)).chain for name in (A, B)}
    sites = [await make(name, shows=shows[name], trusts=anchors, **settings) for name in (A, B)]
    return sites[0], sites[1]


def texts(stanzas: list[Element]) -> list[str]:
    return [one.find("body").text if one.get("type") == "chat" else one.to_xml() for one in stanzas]  # type: ignore[union-attr]


async def test_theirs_ends_and_dialback_vouches_for_them_from_then_on(make: Any) -> None:
    a, b = await pair(make, ends={B: HOUR})
    a.say(f"v@{B}", "1")
    await b.hears()
    [before] = a.running.streams
    assert a.row(B)["streams"][0]["certificate"] == "pkix"
    a.later = 2 * HOUR
    await a.until(lambda: not before.usable)
    for text in "234":
        a.say(f"v@{B}", text)
    assert texts(await b.hears(3)) == ["2", "3", "4"], "nothing of what came meanwhile is lost, or overtakes"
    assert before.reason == "the certificate that b.example showed has ended"
    [stream] = [one for one in a.row(B)["streams"] if one["openedBy"] == "us"]
    assert stream["certificate"] == "not proven"
    assert "the certificate ended on" in stream["certificateProblem"]
    assert a.row(B)["lastError"] == before.reason
    a.later = 3 * HOUR
    [now] = [one for one in a.running.streams if one.sends]
    for _ in range(2):
        a.running.streams._look_at(now, a.clock())
    assert now.usable, "it proved nothing, so it does not end either"
    assert not a.got


async def test_theirs_ends_where_a_right_one_is_required(make: Any, network: Network) -> None:
    a, b = await pair(make, ends={B: HOUR}, certificates="required")
    a.say(f"v@{B}", "1")
    await b.hears()
    [stream] = a.running.streams
    a.later = 2 * HOUR
    await a.until(lambda: stream.over)
    tried = len(network.tried)
    a.say(f"v@{B}", "2")
    [back] = await a.hears()
    assert "the certificate ended on" in back.to_xml()
    assert len(network.tried) == tried + 1


async def test_who_accepted_a_stream_ends_it_and_who_opened_it_dials_anew(make: Any, network: Network) -> None:
    a, b = await pair(make, ends={A: HOUR}, certificates="required")
    a.say(f"v@{B}", "1")
    assert texts(await b.hears()) == ["1"]
    b.say(f"u@{A}", "on the same stream")
    assert texts(await a.hears()) == ["on the same stream"]
    [taken] = b.running.streams
    b.later = 2 * HOUR
    await b.until(lambda: taken.over)
    assert taken.incoming
    assert taken.reason == "the certificate that a.example showed has ended"
    await a.until(lambda: not len(a.running.streams))
    root = authority()
    for site in (a, b):
        site.running.proofs._anchors = Anchors([root.certificate])
        site.servers.certificates = {"": leaf([site.domain], root).chain}
    tried = len(network.tried)
    a.say(f"v@{B}", "2")
    assert texts(await b.hears()) == ["2"], "with a new certificate it goes on"
    assert len(network.tried) == tried + 1


async def test_what_dialback_opened_does_not_end_with_a_certificate(make: Any) -> None:
    a, b = await pair(make, ends={A: HOUR, B: HOUR}, certificates="off")
    a.say(f"v@{B}")
    await b.hears()
    a.later = b.later = 2 * HOUR
    for site in (a, b):
        for stream in site.running.streams:
            site.running.streams._look_at(stream, site.clock())
            assert stream.usable
            assert stream.proven_until is None
