"""Both sides of the XMPP engine for its tests: a host that decides as a server would, and clients on raw sockets."""

from __future__ import annotations

import base64
import datetime
import functools
import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moim._native import Element, XmppServer

DOMAIN = "moim.test"
NS_CLIENT = "jabber:client"
NS_STREAMS = "http://etherx.jabber.org/streams"
NS_STREAM_ERRORS = "urn:ietf:params:xml:ns:xmpp-streams"
NS_TLS = "urn:ietf:params:xml:ns:xmpp-tls"
NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
NS_BIND = "urn:ietf:params:xml:ns:xmpp-bind"
NS_FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
HEADER = (
    f"<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' "
    f"xmlns:stream='{NS_STREAMS}'>"
)
OPEN = f"<open xmlns='{NS_FRAMING}' to='{DOMAIN}' version='1.0'/>"
WAIT = 20.0


@functools.cache
def certificate(name: str) -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return built.public_bytes(serialization.Encoding.PEM), private


def client_context(name: str = DOMAIN) -> ssl.SSLContext:
    """Trusts exactly the test certificate."""
    context = ssl.create_default_context(cadata=certificate(name)[0].decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Host:
    """Decides as simply as possible: PLAIN with any password, any resource, presence as sent."""

    def __init__(self, **bounds: Any) -> None:
        self.again: tuple[dict[str, str], Element] | None = None
        """The answer to a stream that is opened anew."""
        self.server = XmppServer(DOMAIN, **bounds)
        self.server.set_tls(*certificate(DOMAIN))
        self.seen: list[tuple[Any, ...]] = []
        self.users: dict[int, str] = {}
        self.bound: dict[int, str] = {}
        self.answering = True
        self.holding = False
        """Whether messages that come up are not dealt with yet."""
        self.features: list[Element | str] = []

    def listen(self, mode: str = "starttls", address: str = "127.0.0.1", **options: Any) -> int:
        return self.server.listen(address, 0, mode, **options)[1]  # type: ignore[arg-type]

    def pump(self, seconds: float = 0.02) -> None:
        """Handles what is waiting, or comes within the time."""
        ready, _, _ = select.select([self.server.fileno()], [], [], seconds)
        if ready:
            for event in self.server.drain(1000):
                self.seen.append(event)
                if self.answering:
                    self.answer(event)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Pumps until the condition holds; returns what it gave."""
        deadline = time.monotonic() + WAIT
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it did not happen; last events: {self.seen[-5:]}"
            self.pump()
        return found

    def event(self, kind: str, sid: int | None = None) -> tuple[Any, ...]:
        """The first event of a kind, waited for."""
        found: tuple[Any, ...] = self.until(
            lambda: next((e for e in self.seen if e[0] == kind and sid in (None, e[1])), None)
        )
        return found

    def stanzas(self) -> list[Element]:
        return [event[2] for event in self.seen if event[0] == "stanza"]

    def answer(self, event: tuple[Any, ...]) -> None:
        server = self.server
        match event:
            case ("open", sid, _):
                server.open_stream(sid, {"from": DOMAIN, "id": f"s{sid}", "version": "1.0"})
                server.send(sid, [Element("features", NS_STREAMS, {}, self.features)])
            case ("close", sid):
                server.close(sid)
            case ("stanza", sid, element, number):
                self.stanza(sid, element)
                if number and not self.holding:
                    server.done([(sid, number)])

    def stanza(self, sid: int, element: Element) -> None:
        server = self.server
        match (element.ns, element.name):
            case ("urn:ietf:params:xml:ns:xmpp-tls", "starttls"):
                server.starttls(sid)
            case ("urn:ietf:params:xml:ns:xmpp-sasl", "auth"):
                user = base64.b64decode(element.text).split(b"\0")[1].decode()
                self.users[sid] = f"{user}@{DOMAIN}"
                server.authenticated(sid, self.users[sid])
                server.send(sid, [Element("success", NS_SASL)])
                server.restart(sid, *(self.again or ()))
            case ("jabber:client", "iq") if (bind := element.find("bind", NS_BIND)) is not None:
                resource = bind.find("resource")
                full = f"{self.users[sid]}/{resource.text if resource else sid}"
                self.bound[sid] = full
                server.bind(sid, full)
                jid = Element("bind", NS_BIND, {}, [Element("jid", NS_BIND, {}, [full])])
                server.send(sid, [Element("iq", NS_CLIENT, {"type": "result", "id": element.get("id") or ""}, [jid])])
            case ("jabber:client", "presence") if element.get("to") is None:
                priority = element.find("priority")
                available = element.get("type") is None
                server.presence(sid, int(priority.text if priority else 0) if available else None)
                server.send(sid, [element])
            case ("jabber:client", "iq") if element.get("type") == "get":
                reply = Element("iq", NS_CLIENT, {"type": "result", "id": element.get("id") or ""})
                server.send(sid, [reply])

    def sid(self, full: str) -> int:
        return next(sid for sid, bound in self.bound.items() if bound == full)


@contextmanager
def host(**bounds: Any) -> Iterator[Host]:
    made = Host(**bounds)
    try:
        yield made
    finally:
        made.server.stop()


class Client:
    """A client on a raw socket, so that it can break every rule. Reading pumps the host, in the same thread."""

    def __init__(self, host: Host, port: int, source: str = "127.0.0.1") -> None:
        self.host = host
        self.sock: socket.socket | ssl.SSLSocket = socket.create_connection(
            ("127.0.0.1", port), timeout=WAIT, source_address=(source, 0)
        )
        self.received = ""
        self.ended = False

    def send(self, data: str | bytes) -> None:
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def read(self) -> None:
        """Takes what is there, waiting a moment."""
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        if not pending and not select.select([self.sock], [], [], 0.02)[0]:
            return
        self.sock.settimeout(0)
        try:
            data = self.sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        finally:
            self.sock.settimeout(WAIT)
        self.take(data)

    def take(self, data: bytes) -> None:
        if data:
            self.received += data.decode()
        else:
            self.ended = True

    def until(self, text: str) -> str:
        """Waits until the text has come; returns everything up to its end and forgets it."""

        def found() -> bool:
            self.read()
            assert text in self.received or not self.ended, f"ended with {self.received!r}, without {text!r}"
            return text in self.received

        self.host.until(found)
        end = self.received.index(text) + len(text)
        got, self.received = self.received[:end], self.received[end:]
        return got

    def rest(self) -> str:
        """Everything up to the end of the connection."""

        def done() -> bool:
            self.read()
            return self.ended

        self.host.until(done)
        return self.received

    def quiet(self, other: Callable[[], None]) -> None:
        """Whatever is sent before ``other`` returns has arrived when this returns, and nothing has come."""
        other()
        self.read()
        assert not self.received, self.received

    def tls(self, context: ssl.SSLContext | None = None, name: str = DOMAIN) -> None:
        """Handshakes on the socket as it is."""
        context = context or client_context()
        self.sock.settimeout(None)
        wrapped = context.wrap_socket(self.sock, server_hostname=name, do_handshake_on_connect=False)
        wrapped.setblocking(False)

        def step() -> bool:
            try:
                wrapped.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            return True

        self.host.until(step)
        wrapped.settimeout(WAIT)
        self.sock = wrapped

    def starttls(self, **options: Any) -> None:
        self.send(HEADER)
        self.until("</stream:features>" if "</stream:features>" in self.received else "<stream:features/>")
        self.send(f"<starttls xmlns='{NS_TLS}'/>")
        self.until(f"<proceed xmlns='{NS_TLS}'/>")
        self.tls(**options)

    def login(self, user: str, resource: str, *, presence: int | None = 0, header: str = HEADER) -> Client:
        """Everything up to available presence, with the priority given."""
        self.send(header)
        self.until("<stream:features/>")
        plain = base64.b64encode(f"\0{user}\0pw".encode()).decode()
        self.send(f"<auth xmlns='{NS_SASL}' mechanism='PLAIN'>{plain}</auth>")
        self.until(f"<success xmlns='{NS_SASL}'/>")
        self.send(header)
        self.until("<stream:features/>")
        self.bind(resource, presence)
        return self

    def bind(self, resource: str, presence: int | None) -> None:
        self.send(f"<iq type='set' id='b'><bind xmlns='{NS_BIND}'><resource>{resource}</resource></bind></iq>")
        self.until("</iq>")
        if presence is not None:
            self.send(f"<presence><priority>{presence}</priority></presence>")
            self.until("</presence>")

    def close(self) -> None:
        self.sock.close()


class WebClient(Client):
    """A client over WebSocket; what it receives is the messages, one after another."""

    def __init__(self, host: Host, port: int, *, headers: Mapping[str, str] | None = None, tls: bool = False) -> None:
        super().__init__(host, port)
        if tls:
            self.tls()
        fields = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": "xmpp",
        } | dict(headers or {})
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send_raw(f"GET /xmpp-websocket HTTP/1.1\r\n{lines}\r\n".encode())
        self.buffer = b""
        self.messages: list[str] = []
        self.controls: list[tuple[int, bytes]] = []
        self.framed = False

    def send_raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, data: str | bytes, opcode: int = 1, *, fin: bool = True) -> None:
        payload = data.encode() if isinstance(data, str) else data
        mask = os.urandom(4)
        size = len(payload)
        if size < 126:
            length = bytes([0x80 | size])
        elif size < 65536:
            length = struct.pack("!BH", 0xFE, size)
        else:
            length = struct.pack("!BQ", 0xFF, size)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.send_raw(bytes([opcode | (0x80 if fin else 0)]) + length + mask + masked)

    def upgraded(self) -> str:
        head = self.until("\r\n\r\n")
        self.framed = True
        raw, self.received = self.received.encode("latin-1"), ""
        if raw:
            self.take(raw)
        return head

    def take(self, data: bytes) -> None:
        if not data:
            self.ended = True
        elif not self.framed:
            self.received += data.decode("latin-1")
        else:
            self.buffer += data
            while (frame := self.frame()) is not None:
                opcode, payload = frame
                if opcode == 1:
                    self.messages.append(payload.decode())
                    self.received += payload.decode()
                else:
                    self.controls.append((opcode, payload))

    def frame(self) -> tuple[int, bytes] | None:
        if len(self.buffer) < 2:
            return None
        size, at = self.buffer[1], 2
        assert size < 128, "a server must not mask"
        if size == 126:
            size, at = int.from_bytes(self.buffer[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(self.buffer[2:10], "big"), 10
        if len(self.buffer) < at + size:
            return None
        opcode, payload = self.buffer[0] & 15, self.buffer[at : at + size]
        self.buffer = self.buffer[at + size :]
        return opcode, payload

    def login(self, user: str, resource: str, *, presence: int | None = 0, header: str = OPEN) -> WebClient:
        self.upgraded()
        self.send(header)
        self.until(f"<stream:features xmlns:stream='{NS_STREAMS}'/>")
        plain = base64.b64encode(f"\0{user}\0pw".encode()).decode()
        self.send(f"<auth xmlns='{NS_SASL}' mechanism='PLAIN'>{plain}</auth>")
        self.until(f"<success xmlns='{NS_SASL}'/>")
        self.send(header)
        self.until(f"<stream:features xmlns:stream='{NS_STREAMS}'/>")
        self.send(
            f"<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='{NS_BIND}'>"
            f"<resource>{resource}</resource></bind></iq>"
        )
        self.until("</iq>")
        if presence is not None:
            self.send(f"<presence xmlns='jabber:client'><priority>{presence}</priority></presence>")
            self.until("</presence>")
        return self
