"""A client's sign-in against a server that is a script: each test says what the server sends, and what comes of it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto.xmpp import ClientLogin, Element, Failed, Received, SignedIn, StartTlsNow, XmlStream, ns, sasl
from moim.proto.xmpp.scram import ScramServer, downgrade_hash, make_verifier

HEADER = (
    "<?xml version='1.0'?><stream:stream from='example.com' id='s1' version='1.0' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>"
)
STARTTLS = "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
PROCEED = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
BIND = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
BOUND = (
    "<iq type='result' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
    "<jid>alice@example.com/r1</jid></bind></iq>"
)


def mechanisms(*names: str) -> str:
    listed = "".join(f"<mechanism>{name}</mechanism>" for name in names)
    return f"<stream:features><mechanisms xmlns='{ns.SASL}'>{listed}</mechanisms></stream:features>"


class Script:
    """Feeds text to the machine, and reads back what it sends."""

    def __init__(self, login: ClientLogin) -> None:
        self.login = login
        self.sent: list[Element] = []
        self.raw = b""
        self._parser = XmlStream()

    def takes(self, text: str) -> None:
        self.login.receive(text.encode(), 1.0)
        self.collect()

    def collect(self) -> None:
        while (data := self.login.next_output()) is not None:
            self.raw += data
            if data.startswith(b"<?xml"):
                self._parser = XmlStream()
            self.sent += [item[1] for item in self._parser.feed(data) if item[0] == "element"]

    def event(self) -> object:
        return self.login.next_event()


def direct(**options: object) -> Script:
    login = ClientLogin("alice@example.com", "pencil", tls="direct", nonce=lambda: "cn", **options)  # type: ignore[arg-type]
    login.start(0.0)
    script = Script(login)
    script.collect()
    return script


def scram_answer(script: Script, password: str = "pencil", binding: bytes | None = None) -> str:
    """The server's success after a whole SCRAM exchange."""
    auth = script.sent[-1]
    mechanism = auth.get("mechanism") or ""
    server = ScramServer(
        "SCRAM-SHA-256" if "256" in mechanism else "SCRAM-SHA-1",
        nonce="sn",
        plus=mechanism.endswith("-PLUS"),
        plus_offered=binding is not None,
        bindings={} if binding is None else {"tls-exporter": binding},
    )
    server.first(sasl.decode(auth.text))
    challenge = server.challenge(make_verifier(server.mechanism, password, b"salt", 4096))
    script.takes(f"<challenge xmlns='{ns.SASL}'>{base64.b64encode(challenge).decode()}</challenge>")
    _, success = server.final(sasl.decode(script.sent[-1].text))
    return f"<success xmlns='{ns.SASL}'>{base64.b64encode(success).decode()}</success>"


def test_the_whole_way_with_starttls() -> None:
    login = ClientLogin("Alice@Example.com", "pencil", resource="r1", nonce=lambda: "cn")
    script = Script(login)
    login.start(0.0)
    script.collect()
    assert b'to="example.com"' in script.raw
    assert b"alice" not in script.raw
    script.takes(HEADER + STARTTLS)
    assert script.sent == [Element("starttls", ns.TLS)]
    script.takes(PROCEED)
    assert script.event() == StartTlsNow()
    login.receive(HEADER.encode() + mechanisms("PLAIN").encode(), 1.0)  # sent before TLS: must not count
    login.tls_started(1.0)
    script.takes(HEADER + mechanisms("SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN"))
    assert script.sent[-1].get("mechanism") == "SCRAM-SHA-256"
    script.takes(scram_answer(script))
    script.takes(HEADER + BIND)
    assert script.sent[-1].find("bind", ns.BIND) == Element(
        "bind", ns.BIND, {}, (Element("resource", ns.BIND, {}, ("r1",)),)
    )
    script.takes(BOUND)
    event = script.event()
    assert isinstance(event, SignedIn)
    assert str(event.jid) == "alice@example.com/r1"
    assert event.mechanism == "SCRAM-SHA-256"
    assert login.deadline() is None
    script.takes("<message><body>안녕 👋</body></message>")
    received = script.event()
    assert isinstance(received, Received)
    assert received.stanza.find("body", ns.CLIENT).text == "안녕 👋"  # type: ignore[union-attr]
    login.send(Element("presence", ns.CLIENT))
    login.finish()
    script.collect()
    assert script.raw.endswith(b"</stream:stream>")


def test_the_channel_is_bound_when_both_can() -> None:
    login = ClientLogin("alice@example.com", "pencil", tls="direct", nonce=lambda: "cn")
    login.start(0.0, binding=bytes(32))
    script = Script(login)
    script.takes(HEADER + mechanisms("SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
    assert script.sent[-1].get("mechanism") == "SCRAM-SHA-256-PLUS"
    assert sasl.decode(script.sent[-1].text).startswith(b"p=tls-exporter,,")
    script.takes(scram_answer(script, binding=bytes(32)))
    script.takes(HEADER + BIND + BOUND)
    assert isinstance(script.event(), SignedIn)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (HEADER + "<stream:features/>", "refused", "no way to authenticate"),
        (HEADER + mechanisms("PLAIN"), "refused", "PLAIN"),
        (HEADER + mechanisms("EXTERNAL", "GSSAPI"), "refused", "EXTERNAL, GSSAPI"),
        (
            HEADER + "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
            "refused",
            "host-unknown",
        ),
        (HEADER + "</stream:stream>", "closed", "closed"),
        (HEADER + "<message/>", "protocol", "message"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "protocol", "protocol"),
        ("<html>", "protocol", "protocol"),
        (HEADER + "<!-- comment -->", "protocol", "protocol"),
        (
            HEADER + mechanisms("SCRAM-SHA-1") + "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
            "protocol",
            "protocol",
        ),
        (
            HEADER + mechanisms("SCRAM-SHA-1") + "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>?</challenge>",
            "protocol",
            "base64",
        ),
        (
            HEADER
            + mechanisms("SCRAM-SHA-1")
            + "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>",
            "credentials",
            "password",
        ),
        (
            HEADER
            + mechanisms("SCRAM-SHA-1")
            + "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/><text>later</text></failure>",
            "refused",
            "later",
        ),
    ],
)
def test_a_server_that_does_not_let_us_in(text: str, kind: str, words: str) -> None:
    script = direct()
    script.takes(text)
    event = script.event()
    assert isinstance(event, Failed)
    assert event.kind == kind
    assert words in event.reason
    assert script.event() is None
    script.takes(HEADER)
    assert script.event() is None


def test_no_password_goes_out_without_encryption() -> None:
    login = ClientLogin("alice@example.com", "pencil", allow_plain=True)
    script = Script(login)
    login.start(0.0)
    script.takes(HEADER + mechanisms("PLAIN", "SCRAM-SHA-1"))
    event = script.event()
    assert isinstance(event, Failed)
    assert event.kind == "unencrypted"
    assert not script.sent


def test_plain_when_allowed() -> None:
    script = direct(allow_plain=True, username="AL")
    script.takes(HEADER + mechanisms("PLAIN"))
    assert sasl.decode(script.sent[-1].text) == b"\0AL\0pencil"
    script.takes(f"<success xmlns='{ns.SASL}'/>")
    script.takes(HEADER + BIND + BOUND)
    assert isinstance(script.event(), SignedIn)


def test_a_server_that_does_not_know_the_password_is_not_believed() -> None:
    script = direct()
    script.takes(HEADER + mechanisms("SCRAM-SHA-256"))
    scram_answer(script)
    script.takes(
        f"<success xmlns='{ns.SASL}'>{base64.b64encode(b'v=' + base64.b64encode(bytes(32))).decode()}</success>"
    )
    event = script.event()
    assert isinstance(event, Failed)
    assert "did not prove" in event.reason


def test_a_refused_resource() -> None:
    script = direct()
    script.takes(HEADER + mechanisms("SCRAM-SHA-256"))
    script.takes(scram_answer(script))
    script.takes(HEADER + BIND)
    script.takes(
        f"<iq type='error' id='bind'><error type='wait'><resource-constraint xmlns='{ns.STANZA_ERRORS}'/></error></iq>"
    )
    event = script.event()
    assert isinstance(event, Failed)
    assert event.condition == "resource-constraint"


def test_time_runs_out() -> None:
    script = direct(timeout=5.0)
    assert script.login.deadline() == 5.0
    script.login.tick(4.9)
    assert script.event() is None
    script.login.tick(5.0)
    event = script.event()
    assert isinstance(event, Failed)
    assert event.kind == "timeout"


def test_the_connection_ends() -> None:
    script = direct()
    script.login.closed(1.0)
    event = script.event()
    assert isinstance(event, Failed)
    assert event.kind == "closed"


def test_stanzas_wait_for_the_sign_in() -> None:
    with pytest.raises(ProtocolError):
        direct().login.send(Element("presence", ns.CLIENT))


@given(
    st.lists(
        st.sampled_from(
            [
                HEADER,
                STARTTLS,
                PROCEED,
                BIND,
                BOUND,
                mechanisms("SCRAM-SHA-1"),
                f"<success xmlns='{ns.SASL}'/>",
                "</stream:stream>",
                f"<challenge xmlns='{ns.SASL}'/>",
                "<iq/>",
                "<stream:features/>",
                "x",
                "\x00",
            ]
        ),
        max_size=8,
    )
)
def test_any_order_ends_in_an_event_at_worst(parts: list[str]) -> None:
    for mode in ("direct", "starttls"):
        login = ClientLogin("alice@example.com", "pencil", tls=mode)
        login.start(0.0)
        for part in parts:
            login.receive(part.encode(), 0.0)
            while (event := login.next_event()) is not None:
                assert not isinstance(event, SignedIn)
                if isinstance(event, StartTlsNow):
                    login.tls_started(0.0)


def at_once(*names: str, bind: bool = True, types: str = "") -> str:
    """Features of a server that can sign in at once."""
    listed = "".join(f"<mechanism>{name}</mechanism>" for name in names)
    inline = f"<inline><bind xmlns='{ns.BIND2}'/></inline>" if bind else ""
    offer = f"<authentication xmlns='{ns.SASL2}'>{listed}{inline}</authentication>"
    old = f"<mechanisms xmlns='{ns.SASL}'><mechanism>SCRAM-SHA-1</mechanism></mechanisms>"
    return f"<stream:features>{offer}{old}{types}</stream:features>"


def answer_at_once(script: Script, *, extra: str, protection: str = "") -> str:
    """The server's success after a whole exchange in the way of XEP-0388, with ``extra`` in it."""
    sent = script.sent[-1]
    server = ScramServer(
        "SCRAM-SHA-256", nonce="sn", plus=False, plus_offered=False, bindings={}, protection=protection
    )
    initial = sent.find("initial-response", ns.SASL2)
    assert initial is not None
    server.first(sasl.decode(initial.text))
    challenge = server.challenge(make_verifier("SCRAM-SHA-256", "pencil", b"salt", 4096))
    script.takes(f"<challenge xmlns='{ns.SASL2}'>{base64.b64encode(challenge).decode()}</challenge>")
    assert script.sent[-1].ns == ns.SASL2
    _, success = server.final(sasl.decode(script.sent[-1].text))
    data = f"<additional-data>{base64.b64encode(success).decode()}</additional-data>"
    return f"<success xmlns='{ns.SASL2}'>{data}{extra}</success>"


WHO = "<authorization-identifier>alice@example.com/r1</authorization-identifier>"


def test_everything_at_once() -> None:
    script = direct()
    script.collect()
    assert b'from="alice@example.com"' in script.raw
    script.takes(HEADER + at_once("SCRAM-SHA-256"))
    assert script.sent[-1].find("bind", ns.BIND2) is not None
    protection = downgrade_hash("SCRAM-SHA-256", ["SCRAM-SHA-256"], [])
    script.takes(answer_at_once(script, extra=f"{WHO}<bound xmlns='{ns.BIND2}'/>", protection=protection))
    event = script.event()
    assert isinstance(event, SignedIn)
    assert str(event.jid) == "alice@example.com/r1"
    script.takes("<stream:features/><message/>")
    assert isinstance(script.event(), Received)
    assert script.event() is None


@pytest.mark.parametrize("wanted", ["r1", ""])
def test_the_resource_in_the_older_way_when_the_newer_one_cannot_be(wanted: str) -> None:
    script = direct(resource=wanted)
    script.takes(HEADER + at_once("SCRAM-SHA-256", bind=bool(wanted)))
    assert script.sent[-1].find("bind", ns.BIND2) is None
    script.takes(answer_at_once(script, extra="<authorization-identifier>alice@example.com</authorization-identifier>"))
    script.takes(BIND)
    script.takes(BOUND)
    assert isinstance(script.event(), SignedIn)
    assert script.raw.count(b"<stream:stream") == 1


def test_an_offer_that_lost_its_best_is_noticed() -> None:
    script = direct()
    script.takes(HEADER + at_once("SCRAM-SHA-256"))
    protection = downgrade_hash("SCRAM-SHA-256", ["SCRAM-SHA-256", "SCRAM-SHA-512"], [])
    with pytest.raises(ProtocolError):  # the client says no more
        answer_at_once(script, extra=WHO, protection=protection)
    failed = script.event()
    assert isinstance(failed, Failed)
    assert "changed the offer" in failed.reason


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"<failure xmlns='{ns.SASL2}'><not-authorized xmlns='{ns.SASL}'/></failure>", "credentials"),
        (
            f"<failure xmlns='{ns.SASL2}'><temporary-auth-failure xmlns='{ns.SASL}'/><text>wait</text></failure>",
            "refused",
        ),
        (f"<continue xmlns='{ns.SASL2}'><tasks><task>X</task></tasks></continue>", "refused"),
        (f"<success xmlns='{ns.SASL2}'>{WHO}</success>", "protocol"),
        (f"<success xmlns='{ns.SASL}'/>", "protocol"),
        (f"<what xmlns='{ns.SASL2}'/>", "protocol"),
    ],
)
def test_what_does_not_sign_in_at_once(text: str, kind: str) -> None:
    script = direct()
    script.takes(HEADER + at_once("SCRAM-SHA-256") + text)
    failed = script.event()
    assert isinstance(failed, Failed)
    assert failed.kind == kind


def test_a_server_without_the_binding_that_we_can_is_signed_in_to_without() -> None:
    login = ClientLogin("alice@example.com", "pencil", tls="direct", nonce=lambda: "cn")
    login.start(0.0, binding=bytes(32))
    script = Script(login)
    kind = "<channel-binding type='tls-unique'/>"
    types = f"<sasl-channel-binding xmlns='{ns.CHANNEL_BINDING}'>{kind}</sasl-channel-binding>"
    script.takes(HEADER + at_once("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", types=types))
    assert script.sent[-1].get("mechanism") == "SCRAM-SHA-256"
