"""The sign-in machine of the server against the client's, byte for byte, and against clients that misbehave."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.chat import sasl2
from moim.chat.negotiation import (
    Authenticated,
    BindRequest,
    Close,
    Lookup,
    Negotiation,
    OpenStream,
    Policy,
    Proven,
    Rejected,
    Send,
    StartTls,
)
from moim.proto.xmpp import (
    ClientLogin,
    Element,
    Failed,
    SignedIn,
    StanzaError,
    StartTlsNow,
    XmlStream,
    made_up_verifier,
    make_verifier,
    ns,
    sasl,
)
from moim.proto.xmpp.sasl import NeedToken, NeedVerifier
from moim.proto.xmpp.scram import ScramHash

BINDING = bytes(range(32))
VERIFIERS: dict[ScramHash, object] = {
    "SCRAM-SHA-1": make_verifier("SCRAM-SHA-1", "비밀", b"salt", 4096),
    "SCRAM-SHA-256": make_verifier("SCRAM-SHA-256", "비밀", b"salt", 4096),
}


def bound(exported: bytes | None) -> dict[str, bytes]:
    return {} if exported is None else {"tls-exporter": exported}


def machine(
    *, needs_tls: bool = False, tls: bool = True, binding: bytes | None = None, plain: bool = False
) -> Negotiation:
    tokens: Iterator[str] = (f"token{number}" for number in range(1000))
    return Negotiation(
        {"example.com": Policy("example.com", allow_plain=plain, tokens=True, register=True)},
        needs_tls=needs_tls,
        tls=tls,
        bindings=bound(binding),
        token=lambda: next(tokens),
    )


class Wire:
    """Carries bytes between both machines, and plays the plane and the directory."""

    def __init__(self, login: ClientLogin, server: Negotiation, *, binding: bytes | None = None) -> None:
        self.login = login
        self.server = server
        self.binding = binding
        self.parser = XmlStream()
        self.log: list[object] = []
        self.ended: object = None

    def run(self) -> object:
        """Until nothing moves any more; gives the client's last event."""
        last: object = None
        moved = True
        while moved:
            moved = False
            while (data := self.login.next_output()) is not None:
                moved = True
                if data.startswith(b"<?xml"):
                    self.parser = XmlStream()
                for item in self.parser.feed(data):
                    if item[0] == "open":
                        self.server.opened(item[1])
                    elif item[0] == "element":
                        self.server.stanza(item[1])
            while (step := self.server.next_output()) is not None:
                moved = True
                self.log.append(step)
                self.carry_out(step)
            while (event := self.login.next_event()) is not None:
                moved = True
                last = event
                if isinstance(event, StartTlsNow):
                    self.server.tls_started(bound(self.binding))
                    self.login.tls_started(0.0, binding=self.binding)
        return last

    def carry_out(self, step: object) -> None:
        if isinstance(step, OpenStream):
            attrs = " ".join(f"{key}='{value}'" for key, value in step.attrs.items())
            self.to_client(
                f"<?xml version='1.0'?><stream:stream {attrs} xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'>"
            )
        elif isinstance(step, Send):
            for element in step.elements:
                self.to_client(element.to_xml())
        elif isinstance(step, StartTls):
            self.to_client(Element("proceed", ns.TLS).to_xml())
        elif isinstance(step, Authenticated):
            self.to_client(step.success.to_xml())
        elif isinstance(step, Lookup):
            assert isinstance(step.need, NeedVerifier)
            known = VERIFIERS[step.need.mechanism] if step.need.local == "alice" else None
            made_up = made_up_verifier(step.need.mechanism, step.need.local, b"k", salt_size=4, iterations=4096)
            self.server.verifier(known or made_up)  # type: ignore[arg-type]
        elif isinstance(step, Proven):
            full = step.jid.with_resource("chosen") if step.request.bind is not None else None
            extra = (sasl2.bound(()),) if full is not None else ()
            for element in self.server.finish(full, extra):
                self.to_client(element.to_xml())
        elif isinstance(step, BindRequest):
            self.to_client(self.server.bind_result(step.jid.with_resource(step.resource)).to_xml())
        elif isinstance(step, Close):
            if step.error is not None:
                self.to_client(step.error.to_xml())
            self.to_client("</stream:stream>")

    def to_client(self, text: str) -> None:
        self.login.receive(text.encode(), 0.0)


def sign_in(login: ClientLogin, server: Negotiation, *, binding: bytes | None = None, direct: bool = True) -> Wire:
    wire = Wire(login, server, binding=binding)
    login.start(0.0, binding=binding if direct else None)
    wire.ended = wire.run()
    return wire


def test_starttls_then_scram_then_bind() -> None:
    wire = sign_in(
        ClientLogin("alice@example.com", "비밀", resource="집"), machine(needs_tls=True, tls=False), direct=False
    )
    assert isinstance(wire.ended, SignedIn)
    assert str(wire.ended.jid) == "alice@example.com/집"
    assert wire.ended.mechanism == "SCRAM-SHA-256"
    assert wire.server.bound


@pytest.mark.parametrize("at_once", [True, False])
def test_the_server_chooses_a_resource(at_once: bool) -> None:
    wire = sign_in(ClientLogin("alice@example.com", "비밀", tls="direct", sasl2=at_once), machine())
    assert isinstance(wire.ended, SignedIn)
    assert wire.ended.jid.resource.startswith("chosen" if at_once else "token")
    assert wire.server.bound
    assert any(isinstance(step, Proven) for step in wire.log) == at_once


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("direct", [True, False])
def test_channel_binding(direct: bool, at_once: bool) -> None:
    login = ClientLogin("alice@example.com", "비밀", tls="direct" if direct else "starttls", sasl2=at_once)
    server = machine(needs_tls=not direct, tls=direct, binding=BINDING if direct else None)
    wire = sign_in(login, server, binding=BINDING, direct=direct)
    assert isinstance(wire.ended, SignedIn)
    assert wire.ended.mechanism == "SCRAM-SHA-256-PLUS"


def test_a_relay_in_the_middle_is_noticed() -> None:
    wire = sign_in(ClientLogin("alice@example.com", "비밀", tls="direct"), machine(binding=bytes(32)), binding=BINDING)
    assert isinstance(wire.ended, Failed)
    assert wire.ended.kind == "credentials"
    assert any(isinstance(step, Rejected) and "does not match" in step.reason for step in wire.log)


def test_a_wrong_password_and_no_such_user_look_the_same() -> None:
    seen = []
    for name, password in (("alice", "wrong"), ("nobody", "비밀")):
        wire = sign_in(ClientLogin(f"{name}@example.com", password, tls="direct", nonce=lambda: "n"), machine())
        assert isinstance(wire.ended, Failed)
        assert wire.ended.condition == "not-authorized"
        sent = [step for step in wire.log if isinstance(step, Send | Close)]
        shapes = [[(e.ns, e.name, len(e.text)) for e in step.elements] for step in sent if isinstance(step, Send)]
        seen.append(shapes)
        rejected = [step for step in wire.log if isinstance(step, Rejected)]
        assert [r.local for r in rejected] == [name]
    assert seen[0] == seen[1]


def outputs(server: Negotiation) -> list[object]:
    found: list[object] = []
    while (step := server.next_output()) is not None:
        found.append(step)
    return found


OPEN = {"to": "example.com", "version": "1.0"}


@pytest.mark.parametrize(
    ("attrs", "condition"),
    [
        ({"version": "1.0"}, "improper-addressing"),
        ({"to": "other.example", "version": "1.0"}, "host-unknown"),
        ({"to": "@", "version": "1.0"}, "host-unknown"),
        ({"to": "example.com"}, "unsupported-version"),
        ({"to": "example.com", "version": "0.9"}, "unsupported-version"),
        ({"to": "example.com", "version": "x"}, "unsupported-version"),
    ],
)
def test_streams_that_are_not_for_us(attrs: dict[str, str], condition: str) -> None:
    server = machine()
    server.opened(attrs)
    opened, close = outputs(server)
    assert isinstance(opened, OpenStream)
    assert isinstance(close, Close)
    assert close.error is not None
    assert close.error.find(condition, ns.STREAM_ERRORS) is not None


def test_the_stream_says_whose_names_count() -> None:
    policies = {name: Policy(name) for name in ("example.com", "example.net")}
    server = Negotiation(policies, needs_tls=False, tls=True, bindings={}, token=lambda: "token")
    assert server.domain == "example.com"
    wire = sign_in(ClientLogin("alice@example.net", "비밀", tls="direct"), server)
    assert isinstance(wire.ended, SignedIn)
    assert str(wire.ended.jid).startswith("alice@example.net/")
    assert str(server.authenticated) == "alice@example.net"


def test_a_stream_stays_in_the_domain_of_the_account() -> None:
    policies = {name: Policy(name, allow_plain=True) for name in ("example.com", "example.net")}
    server = Negotiation(policies, needs_tls=False, tls=True, bindings={}, token=lambda: "token")
    server.opened({"to": "example.net", "version": "1.0"})
    server.stanza(Element("auth", ns.SASL, {"mechanism": "PLAIN"}, (sasl.encode(b"\0alice\0secret"),)))
    server.password_checked(True)
    assert str(server.authenticated) == "alice@example.net"
    outputs(server)
    server.opened({"to": "example.com", "version": "1.0"})
    *_, close = outputs(server)
    assert isinstance(close, Close)
    assert close.error is not None
    assert close.error.find("host-unknown", ns.STREAM_ERRORS) is not None


@pytest.mark.parametrize(
    "element",
    [
        Element("message", ns.CLIENT, {"to": "bob@example.com"}),
        Element("iq", ns.CLIENT, {"type": "set", "id": "1"}, (Element("bind", ns.BIND),)),
        Element("starttls", ns.TLS),
        Element("auth", "urn:example:other", {"mechanism": "PLAIN"}),
    ],
)
def test_nothing_gets_through_before_the_sign_in(element: Element) -> None:
    server = machine()
    server.opened(OPEN)
    outputs(server)
    server.stanza(element)
    (close,) = outputs(server)
    assert isinstance(close, Close)
    assert close.error is not None
    assert close.error.find("not-authorized", ns.STREAM_ERRORS) is not None
    server.stanza(element)
    assert outputs(server) == []


def test_stream_management_before_the_sign_in_fails_and_the_stream_goes_on() -> None:
    server = machine()
    server.opened(OPEN)
    outputs(server)
    for _ in range(2):
        server.stanza(Element("enable", ns.SM))
        (sent,) = outputs(server)
        assert isinstance(sent, Send)
        assert sent.elements[0].find("unexpected-request", ns.STANZA_ERRORS) is not None
    server.stanza(Element("enable", ns.SM))
    assert isinstance(outputs(server)[-1], Close)


def test_no_password_before_tls() -> None:
    server = machine(needs_tls=True, tls=False, plain=True)
    server.opened(OPEN)
    _, sent = outputs(server)
    assert isinstance(sent, Send)
    assert [child.name for child in sent.elements[0].elements()] == ["starttls"]
    server.stanza(auth("PLAIN", b"\0alice\0x"))
    (refused,) = outputs(server)
    assert isinstance(refused, Send)
    assert refused.elements[0].find("encryption-required") is not None
    server.stanza(Element("authenticate", ns.SASL2, {"mechanism": "PLAIN"}))
    (refused,) = outputs(server)
    assert isinstance(refused, Send)
    assert refused.elements[0].ns == ns.SASL2
    server.stanza(auth("PLAIN", b"\0alice\0x"))
    assert [type(step) for step in outputs(server)] == [Send, Close], "whoever asks for ever is not answered for ever"


def auth(mechanism: str, data: bytes) -> Element:
    return Element("auth", ns.SASL, {"mechanism": mechanism}, (base64.b64encode(data).decode(),))


def test_three_wrong_passwords_end_the_connection() -> None:
    server = machine(plain=True)
    server.opened(OPEN)
    outputs(server)
    for attempt in range(3):
        server.stanza(auth("PLAIN", b"\0alice\0x"))
        (lookup,) = outputs(server)
        assert isinstance(lookup, Lookup)
        server.password_checked(False)
        steps = outputs(server)
        assert isinstance(steps[0], Rejected)
        assert [type(step) for step in steps[2:]] == ([Close] if attempt == 2 else [])


@pytest.mark.parametrize(
    ("element", "condition"),
    [
        (auth("X-UNKNOWN", b"x"), "invalid-mechanism"),
        (Element("auth", ns.SASL, {"mechanism": "PLAIN"}, ("!!",)), "incorrect-encoding"),
        (Element("auth", ns.SASL), "invalid-mechanism"),
        (Element("response", ns.SASL), "malformed-request"),
        (Element("abort", ns.SASL), "malformed-request"),
        (auth("SCRAM-SHA-1", b"rubbish"), "malformed-request"),
    ],
)
def test_broken_sasl_has_its_condition(element: Element, condition: str) -> None:
    server = machine(plain=True)
    server.opened(OPEN)
    outputs(server)
    server.stanza(element)
    rejected, sent = outputs(server)
    assert isinstance(rejected, Rejected)
    assert isinstance(sent, Send)
    assert sent.elements[0].find(condition) is not None


def test_an_abort_and_a_new_try() -> None:
    server = machine(plain=True)
    server.opened(OPEN)
    outputs(server)
    server.stanza(Element("auth", ns.SASL, {"mechanism": "PLAIN"}))
    (challenge,) = outputs(server)
    assert isinstance(challenge, Send)
    assert challenge.elements[0] == Element("challenge", ns.SASL)
    server.stanza(Element("abort", ns.SASL))
    _, sent = outputs(server)
    assert isinstance(sent, Send)
    assert sent.elements[0].find("aborted") is not None
    server.stanza(auth("PLAIN", b"\0alice\0x"))
    outputs(server)
    server.password_checked(True)
    (done,) = outputs(server)
    assert isinstance(done, Authenticated)


def authenticated() -> Negotiation:
    server = machine(plain=True)
    server.opened(OPEN)
    server.stanza(auth("PLAIN", b"\0alice\0x"))
    server.password_checked(True)
    server.opened(OPEN)
    outputs(server)
    return server


def bind(resource: str | None = None) -> Element:
    wanted = () if resource is None else (Element("resource", ns.BIND, {}, (resource,)),)
    return Element("iq", ns.CLIENT, {"type": "set", "id": "b"}, (Element("bind", ns.BIND, {}, wanted),))


def test_a_resource_that_is_none_is_refused_and_may_be_corrected() -> None:
    server = authenticated()
    server.stanza(bind("a\u202eb"))
    (sent,) = outputs(server)
    assert isinstance(sent, Send)
    assert sent.elements[0].get("type") == "error"
    server.stanza(bind("phone"))
    (request,) = outputs(server)
    assert isinstance(request, BindRequest)
    server.bind_refused(StanzaError("resource-constraint"))
    (sent,) = outputs(server)
    assert isinstance(sent, Send)
    assert not server.bound


def test_stanzas_wait_for_the_resource() -> None:
    server = authenticated()
    server.stanza(Element("iq", ns.CLIENT, {"type": "get", "id": "1"}, (Element("ping", ns.PING),)))
    (sent,) = outputs(server)
    assert isinstance(sent, Send)
    assert sent.elements[0].get("type") == "error"
    server.stanza(Element("message", ns.CLIENT))
    (close,) = outputs(server)
    assert isinstance(close, Close)


@pytest.mark.parametrize(
    ("to", "ends"),
    [("example.com", False), ("alice@example.com", False), ("bob@example.com", True), ("x.example", True), ("@", True)],
)
def test_before_the_resource_only_the_server_is_there(to: str, ends: bool) -> None:
    server = authenticated()
    server.stanza(Element("iq", ns.CLIENT, {"type": "get", "id": "1", "to": to}, (Element("ping", ns.PING),)))
    (answer,) = outputs(server)
    if not ends:
        assert isinstance(answer, Send)
        return
    assert isinstance(answer, Close)
    assert answer.error is not None
    assert answer.error.find("not-authorized", ns.STREAM_ERRORS) is not None


def test_a_second_header_in_one_stream_ends_it() -> None:
    server = machine()
    server.opened(OPEN)
    server.opened(OPEN)
    assert isinstance(outputs(server)[-1], Close)


_ELEMENTS = st.sampled_from(
    [
        Element("authenticate", ns.SASL2, {"mechanism": "SCRAM-SHA-256"}),
        Element("authenticate", ns.SASL2, {"mechanism": "HT-SHA-256-NONE"}),
        Element(
            "authenticate",
            ns.SASL2,
            {"mechanism": "HT-SHA-256-NONE"},
            (
                Element("initial-response", ns.SASL2, {}, (base64.b64encode(b"alice\0" + bytes(32)).decode(),)),
                Element("user-agent", ns.SASL2, {"id": "x"}),
                Element("fast", ns.FAST),
                Element("bind", ns.BIND2),
            ),
        ),
        Element("response", ns.SASL2, {}, ("biws",)),
        Element("abort", ns.SASL2),
        Element("iq", ns.CLIENT, {"type": "set", "id": "r"}, (Element("query", ns.REGISTER),)),
        Element("auth", ns.SASL, {"mechanism": "SCRAM-SHA-256"}),
        auth("SCRAM-SHA-256", b"n,,n=alice,r=x"),
        Element("response", ns.SASL, {}, ("biws",)),
        Element("abort", ns.SASL),
        Element("starttls", ns.TLS),
        bind(),
        Element("presence", ns.CLIENT),
        None,
    ]
)


@given(st.lists(_ELEMENTS, max_size=12), st.booleans())
def test_no_order_of_elements_signs_anybody_in(elements: list[Element | None], needs_tls: bool) -> None:
    server = machine(needs_tls=needs_tls, tls=not needs_tls)
    for element in elements:
        if element is None:
            server.opened(OPEN)
        else:
            server.stanza(element)
        for step in outputs(server):
            assert not isinstance(step, Authenticated | Proven | BindRequest)
            if isinstance(step, Lookup) and isinstance(step.need, NeedToken):
                server.token_checked(None)
            elif isinstance(step, Lookup):
                server.verifier(make_verifier("SCRAM-SHA-256", "x", b"salt", 1))
            elif isinstance(step, StartTls):
                server.tls_started({})
    assert not server.bound
