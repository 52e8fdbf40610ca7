"""SCRAM: the RFCs' own exchanges, both machines against each other, and every way to get it wrong."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto.xmpp.scram import (
    Outcome,
    ScramClient,
    ScramHash,
    ScramServer,
    downgrade_hash,
    made_up_verifier,
    make_verifier,
    saslprep,
)

BINDING = bytes(range(32))


# RFC 5802 section 5 and RFC 7677 section 3.
VECTORS: list[tuple[ScramHash, str, str, str, str, str, str, str]] = [
    (
        "SCRAM-SHA-1",
        "fyko+d2lbbFgONRv9qkxdawL",
        "3rfcNHYJY1ZVvWVs7j",
        "QSXCR+Q6sek8bf92",
        "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
        "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
        "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        "SCRAM-SHA-256",
        "rOprNGfwEbeRWgbNEkqO",
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector[0] for vector in VECTORS])
def test_the_exchange_of_the_rfc(vector: tuple[ScramHash, str, str, str, str, str, str, str]) -> None:
    mechanism, client_nonce, server_nonce, salt, first, challenge, final, success = vector
    client = ScramClient(mechanism, "user", "pencil", nonce=client_nonce)
    server = ScramServer(mechanism, nonce=server_nonce, plus=False, plus_offered=False, bindings={})
    assert client.first().decode() == first
    server.first(first.encode())
    assert server.username == "user"
    verifier = make_verifier(mechanism, "pencil", base64.b64decode(salt), 4096)
    assert server.challenge(verifier).decode() == challenge
    assert client.final(challenge.encode()).decode() == final
    assert server.final(final.encode()) == (Outcome.ACCEPTED, success.encode())
    client.verify(success.encode())


def bound(exported: bytes | None) -> dict[str, bytes]:
    return {} if exported is None else {"tls-exporter": exported}


def exchange(
    mechanism: ScramHash = "SCRAM-SHA-256",
    *,
    password: str = "비밀 pass",
    given: str | None = None,
    username: str = "us=er,김",
    plus: bool = False,
    plus_seen: bool = False,
    plus_offered: bool = False,
    client_binding: bytes | None = None,
    server_binding: bytes | None = None,
    authzid: str = "",
) -> tuple[Outcome, ScramServer]:
    client = ScramClient(
        mechanism,
        username,
        given or password,
        nonce="abc",
        plus=plus,
        plus_seen=plus_seen,
        binding=client_binding,
        authzid=authzid,
    )
    server = ScramServer(mechanism, nonce="xyz", plus=plus, plus_offered=plus_offered, bindings=bound(server_binding))
    server.first(client.first())
    final = client.final(server.challenge(make_verifier(mechanism, password, b"salt", 4096)))
    outcome, success = server.final(final)
    if outcome is Outcome.ACCEPTED:
        client.verify(success)
    else:
        assert success == b""
    return outcome, server


@settings(max_examples=30, deadline=None)
@given(
    st.text(min_size=1, max_size=20),
    st.text(min_size=1, max_size=20),
    st.sampled_from(["SCRAM-SHA-1", "SCRAM-SHA-256"]),
)
def test_client_and_server_agree(username: str, password: str, mechanism: ScramHash) -> None:
    try:
        prepared = saslprep(username)
        saslprep(password)
    except ProtocolError:
        return
    if not prepared:
        return
    outcome, server = exchange(mechanism, username=username, password=password)
    assert outcome is Outcome.ACCEPTED
    assert server.username == prepared


def test_a_wrong_password_is_refused() -> None:
    assert exchange(given="other")[0] is Outcome.WRONG_PROOF


def test_the_channel_is_bound() -> None:
    outcome, _ = exchange(plus=True, plus_offered=True, client_binding=BINDING, server_binding=BINDING)
    assert outcome is Outcome.ACCEPTED


def test_another_channel_is_noticed() -> None:
    outcome, _ = exchange(plus=True, plus_offered=True, client_binding=BINDING, server_binding=bytes(32))
    assert outcome is Outcome.BINDING_MISMATCH


def test_a_client_that_could_bind_but_saw_no_offer_reveals_a_downgrade() -> None:
    outcome, _ = exchange(plus_offered=True, client_binding=BINDING, server_binding=BINDING)
    assert outcome is Outcome.DOWNGRADE
    assert exchange(plus_offered=False, client_binding=BINDING)[0] is Outcome.ACCEPTED


def test_a_client_that_does_not_bind_is_let_in() -> None:
    assert exchange(plus_offered=True, server_binding=BINDING)[0] is Outcome.ACCEPTED


def test_the_authorisation_identity_is_reported() -> None:
    assert exchange(authzid="a=b,c@example.com")[1].authzid == "a=b,c@example.com"


def server_for(*, plus: bool = False, offered: bool = False, binding: bytes | None = None) -> ScramServer:
    return ScramServer("SCRAM-SHA-256", nonce="srv", plus=plus, plus_offered=offered, bindings=bound(binding))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n",
        b"n,",
        b"n,,",
        b"x,,n=a,r=b",
        b"n,n=a,r=b",
        b"n,b=x,n=a,r=b",
        b"n,,r=b,n=a",
        b"n,,n=a",
        b"n,,n=,r=b",
        b"n,,n=a,r=",
        b"n,,n=a,r=b c",
        b"n,,m=x,n=a,r=b",
        b"n,,n=a=2,r=b",
        b"n,,n=a=b,r=b",
        b"n,,n=a,r=" + b"x" * 600,
        b"n,,n=\xff,r=b",
        b"n,,n=a\0,r=b",
        b"p=tls-exporter,,n=a,r=b",
        b"n,,n=" + b"a" * 5000 + b",r=b",
        b"n,,n=a\r,r=b",
        b"n,,n=a,r=b,x",
        "n,,n=a,r=nö".encode(),
    ],
)
def test_a_broken_first_message_is_an_error(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        server_for().first(message)


def test_the_plus_mechanism_needs_a_binding() -> None:
    with pytest.raises(ProtocolError):
        server_for(plus=True, offered=True, binding=BINDING).first(b"n,,n=a,r=b")
    with pytest.raises(ProtocolError):
        server_for(plus=True, offered=True, binding=BINDING).first(b"p=bad/name,,n=a,r=b")


def test_a_binding_of_another_type_is_refused_at_the_end() -> None:
    client = ScramClient("SCRAM-SHA-256", "a", "b", nonce="n", plus=True, binding=BINDING)
    server = server_for(plus=True, offered=True, binding=BINDING)
    server.first(client.first().replace(b"tls-exporter", b"tls-unique"))
    challenge = server.challenge(make_verifier("SCRAM-SHA-256", "b", b"s", 4096))
    assert server.final(client.final(challenge))[0] is Outcome.UNKNOWN_BINDING


@pytest.mark.parametrize(
    "change",
    [
        lambda final: b"",
        lambda final: final.replace(b"c=", b"x="),
        lambda final: final.rpartition(b",p=")[0],
        lambda final: final.rpartition(b",p=")[0] + b",p=AAAA",
        lambda final: final + b",x=y",
        lambda final: final.replace(b"c=biws", b"c=????"),
        lambda final: final.replace(b",p=", b",m=1,p="),
        lambda final: final + b"\xff",
    ],
)
def test_a_broken_final_message_is_an_error(change: object) -> None:
    client, server = ScramClient("SCRAM-SHA-256", "a", "b", nonce="n"), server_for()
    server.first(client.first())
    final = client.final(server.challenge(make_verifier("SCRAM-SHA-256", "b", b"s", 4096)))
    with pytest.raises(ProtocolError):
        server.final(change(final))  # type: ignore[operator]


@pytest.mark.parametrize(("old", "new"), [(b"r=nsrv", b"r=nxxx"), (b"c=biws", b"c=eSws")])
def test_a_changed_final_message_proves_nothing(old: bytes, new: bytes) -> None:
    client, server = ScramClient("SCRAM-SHA-256", "a", "b", nonce="n"), server_for()
    server.first(client.first())
    final = client.final(server.challenge(make_verifier("SCRAM-SHA-256", "b", b"s", 4096)))
    assert old in final
    assert server.final(final.replace(old, new))[0] is Outcome.WRONG_PROOF


def test_messages_out_of_order_are_errors() -> None:
    with pytest.raises(ProtocolError):
        server_for().final(b"c=biws,r=x,p=AAAA")
    with pytest.raises(ProtocolError):
        ScramClient("SCRAM-SHA-1", "a", "b", nonce="n").verify(b"v=AAAA")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_protocol_error_at_worst(data: bytes) -> None:
    server = server_for()
    client = ScramClient("SCRAM-SHA-256", "a", "b", nonce="n")
    for call in (server.first, client.verify, server_for().first):
        with contextlib.suppress(ProtocolError):
            call(data)
    server = server_for()
    server.first(b"n,,n=a,r=b")
    server.challenge(make_verifier("SCRAM-SHA-256", "b", b"s", 1))
    with contextlib.suppress(ProtocolError):
        server.final(data)


@pytest.mark.parametrize(
    "challenge",
    [
        b"r=n,s=c2FsdA==,i=4096",
        b"r=other,s=c2FsdA==,i=4096",
        b"r=nx,s=,i=4096",
        b"r=nx,s=!!!!,i=4096",
        b"r=nx,s=c2FsdA==,i=0",
        b"r=nx,s=c2FsdA==,i=100",
        b"r=nx,s=c2FsdA==,i=99999999",
        b"r=nx,s=c2FsdA==,i=x",
        b"r=nx,i=4096,s=c2FsdA==",
        b"e=no",
        b"",
        b"m=x,r=nx,s=c2FsdA==,i=4096",
        b"r=nx,s=" + base64.b64encode(bytes(300)) + b",i=4096",
    ],
)
def test_the_client_refuses_a_bad_challenge(challenge: bytes) -> None:
    with pytest.raises(ProtocolError):
        ScramClient("SCRAM-SHA-256", "a", "b", nonce="n").final(challenge)


def test_the_client_refuses_a_server_that_does_not_know_the_password() -> None:
    client, server = ScramClient("SCRAM-SHA-256", "a", "b", nonce="n"), server_for()
    server.first(client.first())
    client.final(server.challenge(make_verifier("SCRAM-SHA-256", "b", b"s", 4096)))
    for reply in (b"v=" + base64.b64encode(bytes(32)), b"e=other-error", b"v=x"):
        with pytest.raises(ProtocolError):
            client.verify(reply)


def test_made_up_verifiers_stay_the_same_and_differ_by_name_and_mechanism() -> None:
    def made_up(name: str, mechanism: ScramHash = "SCRAM-SHA-256", secret: bytes = b"k") -> bytes:
        return made_up_verifier(mechanism, name, secret, salt_size=16, iterations=10_000).salt

    assert made_up("a") == made_up("a")
    assert len({made_up("a"), made_up("b"), made_up("a", "SCRAM-SHA-1"), made_up("a", secret=b"j")}) == 4
    assert len(made_up("a")) == 16


def test_saslprep_follows_the_rfc() -> None:
    # RFC 4013 section 3
    assert saslprep("I\u00adX") == "IX"
    assert saslprep("user") == "user"
    assert saslprep("USER") == "USER"
    assert saslprep("\u00aa") == "a"
    assert saslprep("\u2168") == "IX"
    for bad in ("\u0007", "\u0627\u0031"):
        with pytest.raises(ProtocolError):
            saslprep(bad)


def test_the_hash_of_the_offer_as_the_xep_has_it() -> None:
    names, types = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1"], ["tls-server-end-point", "tls-exporter"]
    assert downgrade_hash("SCRAM-SHA-1", names, types) == "G6k/rBLDqgOhRRaCuuatSDFkJ08="
    assert downgrade_hash("SCRAM-SHA-1", names, []) != downgrade_hash("SCRAM-SHA-1", names, types)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
def test_an_offer_that_was_changed_on_the_way_is_noticed(mechanism: ScramHash) -> None:
    offered = downgrade_hash(mechanism, [mechanism, "SCRAM-SHA-512"], [])
    seen = downgrade_hash(mechanism, [mechanism], [])
    server = ScramServer(mechanism, nonce="srv", plus=False, plus_offered=False, bindings={}, protection=offered)
    for protection, ok in ((offered, True), (seen, False), ("", True)):
        client = ScramClient(mechanism, "a", "b", nonce="n", protection=protection)
        server.first(client.first())
        challenge = server.challenge(make_verifier(mechanism, "b", b"salt", 4096))
        assert challenge.endswith(f",h={offered}".encode())
        if ok:
            assert server.final(client.final(challenge))[0] is Outcome.ACCEPTED
        else:
            with pytest.raises(ProtocolError, match="changed the offer"):
                client.final(challenge)
    # Whoever changes the hash as well changes what the proof is made of.
    client = ScramClient(mechanism, "a", "b", nonce="n", protection=seen)
    server.first(client.first())
    challenge = server.challenge(make_verifier(mechanism, "b", b"salt", 4096))
    assert server.final(client.final(challenge.replace(offered.encode(), seen.encode())))[0] is Outcome.WRONG_PROOF


def test_the_binding_to_the_certificate() -> None:
    bindings = {"tls-exporter": BINDING, "tls-server-end-point": bytes(48)}
    for binding, outcome in ((bytes(48), Outcome.ACCEPTED), (BINDING, Outcome.BINDING_MISMATCH)):
        client = ScramClient(
            "SCRAM-SHA-256", "a", "b", nonce="n", plus=True, binding=binding, binding_type="tls-server-end-point"
        )
        server = ScramServer("SCRAM-SHA-256", nonce="s", plus=True, plus_offered=True, bindings=bindings)
        server.first(client.first())
        assert (
            server.final(client.final(server.challenge(make_verifier("SCRAM-SHA-256", "b", b"s", 4096))))[0] is outcome
        )
