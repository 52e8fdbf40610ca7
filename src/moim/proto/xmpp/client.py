"""A client's sign-in to an XMPP server as a sans-I/O machine: STARTTLS or direct TLS, SASL, resource binding.

Where the server can do all of it at once (XEP-0388, XEP-0386), it does so; what the server says of its offer in SCRAM
has to be what arrived (XEP-0474).

The driver owns the socket and the clock::

    login = ClientLogin("alice@example.com", "secret", tls="starttls")
    login.start(now)                              # tls="direct": after the handshake, start(now, binding=…)
    loop:
        while (data := login.next_output()) is not None: send data
        while (event := login.next_event()) is not None:
            StartTlsNow    → TLS handshake on the same socket, certificate checked against ``login.domain``;
                             then login.tls_started(now, binding=exporter bytes or None)
            SignedIn(jid)  → done; login.finish() ends the stream politely
            Received(el)   → a stanza that came after sign-in
            Failed(…)      → over; ``reason`` is a sentence for people
        read bytes → login.receive(data, now); end of file → login.closed(now)
        at login.deadline() → login.tick(now)

Nothing read before the handshake may be fed after it. ``receive`` does not raise: what the server breaks is a Failed.
"""

from __future__ import annotations

import base64
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from moim.errors import MoimError, ProtocolError
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element, XmlStream
from moim.proto.xmpp.errors import read_condition
from moim.proto.xmpp.jid import Jid
from moim.proto.xmpp.sasl import decode, encode
from moim.proto.xmpp.scram import ScramClient, ScramHash, downgrade_hash
from moim.proto.xmpp.stream import stream_header

Fault = Literal["credentials", "refused", "protocol", "timeout", "closed", "unencrypted"]

_SCRAM_PREFERENCE: tuple[ScramHash, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-1")
_WRONG_CREDENTIALS = frozenset({"not-authorized", "account-disabled", "credentials-expired", "invalid-authzid"})


@dataclass(frozen=True, slots=True)
class StartTlsNow:
    """Do the TLS handshake now, then call ``tls_started``."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The resource is bound: ``jid`` is the full JID that the server gave, ``mechanism`` how the password was shown."""

    jid: Jid
    mechanism: str


@dataclass(frozen=True, slots=True)
class Received:
    """A stanza that arrived after sign-in."""

    stanza: Element


@dataclass(frozen=True, slots=True)
class Failed:
    """Sign-in failed for good. ``kind`` says why in a word, ``condition`` is the protocol's own word, if any."""

    kind: Fault
    reason: str
    condition: str = ""


Event = StartTlsNow | SignedIn | Received | Failed
_Stage = Literal["new", "open", "starttls", "handshake", "sasl", "authenticated", "bind", "bound", "over"]


class ClientLogin:
    """One sign-in. ``address`` is the bare JID; ``username`` when the account is called otherwise at the server.

    ``allow_plain`` sends the password itself when the server offers nothing better (under TLS only). ``sasl2``: use
    XEP-0388 where it is offered. ``timeout`` is the seconds until SignedIn. Raises ProtocolError when ``address`` is
    not one.
    """

    def __init__(
        self,
        address: str,
        password: str,
        *,
        tls: Literal["starttls", "direct"] = "starttls",
        username: str = "",
        resource: str = "",
        allow_plain: bool = False,
        sasl2: bool = True,
        timeout: float = 30.0,
        nonce: Callable[[], str] = lambda: secrets.token_urlsafe(24),
    ) -> None:
        self.jid = Jid.parse(address).bare
        self.domain = self.jid.domain
        self._username = username or self.jid.local
        self._password = password
        self._direct = tls == "direct"
        self._resource = resource
        self._allow_plain = allow_plain
        self._sasl2 = sasl2
        self._at_once = False
        self._from = "" if username else str(self.jid)
        self._timeout = timeout
        self._nonce = nonce
        self._stage: _Stage = "new"
        self._encrypted = False
        self._binding: bytes | None = None
        self._deadline: float | None = None
        self._parser = XmlStream()
        self._scram: ScramClient | None = None
        self._scram_done = False
        self._mechanism = ""
        self._events: deque[Event] = deque()
        self._output: deque[bytes] = deque()

    def start(self, now: float, *, binding: bytes | None = None) -> None:
        """Opens the stream. With direct TLS pass the connection's ``tls-exporter`` bytes when TLS gives them."""
        self._deadline = now + self._timeout
        self._encrypted = self._direct
        self._binding = binding if self._direct else None
        self._open_stream()

    def tls_started(self, now: float, *, binding: bytes | None = None) -> None:
        """The handshake that ``StartTlsNow`` asked for is done, and the certificate is the right one."""
        if self._stage == "handshake":
            self._encrypted = True
            self._binding = binding
            self._open_stream()

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the server. In the handshake they are the driver's, and must not come here."""
        if self._stage in ("over", "new", "handshake"):
            return
        try:
            for item in self._parser.feed(data):
                if self._stage in ("over", "handshake"):
                    return
                if item[0] == "element":
                    self._element(item[1])
                elif item[0] == "close":
                    self._fail("closed", "the server closed the stream before sign-in was complete")
        except MoimError as error:
            self._fail("protocol", f"the server broke the protocol: {error.message}")

    def closed(self, now: float) -> None:
        """The connection ended."""
        self._fail("closed", "the server closed the connection before sign-in was complete")

    def tick(self, now: float) -> None:
        """Fails the sign-in when its time is over."""
        if self._deadline is not None and now >= self._deadline:
            self._fail("timeout", f"the server did not finish the sign-in within {self._timeout:g} seconds")

    def deadline(self) -> float | None:
        """When ``tick`` is due; None once signed in or over."""
        return self._deadline

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""
        return self._events.popleft() if self._events else None

    def next_output(self) -> bytes | None:
        """The oldest bytes to send that were not yet taken."""
        return self._output.popleft() if self._output else None

    def send(self, stanza: Element) -> None:
        """Queues a stanza; only after sign-in."""
        if self._stage != "bound":
            raise ProtocolError("stanzas can be sent only after sign-in")
        self._write(stanza)

    def finish(self) -> None:
        """Ends the stream."""
        if self._stage not in ("new", "over", "handshake"):
            self._output.append(b"</stream:stream>")
        self._stage = "over"
        self._deadline = None

    def _open_stream(self) -> None:
        authenticated = self._stage == "authenticated"
        self._parser = XmlStream()
        # The address is for nobody on the way to read.
        sender = self._from if self._encrypted else ""
        self._output.append(stream_header(self.domain, sender=sender).encode())
        if not authenticated:
            self._stage = "open"

    def _write(self, element: Element) -> None:
        self._output.append(element.to_xml().encode())

    def _fail(self, kind: Fault, reason: str, condition: str = "") -> None:
        if self._stage == "over":
            return
        if self._stage not in ("new", "handshake"):
            self._output.append(b"</stream:stream>")
        self._stage = "over"
        self._deadline = None
        self._events.append(Failed(kind, reason, condition))

    def _element(self, element: Element) -> None:
        if element.ns == ns.STREAMS and element.name == "error":
            self._stream_error(element)
        elif self._stage == "bound":
            if (element.ns, element.name) != (ns.STREAMS, "features"):  # they follow a sign-in at once
                self._events.append(Received(element))
        elif element.ns == ns.STREAMS and element.name == "features":
            self._features(element)
        elif self._stage == "starttls" and element.ns == ns.TLS:
            self._starttls_answer(element)
        elif self._stage == "sasl" and element.ns == (ns.SASL2 if self._at_once else ns.SASL):
            self._sasl(element)
        elif self._stage == "bind" and element.name == "iq" and element.get("id") == "bind":
            self._bound(element)
        elif self._stage not in ("authenticated", "bind"):
            self._fail("protocol", f"the server sent <{element.name}/> where the sign-in does not allow it")

    def _stream_error(self, element: Element) -> None:
        condition, text = read_condition(element, ns.STREAM_ERRORS)
        said = f": {text}" if text else ""
        kind: Fault = "closed" if self._stage == "bound" else "refused"
        self._fail(kind, f"the server ended the stream with {condition}{said}", condition)

    def _features(self, features: Element) -> None:
        if self._stage == "authenticated":
            self._request_bind(features)
        elif self._stage != "open":
            self._fail("protocol", "the server sent stream features twice")
        elif not self._encrypted:
            if features.find("starttls", ns.TLS) is None:
                self._fail("unencrypted", "the server offers no encryption (STARTTLS), so no password is sent")
                return
            self._stage = "starttls"
            self._write(Element("starttls", ns.TLS))
        else:
            self._authenticate(features)

    def _starttls_answer(self, element: Element) -> None:
        if element.name == "proceed":
            self._stage = "handshake"
            self._events.append(StartTlsNow())
        else:
            self._fail("unencrypted", "the server refused to start TLS")

    def _authenticate(self, features: Element) -> None:
        new = features.find("authentication", ns.SASL2) if self._sasl2 else None
        self._at_once = new is not None
        offer = new if new is not None else features.find("mechanisms", ns.SASL)
        names = [child.text.strip() for child in offer.elements() if child.name == "mechanism"] if offer else []
        listed = features.find("sasl-channel-binding", ns.CHANNEL_BINDING)
        types = [child.get("type") or "" for child in listed.elements()] if listed is not None else []
        inline = new.find("inline", ns.SASL2) if new is not None else None
        binds = inline is not None and inline.find("bind", ns.BIND2) is not None and not self._resource
        bindable = self._binding is not None and (not types or "tls-exporter" in types)
        for base in _SCRAM_PREFERENCE:
            plus = bindable and f"{base}-PLUS" in names
            if plus or base in names:
                self._mechanism = f"{base}-PLUS" if plus else base
                self._scram = ScramClient(
                    base,
                    self._username,
                    self._password,
                    nonce=self._nonce(),
                    plus=plus,
                    plus_seen=any(name.endswith("-PLUS") for name in names),
                    binding=self._binding,
                    protection=downgrade_hash(base, names, types),
                )
                self._start_sasl(self._scram.first(), binds=binds)
                return
        if "PLAIN" in names and self._allow_plain:
            self._mechanism = "PLAIN"
            self._start_sasl(b"\0".join((b"", self._username.encode(), self._password.encode())), binds=binds)
            return
        said = ", ".join(names[:10]) or "none"
        self._fail("refused", f"the server offers no way to authenticate that we accept (it offers: {said})")

    def _start_sasl(self, initial: bytes, *, binds: bool) -> None:
        self._stage = "sasl"
        if not self._at_once:
            self._write(Element("auth", ns.SASL, {"mechanism": self._mechanism}, (encode(initial),)))
            return
        data = base64.b64encode(initial).decode()
        children = [Element("initial-response", ns.SASL2, {}, (data,))]
        if binds:
            children.append(Element("bind", ns.BIND2))
        self._write(Element("authenticate", ns.SASL2, {"mechanism": self._mechanism}, tuple(children)))

    def _sasl(self, element: Element) -> None:
        if element.name == "challenge" and self._scram is not None:
            data = decode(element.text)
            if self._scram_done:
                self._fail("protocol", "the server sent one challenge too many")
                return
            self._scram_done = True
            self._write(Element("response", element.ns, {}, (encode(self._scram.final(data)),)))
        elif element.name == "success":
            self._succeeded(element)
        elif element.name == "failure":
            condition, text = read_condition(element, ns.SASL)
            text = text or read_condition(element, ns.SASL2)[1]
            if condition in _WRONG_CREDENTIALS:
                self._fail("credentials", "the server did not accept the address and password", condition)
            else:
                said = f": {text}" if text else ""
                self._fail("refused", f"the server refused the sign-in with {condition}{said}", condition)
        elif element.name == "continue":
            self._fail("refused", "the server wants more than a password, which this program cannot give", "continue")
        else:
            self._fail("protocol", f"the server sent <{element.name}/> where the sign-in does not allow it")

    def _succeeded(self, success: Element) -> None:
        last: Element | None = success
        if self._at_once:
            last = success.find("additional-data", ns.SASL2)
        if self._scram is not None:
            self._scram.verify(decode(last.text) if last is not None else b"")
        self._stage = "authenticated"
        if not self._at_once:
            self._open_stream()
        elif success.find("bound", ns.BIND2) is not None:
            who = success.find("authorization-identifier", ns.SASL2)
            self._signed_in(who.text if who is not None else "")

    def _request_bind(self, features: Element) -> None:
        if features.find("bind", ns.BIND) is None:
            self._fail("protocol", "the server offers no resource binding after sign-in")
            return
        wanted = (Element("resource", ns.BIND, {}, (self._resource,)),) if self._resource else ()
        self._stage = "bind"
        self._write(Element("iq", ns.CLIENT, {"type": "set", "id": "bind"}, (Element("bind", ns.BIND, {}, wanted),)))

    def _bound(self, iq: Element) -> None:
        bind = iq.find("bind", ns.BIND)
        jid = bind.find("jid", ns.BIND) if bind is not None else None
        if iq.get("type") != "result" or jid is None:
            error = iq.find("error", ns.CLIENT)
            condition, text = read_condition(error, ns.STANZA_ERRORS) if error is not None else ("", "")
            said = f" ({condition}{f': {text}' if text else ''})" if condition else ""
            self._fail("refused", f"the server did not bind a resource{said}", condition)
            return
        self._signed_in(jid.text)

    def _signed_in(self, address: str) -> None:
        full = Jid.parse(address.strip())
        if full.is_bare:
            raise ProtocolError("it bound an address without a resource")
        self._stage = "bound"
        self._deadline = None
        self._events.append(SignedIn(full, self._mechanism))
