"""Two servers of the plane that talk to each other, and one on a raw socket that says what a test wants."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moim._native import Element, XmppServer

from .xmpp_peers import NS_CLIENT, NS_STREAMS, NS_TLS, WAIT, Client, certificate

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


def message(number: int, size: int = 1000) -> Element:
    body = Element("body", NS_CLIENT, {}, ["x" * size])
    return Element("message", NS_CLIENT, {"from": "u@a.test", "to": "v@b.test", "id": str(number)}, [body])
