"""Streams between servers against those in the middle: nothing that was said in the clear counts under TLS."""

from __future__ import annotations

import datetime
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from moim._native import Element, XmppServer
from moim.proto.xmpp import ns

A, B = "a.test", "b.test"
WAIT = 20.0


class Side:
    """An engine whose decisions the test makes."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        self.server = XmppServer(A)
        self.server.set_tls(chain, key)
        self.seen: list[tuple[Any, ...]] = []

    def event(self, kind: str) -> tuple[Any, ...]:
        """The first event of a kind, removed with everything before it."""
        deadline = time.monotonic() + WAIT
        while True:
            for number, event in enumerate(self.seen):
                if event[0] == kind:
                    del self.seen[: number + 1]
                    return event
            assert time.monotonic() < deadline, (kind, self.seen)
            if select.select([self.server.fileno()], [], [], 0.05)[0]:
                self.seen += self.server.drain(1000)


@pytest.fixture
def side(authority: tuple[bytes, bytes]) -> Iterator[Side]:
    made = Side(*authority)
    yield made
    made.server.stop()


@pytest.fixture
def authority() -> tuple[bytes, bytes]:
    """A certificate that signs itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, A)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(A)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), secret


def header(sender: str, to: str) -> str:
    spaces = f"xmlns='{ns.SERVER}' xmlns:db='{ns.DIALBACK}' xmlns:stream='{ns.STREAMS}'"
    return f"<stream:stream from='{sender}' to='{to}' version='1.0' id='x' {spaces}>"


def until(peer: socket.socket, text: str) -> str:
    got = b""
    while text.encode() not in got:
        more = peer.recv(65536)
        assert more, got
        got += more
    return got.decode()


def drained(peer: socket.socket) -> str:
    got = b""
    try:
        while more := peer.recv(65536):
            got += more
    except ConnectionError:
        pass
    return got.decode(errors="replace")


@pytest.mark.parametrize(
    "injected",
    [
        f"<db:result from='{B}' to='{A}'>key</db:result>",
        f"<message from='ceo@{B}' to='u@{A}'><body>pay</body></message>",
        f"<auth xmlns='{ns.SASL}' mechanism='EXTERNAL'>=</auth>",
    ],
)
def test_what_came_with_starttls_ends_the_stream(side: Side, injected: str) -> None:
    port = side.server.listen("127.0.0.1", 0, "server")[1]
    with socket.create_connection(("127.0.0.1", port), WAIT) as peer:
        peer.sendall(header(B, A).encode())
        sid = side.event("open")[1]
        side.server.open_stream(sid, {"from": A, "to": B, "version": "1.0", "id": "s"})
        peer.sendall(f"<starttls xmlns='{ns.TLS}'/>{injected}".encode())
        side.event("stanza")
        side.server.starttls(sid)
        assert "policy-violation" in drained(peer)
        side.event("closed")
        assert not side.seen


def test_what_came_with_proceed_is_not_read_as_if_it_were_encrypted(side: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WAIT)
        port = listening.getsockname()[1]
        sid = side.server.connect("127.0.0.1", port, tls=False, server_name=B, local=A)
        peer, _ = listening.accept()
        with peer:
            peer.settimeout(WAIT)
            side.event("connected")
            side.server.open_stream(sid, {"from": A, "to": B, "version": "1.0"})
            until(peer, "<stream:stream")
            offer = f"<stream:features><starttls xmlns='{ns.TLS}'><required/></starttls></stream:features>"
            peer.sendall((header(B, A) + offer).encode())
            side.event("stanza")
            side.server.send(sid, [Element("starttls", ns.TLS)])
            until(peer, "<starttls")
            forged = f"<stream:features/><message from='ceo@{B}' to='u@{A}'><body>pay</body></message>"
            peer.sendall(f"<proceed xmlns='{ns.TLS}'/>{forged}".encode())
            assert side.event("stanza")[2] == Element("proceed", ns.TLS)
            side.server.starttls(sid)
            side.event("closed")
            assert not [event for event in side.seen if event[0] in ("stanza", "tls", "open")]
