"""The server's side of SASL: which mechanisms are offered, and what each exchange ends in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto.xmpp import sasl
from moim.proto.xmpp.sasl import Challenge, Failure, NeedPassword, NeedVerifier, SaslServer, Success
from moim.proto.xmpp.scram import ScramClient, make_verifier

PLAIN = ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN")


def server(offered: tuple[str, ...] = PLAIN, bindings: dict[str, bytes] | None = None) -> SaslServer:
    return SaslServer(domain="example.com", offered=offered, bindings=bindings or {}, nonce="servernonce")


def test_offers_the_best_first_and_plain_only_under_encryption() -> None:
    assert sasl.mechanisms(encrypted=True, channel_binding=True, plain=True) == (
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "PLAIN",
    )
    assert sasl.mechanisms(encrypted=False, channel_binding=False, plain=True) == ("SCRAM-SHA-256", "SCRAM-SHA-1")
    assert "PLAIN" not in sasl.mechanisms(encrypted=True, channel_binding=True, plain=False)


@pytest.mark.parametrize("name", ["alice", "Alice", "alice@example.com", "ALICE@Example.Com"])
def test_plain_finds_the_account(name: str) -> None:
    exchange = server()
    step = exchange.start("PLAIN", f"\0{name}\0비밀".encode())
    assert step == NeedPassword("alice", "비밀")
    assert exchange.password_checked(True) == Success("alice", None)


def test_plain_with_a_wrong_password() -> None:
    exchange = server()
    exchange.start("PLAIN", b"\0alice\0x")
    step = exchange.password_checked(False)
    assert isinstance(step, Failure)
    assert (step.condition, step.local) == ("not-authorized", "alice")


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0a", b"a\0b\0c\0d", b"\0\xff\0x", b"\0" + b"a" * 3000 + b"\0x", b"\0\0x"]
)
def test_broken_plain(data: bytes) -> None:
    step = server().start("PLAIN", data)
    assert isinstance(step, Failure)
    assert step.condition == "malformed-request"


def test_an_initial_response_may_come_later() -> None:
    exchange = server()
    assert exchange.start("PLAIN", None) == Challenge(b"")
    assert exchange.respond(b"\0alice\0x") == NeedPassword("alice", "x")


def test_a_mechanism_that_is_not_offered() -> None:
    step = server(("SCRAM-SHA-256",)).start("PLAIN", b"\0a\0b")
    assert isinstance(step, Failure)
    assert step.condition == "invalid-mechanism"


def scram(exchange: SaslServer, *, authzid: str = "", password: str = "pw") -> sasl.Step:
    client = ScramClient("SCRAM-SHA-256", "alice", password, nonce="n", authzid=authzid)
    assert exchange.start("SCRAM-SHA-256", client.first()) == NeedVerifier("alice", "SCRAM-SHA-256")
    step = exchange.verifier(make_verifier("SCRAM-SHA-256", "pw", b"salt", 4096))
    assert isinstance(step, Challenge)
    return exchange.respond(client.final(step.data))


def test_scram_ends_in_success() -> None:
    step = scram(server())
    assert isinstance(step, Success)
    assert step.local == "alice"
    assert step.data is not None
    assert step.data.startswith(b"v=")


@pytest.mark.parametrize("authzid", ["alice@example.com", "Alice@EXAMPLE.com"])
def test_acting_as_oneself(authzid: str) -> None:
    assert isinstance(scram(server(), authzid=authzid), Success)


@pytest.mark.parametrize("authzid", ["bob@example.com", "alice@other.com", "alice@example.com/x", "@", "alice"])
def test_acting_as_somebody_else_is_refused(authzid: str) -> None:
    step = scram(server(), authzid=authzid)
    assert isinstance(step, Failure)
    assert step.condition == "invalid-authzid"


def test_calls_out_of_order_are_failures() -> None:
    verifier = make_verifier("SCRAM-SHA-256", "pw", b"salt", 1)
    calls: tuple[Callable[[SaslServer], object], ...] = (
        lambda s: s.respond(b"x"),
        lambda s: s.verifier(verifier),
        lambda s: s.password_checked(True),
        lambda s: (s.start("PLAIN", None), s.start("PLAIN", None))[1],
        lambda s: (s.start("PLAIN", b"\0a\0b"), s.respond(b"\0a\0b"))[1],
        lambda s: (s.start("PLAIN", b"\0a\0b"), s.password_checked(True), s.password_checked(True))[2],
    )
    for call in calls:
        step = call(server())
        assert isinstance(step, Failure)
        assert step.condition == "malformed-request"


def test_base64_of_the_wire() -> None:
    assert sasl.decode("=") == b""
    assert sasl.decode(" aGk= ") == b"hi"
    assert sasl.encode(b"") == "="
    for bad in ("a", "$$$$", "aGk", "A" * 9000):
        with pytest.raises(ProtocolError):
            sasl.decode(bad)


@given(st.sampled_from(PLAIN), st.binary(max_size=100))
def test_any_bytes_end_in_a_step(mechanism: str, data: bytes) -> None:
    exchange = server()
    step = exchange.start(mechanism, data)
    if isinstance(step, NeedVerifier):
        exchange.verifier(make_verifier("SCRAM-SHA-256", "pw", b"salt", 1))
        assert not isinstance(exchange.respond(data), Success)
    with contextlib.suppress(ProtocolError):
        sasl.decode(data.decode("latin-1"))
