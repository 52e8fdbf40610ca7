"""Streams between servers: connecting, TLS with certificates both ways, pairs of domains, what was not delivered."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moim._native import Element, XmppServer
from moim.errors import UsageError

from .xmpp_peers import NS_CLIENT, NS_STREAM_ERRORS, NS_STREAMS, NS_TLS, WAIT, Client, Host, certificate

NS_SERVER = "jabber:server"
NS_DIALBACK = "jabber:server:dialback"
NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
A, B = "a.test", "b.test"
FIRST_SERVER = 1 << 48


def header(to: str = A, default: str = NS_SERVER, attrs: str = f"from='{B}' version='1.0'") -> str:
    return f"<?xml version='1.0'?><stream:stream to='{to}' {attrs} xmlns='{default}' xmlns:stream='{NS_STREAMS}'>"


def der(name: str) -> bytes:
    return x509.load_pem_x509_certificate(certificate(name)[0]).public_bytes(Encoding.DER)


class Side:
    """One server, whose every decision the test makes."""

    def __init__(self, domain: str, **bounds: Any) -> None:
        self.domain = domain
        self.server = XmppServer(domain, **bounds)
        self.server.set_tls(*certificate(domain))
        self.seen: list[tuple[Any, ...]] = []
        self.taken = 0

    def listen(self, mode: str = "server", **options: Any) -> int:
        return self.server.listen("127.0.0.1", 0, mode, **options)[1]  # type: ignore[arg-type]

    def pump(self, seconds: float = 0.02) -> None:
        if select.select([self.server.fileno()], [], [], seconds)[0]:
            self.seen += self.server.drain(1000)

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + WAIT
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it did not happen; last events: {repr(self.seen[-5:])[:2000]}"
            self.pump()
        return found

    def next(self, kind: str) -> tuple[Any, ...]:
        """The next event, which must be of this kind."""
        event = self.until(lambda: self.seen[self.taken : self.taken + 1])[0]
        assert event[0] == kind, event
        self.taken += 1
        return tuple(event)

    def quiet(self) -> bool:
        self.pump()
        return len(self.seen) == self.taken

    def open(self, sid: int, to: str) -> None:
        self.server.open_stream(sid, {"from": self.domain, "to": to, "version": "1.0", "id": f"s{sid}"})


@contextmanager
def side(domain: str, **bounds: Any) -> Iterator[Side]:
    made = Side(domain, **bounds)
    try:
        yield made
    finally:
        made.server.stop()


@pytest.fixture
def a() -> Iterator[Side]:
    with side(A) as made:
        yield made


@pytest.fixture
def b() -> Iterator[Side]:
    with side(B) as made:
        yield made


def features(*children: Element) -> Element:
    return Element("features", NS_STREAMS, {}, children)


def connect(a: Side, b: Side, *, tls: bool, **options: Any) -> tuple[int, int]:
    """A stream from ``a`` to ``b`` under TLS, open on both sides; the two numbers."""
    port = b.listen("server-tls" if tls else "server")
    out = a.server.connect("127.0.0.1", port, tls=tls, server_name=B, local=A, **options)
    assert a.next("connected") == ("connected", out, 0, "127.0.0.1", port, tls)
    if tls:
        a.next("tls")
    else:
        a.open(out, B)
        into = b.next("connected")[1]
        b.next("open")
        b.open(into, A)
        b.server.send(into, [features(Element("starttls", NS_TLS))])
        a.next("open")
        assert a.next("stanza")[2].find("starttls", NS_TLS)
        a.server.send(out, [Element("starttls", NS_TLS)])
        assert b.next("stanza")[2] == Element("starttls", NS_TLS)
        b.server.starttls(into)
        assert a.next("stanza")[2] == Element("proceed", NS_TLS)
        a.server.starttls(out)
        a.next("tls")
        b.next("tls")
    a.open(out, B)
    if tls:
        into = b.next("connected")[1]
        b.next("tls")
    attrs = b.next("open")[2]
    assert attrs == {"from": A, "to": B, "version": "1.0", "id": f"s{out}", "xmlns": NS_SERVER}
    b.open(into, A)
    b.server.send(into, [features()])
    a.next("open")
    assert a.next("stanza")[2] == features()
    return out, into


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


class Raw(Client):
    """Another server on a raw socket."""

    def __init__(self, side: Side, port: int) -> None:
        super().__init__(side, port)  # type: ignore[arg-type]
        self.side = side

    def opened(self, attrs: str = f"from='{B}' version='1.0'") -> int:
        self.send(header(attrs=attrs))
        sid: int = self.side.next("connected")[1]
        self.side.next("open")
        self.side.open(sid, B)
        self.until(f"id='s{sid}'>")
        return sid


@contextmanager
def raw(side: Side, mode: str = "server") -> Iterator[Raw]:
    made = Raw(side, side.listen(mode))
    yield made
    made.close()


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


def test_connections_that_cannot_be_made(a: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    sid = a.server.connect("127.0.0.1", port, tls=False, server_name=B)
    assert a.next("closed") == (
        "closed",
        sid,
        "the connection could not be made: Connection refused (os error 111)",
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        # It listens, but says nothing: TLS does not come about.
        sid = a.server.connect("127.0.0.1", port, tls=True, server_name=B, timeout=0.2)
        assert a.next("closed") == ("closed", sid, "the connection could not be made: no answer within 0.2 s")
        sid = a.server.connect("127.0.0.1", port, tls=True, server_name=B)
        for _ in range(2):
            accepted, _ = listening.accept()
        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert a.next("closed")[2].startswith("TLS failed: ")
        accepted.close()
    a.until(lambda: a.server.stats()["sessions"] == 0)
    assert a.server.stats()["servers"] == 0


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose queue of connections is full: whoever connects gets no answer."""
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def test_an_address_that_does_not_answer(a: Side, silent: int) -> None:
    sid = a.server.connect("127.0.0.1", silent, tls=False, server_name=B, timeout=0.2)
    assert a.next("closed") == ("closed", sid, "the connection could not be made: no answer within 0.2 s")
    sid = a.server.connect("127.0.0.1", silent, tls=True, server_name=B, timeout=60.0)
    a.server.send(sid, [message(1)])
    a.server.close(sid)
    assert a.next("undelivered") == ("undelivered", sid, [message(1)])
    assert a.next("closed") == ("closed", sid, "the server ended the stream")
    a.until(lambda: a.server.stats()["servers"] == 0)


def test_the_source_address_is_used(a: Side, b: Side) -> None:
    port = b.listen()
    sid = a.server.connect("127.0.0.1", port, tls=False, server_name=B, source="127.0.0.9")
    a.next("connected")
    a.open(sid, B)
    assert b.next("connected")[3] == "127.0.0.9"


def test_arguments_that_make_no_sense(a: Side) -> None:
    connections: list[dict[str, Any]] = [
        {"address": "b.test", "server_name": B},
        {"address": "127.0.0.1", "server_name": "b_ü.test"},
        {"address": "127.0.0.1", "server_name": ""},
        {"address": "127.0.0.1", "server_name": B, "timeout": -1.0},
        {"address": "127.0.0.1", "server_name": B, "source": "::1"},
    ]
    for arguments in connections:
        with pytest.raises(UsageError):
            a.server.connect(port=1, tls=False, **arguments)
    for domain in ("", "u@b.test", "b.test/r"):
        with pytest.raises(UsageError):
            a.server.pair(1, A, domain)


def test_strangers_among_servers_do_not_push_out_clients() -> None:
    with side(A, max_unauthenticated_servers=2, max_unauthenticated=2, threads=1) as a:
        client = Raw(a, a.listen("starttls"))
        client.send(header(default=NS_CLIENT))
        a.next("connected")
        a.next("open")
        port = a.listen()
        peers = [Raw(a, port) for _ in range(5)]
        a.until(lambda: a.server.stats()["refused"] == 3)
        assert all(peer.rest() == "" for peer in peers[:3])
        assert a.server.stats()["unauthenticated"] == 1
        assert a.server.stats()["unauthenticated_servers"] == 2
        for peer in [client, *peers]:
            peer.close()


def test_the_time_for_signing_in_is_bounded() -> None:
    with side(A, handshake_timeout=0.3) as a, side(B) as b:
        out, _ = connect(a, b, tls=True)
        assert a.next("closed") == ("closed", out, "connection-timeout: signing in took too long")
        with raw(a) as peer:
            peer.opened()
            assert "<connection-timeout" in peer.rest()
            a.next("closed")
        port = b.listen("server-tls")
        out = a.server.connect("127.0.0.1", port, tls=True, server_name=B)
        a.server.authenticated(out, B)
        a.next("connected")
        a.next("tls")
        with raw(a) as peer:
            peer.opened()
            peer.rest()
            assert a.next("closed")[1] != out


def message(number: int, size: int = 1000) -> Element:
    body = Element("body", NS_CLIENT, {}, ["x" * size])
    return Element("message", NS_CLIENT, {"from": "u@a.test", "to": "v@b.test", "id": str(number)}, [body])


@pytest.mark.parametrize("tls", [False, True])
def test_what_a_server_does_not_take_is_handed_back(tls: bool) -> None:
    with side(A, server_write_queue=1 << 20) as a, side(B) as b:
        if tls:
            out, into = connect(a, b, tls=True)
            b.server.pair(into, B, A)
        else:
            port = b.listen()
            out = a.server.connect("127.0.0.1", port, tls=False, server_name=B)
            a.next("connected")
            a.open(out, B)
            into = b.next("connected")[1]
            b.next("open")
            b.server.pair(into, B, A)
        a.server.authenticated(out, B)
        sent = [message(number) for number in range(20_000)]
        for start in range(0, len(sent), 100):
            a.server.send(out, sent[start : start + 100])
        # Nobody drains b: it stops reading, and a's queue grows over its bound.
        closed = a.until(lambda: next((event for event in a.seen if event[0] == "closed"), None))
        assert closed[2] == "resource-constraint: the peer reads too slowly"
        b.until(lambda: any(event[0] == "closed" for event in b.seen))
        arrived = [event[2] for event in b.seen if event[0] == "stanza" and event[2].name == "message"]

        def whole() -> list[Element] | None:
            returned = [element for event in a.seen if event[0] == "undelivered" for element in event[2]]
            return arrived + returned if len(arrived) + len(returned) == len(sent) else None

        # In order, none twice, none lost.
        found = a.until(whole)
        assert found == sent
        assert a.seen.index(closed) > next(index for index, event in enumerate(a.seen) if event[0] == "undelivered")


def test_stanzas_for_a_stream_that_is_gone_come_back(a: Side, b: Side) -> None:
    out, into = connect(a, b, tls=True)
    a.server.authenticated(out, B)
    b.server.close(into)
    a.next("close")
    a.server.close(out)
    a.next("closed")
    a.until(lambda: a.server.stats()["servers"] == 0)
    a.server.send(out, [message(1), Element("result", NS_DIALBACK), message(2)])
    assert a.next("undelivered") == ("undelivered", out, [message(1), message(2)])


def test_a_host_of_clients_is_not_disturbed(a: Side) -> None:
    host = Host()
    try:
        client = Client(host, host.listen())
        client.starttls()
        client.login("alice", "desk")
        assert host.event("tls")[2]["chain"] == []
    finally:
        host.server.stop()
