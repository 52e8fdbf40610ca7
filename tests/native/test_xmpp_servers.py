"""Streams between servers: TLS with certificates both ways, pairs of domains, what goes over the wire."""

from __future__ import annotations

import socket
import ssl

import pytest

from moim._native import Element

from .xmpp_peers import NS_CLIENT, NS_STREAM_ERRORS, NS_STREAMS, NS_TLS, WAIT, certificate
from .xmpp_servers import (
    FIRST_SERVER,
    NS_DIALBACK,
    NS_SASL,
    NS_SERVER,
    A,
    B,
    Side,
    connect,
    der,
    features,
    header,
    raw,
    side,
)


@pytest.mark.parametrize("tls", [False, True])
def test_both_sides_see_the_certificates(a: Side, b: Side, tls: bool) -> None:
    out, into = connect(a, b, tls=tls)
    assert min(out, into) >= FIRST_SERVER
    for found, peer in ((a, B), (b, A)):
        info = next(event[2] for event in found.seen if event[0] == "tls")
        assert info["chain"] == [der(peer)]
        assert info["version"] == "TLSv1.3"
        assert info["sni"] == B
        assert info["alpn"] == ("xmpp-server" if tls else None)
    assert (a.server.stats()["servers"], b.server.stats()["unauthenticated_servers"]) == (1, 1)
    assert a.server.stats()["unauthenticated_servers"] == 0


def test_stanzas_change_their_namespace_on_the_way(a: Side, b: Side) -> None:
    out, into = connect(a, b, tls=True)
    a.server.authenticated(out, B)
    b.server.pair(into, B, A)
    forwarded = Element("message", NS_CLIENT, {"from": "x@y"}, [Element("body", NS_CLIENT, {}, ["inner"])])
    sent = [
        Element(
            "message", NS_CLIENT, {"from": "u@a.test/r", "to": "v@b.test"}, [Element("body", NS_CLIENT, {}, ["<"])]
        ),
        Element("presence", NS_CLIENT, {"from": A, "to": "rooms@B.test"}, [Element("odd", NS_SERVER)]),
        Element(
            "iq",
            NS_CLIENT,
            {"from": "u@a.test", "to": B, "type": "get", "id": "1"},
            [Element("forwarded", "urn:xmpp:forward:0", {}, [forwarded, Element("message", NS_SERVER)])],
        ),
    ]
    a.server.send(out, sent)
    assert [b.next("stanza")[2] for _ in sent] == sent
    dialback = Element("result", NS_DIALBACK, {"from": A, "to": B}, ["key"])
    a.server.send(out, [dialback])
    assert b.next("stanza")[2] == dialback


def test_what_goes_over_the_wire(a: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WAIT)
        sid = a.server.connect("127.0.0.1", listening.getsockname()[1], tls=False, server_name=B)
        peer, _ = listening.accept()
    a.next("connected")
    a.open(sid, B)
    body = Element("body", NS_CLIENT, {}, ["hello"])
    other = Element("body", NS_SERVER, {}, ["hidden"])
    wrapped = Element("x", "urn:x", {}, [body])
    a.server.send(
        sid,
        [
            Element("result", NS_DIALBACK, {"from": A, "to": B}, ["key"]),
            Element("message", NS_CLIENT, {"to": B}, [body, other, wrapped]),
        ],
    )
    a.server.close(sid)
    expected = (
        f"<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='{NS_STREAMS}' "
        f"xmlns:db='jabber:server:dialback' from='{A}' to='{B}' version='1.0' id='s{sid}'>"
        f"<db:result from='{A}' to='{B}'>key</db:result>"
        f"<message to='{B}'><body>hello</body><body xmlns='jabber:client'>hidden</body>"
        "<x xmlns='urn:x'><body xmlns='jabber:client'>hello</body></x></message></stream:stream>"
    )
    with peer, peer.makefile("rb") as reading:
        assert reading.read(len(expected)).decode() == expected


def test_sasl_restarts_hold_what_comes_early(a: Side, b: Side) -> None:
    out, into = connect(a, b, tls=False)
    a.server.send(out, [Element("auth", NS_SASL, {"mechanism": "EXTERNAL"}, ["="])])
    assert b.next("stanza")[2].name == "auth"
    # The peer may send its answer and the next header in one go only after ours, but a broken one does.
    b.server.send(into, [Element("success", NS_SASL)])
    b.server.restart(into)
    b.open(into, A)
    b.server.send(into, [features()])
    assert a.next("stanza")[2] == Element("success", NS_SASL)
    assert a.quiet()
    a.server.restart(out)
    a.next("open")
    assert a.next("stanza")[2] == features()
    a.open(out, B)
    assert b.next("open")[2]["from"] == A


def test_an_outgoing_stream_carries_stanzas_both_ways_once_it_is_paired(a: Side, b: Side) -> None:
    out, into = connect(a, b, tls=True)
    a.server.pair(out, A, B)
    b.server.authenticated(into, A)
    back = Element("message", NS_CLIENT, {"from": "v@b.test", "to": "u@a.test"})
    b.server.send(into, [back])
    assert a.next("stanza")[2] == back
    assert a.server.stats()["unauthenticated_servers"] == b.server.stats()["unauthenticated_servers"] == 0
    a.server.unpair(out, A, B)
    b.server.send(into, [back])
    assert a.next("closed")[2].startswith("not-authorized: ")
    assert b.next("closed")[2].startswith("the peer reported the stream error not-authorized: a stanza came before")


@pytest.mark.parametrize("word", [features(), Element("result", NS_DIALBACK, {"from": B, "to": A, "type": "valid"})])
def test_what_comes_right_behind_the_word_that_opens_a_stream_waits(a: Side, b: Side, word: Element) -> None:
    """A peer that sends on our stream, too, has no reason to wait; and we have not heard of its word yet."""
    out, into = connect(a, b, tls=True)
    a.server.send(out, [Element("auth", NS_SASL, {"mechanism": "EXTERNAL"}, ["="])])
    assert b.next("stanza")[2].name == "auth"
    b.server.authenticated(into, A)
    back = Element("message", NS_CLIENT, {"from": "v@b.test", "to": "u@a.test"}, ["x" * 20_000])
    b.server.send(into, [word, back])
    assert a.next("stanza")[2] == word
    assert a.quiet()
    a.server.pair(out, A, B)
    assert a.next("stanza")[2] == back
    b.server.send(into, [back])
    assert a.next("stanza")[2] == back


@pytest.mark.parametrize(
    ("stanza", "condition"),
    [
        ("<message from='u@b.test' to='v@a.test'/>", None),
        ("<message from='B.TEST' to='v@A.test/r'/>", None),
        ("<message from='u@c.test' to='v@a.test'/>", "invalid-from"),
        ("<message from='u@sub.b.test' to='v@a.test'/>", "invalid-from"),
        ("<message from='u@b.test@c.test' to='v@a.test'/>", "invalid-from"),
        ("<message from='c.test/b.test' to='v@a.test'/>", "invalid-from"),
        ("<message from='u@b.test' to='v@c.test'/>", "improper-addressing"),
        ("<message from='u@b.test'/>", "improper-addressing"),
        ("<message to='v@a.test'/>", "improper-addressing"),
        ("<message from='@b.test' to='v@a.test'/>", "improper-addressing"),
        ("<message from='u@b.test/' to='v@a.test'/>", "improper-addressing"),
        ("<message xmlns='jabber:client' from='u@b.test' to='v@a.test'/>", "invalid-namespace"),
        ("<c:message xmlns:c='jabber:client' from='u@b.test' to='v@a.test'/>", "invalid-namespace"),
        ("<message xmlns='' from='u@b.test' to='v@a.test'/>", "invalid-namespace"),
        ("<route from='u@b.test' to='v@a.test'/>", "unsupported-stanza-type"),
        ("<stream:features/>", "invalid-namespace"),
        ("<?xml version='1.0'?>", "restricted-xml"),
        (header().split("?>")[1], "bad-format"),
    ],
)
def test_what_a_paired_stream_may_carry(a: Side, stanza: str, condition: str | None) -> None:
    with raw(a) as peer:
        sid = peer.opened()
        a.server.pair(sid, A, B)
        peer.send(stanza)
        if condition is None:
            assert a.next("stanza")[2].name == "message"
        else:
            assert f"<{condition} xmlns='{NS_STREAM_ERRORS}'/>" in peer.rest()
            assert a.next("closed")[2].startswith(f"{condition}: ")


@pytest.mark.parametrize(
    ("first", "condition"),
    [
        (header(default=NS_CLIENT), "invalid-namespace"),
        (header(to="c.test"), "host-unknown"),
        (header(to=""), "improper-addressing"),
        (header(attrs=f"from='{B}'"), "unsupported-version"),
        (header().replace("stream:stream", "stream:other"), "bad-format"),
        (header().replace(NS_STREAMS, "urn:x"), "invalid-namespace"),
        (header() + "<message from='u@b.test' to='v@a.test'/>", "not-authorized"),
        (header() + f"<starttls xmlns='{NS_TLS}'/><presence/>", "policy-violation"),
        (header() + "<enable xmlns='urn:xmpp:sm:3'/>", "policy-violation"),
        (header() + "<r xmlns='urn:xmpp:sm:3'/>", "policy-violation"),
        ("<" + "x" * 5000, "policy-violation"),
    ],
)
def test_what_a_stranger_may_not_say(a: Side, first: str, condition: str) -> None:
    with raw(a) as peer:
        peer.send(first)
        answer = peer.rest()
        assert f"<{condition} xmlns='{NS_STREAM_ERRORS}'/>" in answer
        assert answer.startswith("<?xml version='1.0'?><stream:stream xmlns='jabber:server' ")
        assert a.until(lambda: a.seen and a.seen[-1])[0] == "closed"


def test_what_a_peer_says_in_another_language_than_ours_carries_it(a: Side) -> None:
    with raw(a) as peer:
        a.server.pair(peer.opened(f"from='{B}' version='1.0' xml:lang='fr'"), A, B)
        for own, carried in (("", "fr"), (" xml:lang='de'", "de")):
            peer.send(f"<message from='u@b.test' to='v@a.test'{own}/>")
            assert a.next("stanza")[2].get("xml:lang") == carried


def test_a_strangers_stanza_is_small_and_a_paired_servers_may_be_large(a: Side) -> None:
    big = f"<message from='u@b.test' to='v@a.test'><body>{'x' * 100_000}</body></message>"
    with raw(a) as peer:
        sid = peer.opened()
        a.server.authenticated(sid, B)
        peer.send(big)
        assert "<policy-violation" in peer.rest()
        assert a.next("closed")[2] == "policy-violation: the stanza is too big"
    with raw(a) as peer:
        a.server.pair(peer.opened(), A, B)
        peer.send(big)
        assert len(a.next("stanza")[2].find("body").text) == 100_000


def test_services_are_open_to_servers_alone() -> None:
    with side(A) as a:
        a.server.set_domains([B], services=["rooms.b.test"])
        for mode, default, to, refused in (
            ("server", NS_SERVER, "rooms.b.test", False),
            ("server", NS_SERVER, B, False),
            ("starttls", NS_CLIENT, B, False),
            ("starttls", NS_CLIENT, "rooms.b.test", True),
            ("server", NS_SERVER, A, True),
        ):
            with raw(a, mode) as peer:
                peer.send(header(to, default))
                a.next("connected")
                if not refused:
                    a.next("open")
            assert ("host-unknown" in a.next("closed")[2]) is refused


def test_no_certificate_is_accepted_too(a: Side) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context(cadata=certificate(A)[0].decode())
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["xmpp-server"])
        with raw(a, "server-tls") as peer:
            peer.tls(context, A)
            peer.send(header())
            a.next("connected")
            assert a.next("tls")[2]["chain"] == []
            a.next("open")
            peer.close()
            a.next("closed")


def test_certificates_are_chosen_by_name(a: Side, b: Side) -> None:
    b.server.set_tls(*certificate("c.test"), "C.test")
    b.server.set_tls(*certificate("d.test"), "d.test")
    port = b.listen("server-tls")
    shown = {}
    for name in ("c.test", "D.TEST", "e.test", "127.0.0.1"):
        a.server.connect("127.0.0.1", port, tls=True, server_name=name)
        a.next("connected")
        shown[name] = a.next("tls")[2]["chain"]
    b.server.forget_tls("d.test")
    a.server.connect("127.0.0.1", port, tls=True, server_name="d.test")
    a.next("connected")
    assert a.next("tls")[2]["chain"] == [der(B)]
    assert shown == {"c.test": [der("c.test")], "D.TEST": [der("d.test")], "e.test": [der(B)], "127.0.0.1": [der(B)]}
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with raw(b, "tls") as peer:
        peer.tls(client, "c.test")
        assert isinstance(peer.sock, ssl.SSLSocket)
        assert peer.sock.getpeercert(True) == der("c.test")


def test_the_certificate_of_the_local_domain_is_shown(a: Side, b: Side) -> None:
    a.server.set_tls(*certificate("c.test"), "c.test")
    port = b.listen("server-tls")
    for local, expected in (("c.test", "c.test"), (None, A), ("unknown.test", A)):
        sid = a.server.connect("127.0.0.1", port, tls=True, server_name=B, local=local)
        a.next("connected")
        a.next("tls")
        a.open(sid, B)
        b.next("connected")
        assert b.next("tls")[2]["chain"] == [der(expected)]
        b.next("open")
