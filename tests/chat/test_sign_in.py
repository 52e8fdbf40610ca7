"""Signing in at the running service: channel binding, enumeration, back-off, certificates, accounts that change."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL

from moim.chat.verifiers import Verifiers
from moim.errors import LimitExceeded
from moim.model import Address, CertificateChanged, UserChanged, UserRemoved
from moim.proto.xmpp import ClientLogin, Element, Failed, SignedIn, StartTlsNow, XmlStream, ns, sasl
from moim.proto.xmpp.scram import make_verifier

WAIT = 20.0
LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 section 4.2


def bound_sign_in(place: tuple[str, int], ca: str, *, direct: bool, spoil: bool = False) -> SignedIn | Failed:
    """A whole sign-in with a TLS library that exports keying material; blocking, so for a thread."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(ca)
    context.set_verify(SSL.VERIFY_PEER, None)
    plain = socket.create_connection(place, timeout=WAIT)
    login = ClientLogin("alice@chat.test", "wonder land", tls="direct" if direct else "starttls", allow_plain=True)
    tls: SSL.Connection | None = None

    def handshake() -> bytes:
        nonlocal tls
        plain.settimeout(None)
        tls = SSL.Connection(context, plain)
        tls.set_tlsext_host_name(b"chat.test")
        tls.set_connect_state()
        tls.do_handshake()
        assert tls.get_protocol_version_name() == "TLSv1.3"
        exported: bytes = tls.export_keying_material(LABEL, 32, b"")
        return bytes(32) if spoil else exported

    login.start(0.0, binding=handshake() if direct else None)
    try:
        while True:
            while (data := login.next_output()) is not None:
                (tls or plain).sendall(data)
            event = login.next_event()
            if isinstance(event, SignedIn | Failed):
                return event
            if isinstance(event, StartTlsNow):
                login.tls_started(0.0, binding=handshake())
                continue
            login.receive((tls or plain).recv(65536), 0.0)
    finally:
        plain.close()


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "starttls"])
async def test_the_channel_is_bound(house: Any, direct: bool) -> None:
    place = house.place("xmpp-client-tls" if direct else "xmpp-client")
    event = await asyncio.to_thread(bound_sign_in, place, str(house.files.chain), direct=direct)
    assert isinstance(event, SignedIn), event
    assert event.mechanism == "SCRAM-SHA-256-PLUS"


async def test_another_channel_is_refused(house: Any, caplog: Any) -> None:
    place = house.place("xmpp-client-tls")
    event = await asyncio.to_thread(bound_sign_in, place, str(house.files.chain), direct=True, spoil=True)
    assert isinstance(event, Failed)
    assert event.kind == "credentials"
    assert "channel binding does not match" in caplog.text


class Raw:
    """A TLS connection on which everything is said by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.parser = XmlStream()
        self.waiting: list[Any] = []

    @classmethod
    async def open(cls, house: Any) -> Raw:
        raw = cls(
            *await asyncio.open_connection(*house.place("xmpp-client-tls"), ssl=house.tls, server_hostname="chat.test")
        )
        raw.say(f"<stream:stream to='chat.test' version='1.0' xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'>")
        assert (await raw.hear())[0] == "open"
        assert (await raw.element()).name == "features"
        return raw

    def say(self, text: str) -> None:
        self.writer.write(text.encode())

    async def hear(self) -> Any:
        while not self.waiting:
            data = await asyncio.wait_for(self.reader.read(65536), WAIT)
            if not data:
                return ("end",)
            self.waiting += self.parser.feed(data)
        return self.waiting.pop(0)

    async def element(self) -> Element:
        item = await self.hear()
        assert item[0] == "element", item
        element: Element = item[1]
        return element

    async def attempt(self, first: bytes, mechanism: str = "SCRAM-SHA-256") -> Element:
        self.say(f"<auth xmlns='{ns.SASL}' mechanism='{mechanism}'>{base64.b64encode(first).decode()}</auth>")
        return await self.element()


async def challenge_of(house: Any, name: str, mechanism: str) -> dict[str, str]:
    raw = await Raw.open(house)
    challenge = sasl.decode((await raw.attempt(f"n,,n={name},r=abc".encode(), mechanism)).text).decode()
    raw.writer.close()
    return dict(part.split("=", 1) for part in challenge.split(","))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_a_name_that_does_not_exist_looks_like_one_that_does(new_house: Any, mechanism: str) -> None:
    people = {"alice": "wonder land", "maria": "x"}
    house = await new_house(people=people, default_contacts=False, auth_failures_per_address=1000)
    real, made_up = await challenge_of(house, "alice", mechanism), await challenge_of(house, "nobody", mechanism)
    assert real["i"] == made_up["i"]
    assert len(real["s"]) == len(made_up["s"])
    assert len(real["r"]) == len(made_up["r"])
    assert (await challenge_of(house, "nobody", mechanism))["s"] == made_up["s"]
    assert (await challenge_of(house, "NoBody", mechanism))["s"] == made_up["s"]
    assert (await challenge_of(house, "somebody", mechanism))["s"] != made_up["s"]
    await house.restart()
    assert (await challenge_of(house, "nobody", mechanism))["s"] == made_up["s"]
    assert (house.site.node_dir("inside") / "chat.secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
async def test_a_name_that_is_surely_nobodys_is_not_looked_up(mechanism: Any) -> None:
    """Looking it up would take longer than for those who are at hand, and so tell who is."""
    asked: list[str] = []
    real = make_verifier(mechanism, "x", bytes(16), 4096)

    async def scram(address: str, _mechanism: str) -> Any:
        asked.append(address)
        return real if address == "alice@chat.test" else None

    def at_hand(address: str, _mechanism: str) -> Any:
        return real if address == "alice@chat.test" else None

    users: Any = SimpleNamespace(scram=scram, known_scram=at_hand, nobody=lambda address: address != "alice@chat.test")
    verifiers = Verifiers(users, b"secret")
    await verifiers.learn(["alice@chat.test"])
    asked.clear()
    assert verifiers.known("alice@chat.test", mechanism) is real
    made_up = verifiers.known("nobody@chat.test", mechanism)
    assert made_up is not None
    assert (len(made_up.salt), made_up.iterations) == (len(real.salt), real.iterations)
    assert asked == []
    assert made_up == await verifiers.verifier("nobody@chat.test", mechanism), "whichever way it is asked for"


async def test_three_wrong_passwords_end_the_connection(new_house: Any, caplog: Any) -> None:
    house = await new_house(default_contacts=False, allow_plain=True)
    raw = await Raw.open(house)
    for _ in range(3):
        failure = await raw.attempt(b"\0alice\0wrong", "PLAIN")
        assert failure.find("not-authorized", ns.SASL) is not None
    error = await raw.element()
    assert (error.ns, error.name) == (ns.STREAMS, "error")
    assert error.find("policy-violation", ns.STREAM_ERRORS) is not None
    assert caplog.text.count("sign-in of alice@chat.test from 127.0.0.1 refused (PLAIN): wrong password") == 3


async def test_plain_signs_in_under_tls_when_allowed(new_house: Any) -> None:
    house = await new_house(default_contacts=False, allow_plain=True)
    raw = await Raw.open(house)
    assert (await raw.attempt("\0bob\0비밀번호".encode(), "PLAIN")).name == "success"


async def test_plain_is_not_offered_otherwise(house: Any) -> None:
    raw = await Raw.open(house)
    failure = await raw.attempt(b"\0alice\0wonder land", "PLAIN")
    assert failure.find("invalid-mechanism", ns.SASL) is not None


async def test_an_address_that_guesses_has_to_wait(new_house: Any, caplog: Any) -> None:
    house = await new_house(
        default_contacts=False, allow_plain=True, auth_failures_per_address=4, auth_failures_per_connection=20
    )
    raw = await Raw.open(house)
    answers = [await raw.attempt(f"\0user{number}\0x".encode(), "PLAIN") for number in range(5)]
    assert [a.elements()[0].name for a in answers] == ["not-authorized"] * 4 + ["temporary-auth-failure"]
    with pytest.raises(AssertionError, match="temporary-auth-failure"):
        await house.client("alice").connect()
    assert "127.0.0.1 has to wait" in caplog.text


async def test_an_account_under_attack_stays_open_to_where_it_signed_in_from(new_house: Any) -> None:
    house = await new_house(default_contacts=False, allow_plain=True, auth_failures_per_account=3)
    await (await house.client("alice").connect()).close()
    raw = await Raw.open(house)
    for _ in range(3):
        await raw.attempt(b"\0bob\0wrong", "PLAIN")
    raw = await Raw.open(house)
    assert (await raw.attempt(b"\0bob\0x", "PLAIN")).find("temporary-auth-failure", ns.SASL) is not None
    for _ in range(2):
        raw = await Raw.open(house)
        for _ in range(2):
            await raw.attempt(b"\0alice\0wrong", "PLAIN")
    await house.client("alice").connect()


async def test_a_directory_that_fails_is_a_temporary_failure(house: Any) -> None:
    house.users.broken = True
    with pytest.raises(AssertionError, match="temporary-auth-failure"):
        await house.client("alice").connect()
    house.users.broken = False
    await house.client("alice").connect()


async def test_a_directory_that_wants_a_pause_is_told_apart(new_house: Any, caplog: Any) -> None:
    house = await new_house(default_contacts=False, allow_plain=True)

    async def tired(_local: str, _password: str, *, source: str = "") -> bool:
        raise LimitExceeded("too many failed sign-ins", hint="try again in 8 seconds")

    house.users.verify_password = tired
    raw = await Raw.open(house)
    failure = await raw.attempt(b"\0alice\0wonder land", "PLAIN")
    assert failure.find("temporary-auth-failure", ns.SASL) is not None
    said = failure.find("text", ns.SASL)
    assert said is not None
    assert "try again in 8 seconds" in said.text
    assert "sign-in of alice@chat.test from 127.0.0.1 refused (PLAIN): the directory wants a pause" in caplog.text
    assert "did not answer" not in caplog.text


async def test_a_new_certificate_is_shown_to_new_connections_only(house: Any, certificate: Any) -> None:
    old = await house.client("alice", "old").connect()
    before = house.files.chain.read_bytes()
    certificate(house.root, "chat.test")
    await house.bus.publish(CertificateChanged("tomcat"))
    seen = await asyncio.to_thread(ssl.get_server_certificate, house.place("xmpp-client-tls"))
    assert seen.encode().split() == before.split()
    await house.bus.publish(CertificateChanged("cup-xmpp"))
    seen = await asyncio.to_thread(ssl.get_server_certificate, house.place("xmpp-client-tls"))
    assert seen.encode().split() == house.files.chain.read_bytes().split() != before.split()
    await old.sync()


async def test_a_broken_certificate_keeps_the_old_one(house: Any) -> None:
    before = house.files.chain.read_bytes()
    house.files.key.write_text("rubbish")
    await house.bus.publish(CertificateChanged("cup-xmpp"))
    seen = await asyncio.to_thread(ssl.get_server_certificate, house.place("xmpp-client-tls"))
    assert seen.encode().split() == before.split()


async def test_a_changed_password_ends_sessions(house: Any) -> None:
    phone, desk = await house.online("alice", "phone"), await house.online("bob", "desk")
    await house.bus.publish(UserChanged(Address("alice", "chat.test")))
    await phone.sync()
    await house.bus.publish(UserChanged(Address("alice", "chat.test"), password_changed=True))
    assert (await phone.ended()).condition == "not-authorized"
    await desk.sync()


async def test_a_removed_account_leaves_nothing_behind(house: Any) -> None:
    alice, bob = await house.online("alice", "phone"), await house.online("bob", "desk")
    alice.send(["<presence to='bob@chat.test' type='subscribed'/>", ""][0])
    bob.send("<presence to='alice@chat.test' type='subscribe'/>")
    for _ in range(4):
        await bob.receive()
    await alice.sync()
    await alice.close()
    assert (await bob.receive()).get("type") == "unavailable"
    bob.send("<message to='alice@chat.test' type='chat'><body>waits</body></message>")
    await bob.sync()
    again = await house.client("alice", "phone").connect()
    del house.users.passwords["alice"]
    await house.bus.publish(UserRemoved(Address("alice", "chat.test")))
    assert (await again.ended()).condition == "not-authorized"
    push = await bob.receive()
    assert push.find("query", ns.ROSTER).elements()[0].get("subscription") == "remove"
    with pytest.raises(AssertionError, match="not-authorized"):
        await house.client("alice").connect(password="wonder land")
    house.users.passwords["alice"] = "new"
    anew = await house.client("alice", "phone").connect()
    roster = await anew.request(f"<query xmlns='{ns.ROSTER}'/>")
    assert roster.find("query", ns.ROSTER).elements() == []
    anew.send("<presence/>")
    assert (await anew.receive()).name == "presence"
    await anew.quiet()


async def test_sessions_of_an_account_are_bounded(new_house: Any) -> None:
    house = await new_house(default_contacts=False, max_sessions_per_user=2)
    one, _ = await house.client("alice", "1").connect(), await house.client("alice", "2").connect()
    with pytest.raises(AssertionError, match="resource-constraint"):
        await house.client("alice", "3").connect()
    await house.client("alice", "2").connect()  # takes the place of the older one
    await one.close()
    await house.client("alice", "3").connect()


async def test_it_stops_and_starts_again_on_the_same_ports(house: Any) -> None:
    alice = await house.online("alice", "phone")
    await house.restart()
    assert (await alice.ended()).condition == "system-shutdown"
    await house.online("alice", "phone")


async def test_who_never_binds_a_resource_is_sent_away(new_house: Any) -> None:
    house = await new_house(default_contacts=False, allow_plain=True)
    raw, waiting = await Raw.open(house), await Raw.open(house)
    assert (await raw.attempt(b"\0alice\0wonder land", "PLAIN")).name == "success"
    sessions = house.service._parts.sessions
    sessions._bind_timeout = -1.0
    sessions._sweep()
    raw.parser = XmlStream()
    heard = [await raw.hear() for _ in range(2)]
    assert heard[0][0] == "open"
    assert heard[1][1].find("connection-timeout", ns.STREAM_ERRORS) is not None
    failure = await waiting.attempt(b"\0alice\0wrong", "PLAIN")  # those not signed in yet are the plane's to time
    assert failure.find("not-authorized", ns.SASL) is not None
