"""XEP-0114 on the server's side: the stream of an external component, from its header to its end, without any I/O.

The namespace of the stream is ``jabber:component:accept``; stanzas are given and taken in ``jabber:client``, as
everywhere inside the server.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import quoteattr

from moim.errors import ProtocolError
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element, XmlStream
from moim.proto.xmpp.errors import stream_error
from moim.proto.xmpp.jid import Jid, prepare_domain
from moim.proto.xmpp.stanza import STANZAS, as_client

MAX_STANZA = 262_144
_MAX_BEFORE = 1024  # bytes of a handshake


@dataclass(frozen=True, slots=True)
class Proven:
    """The component of this domain has shown that it knows the secret: answer by ``accept`` or ``end``."""

    name: str


@dataclass(frozen=True, slots=True)
class Stanza:
    """A stanza from an address of the component to an address of somebody's."""

    sender: Jid
    to: Jid
    element: Element


@dataclass(frozen=True, slots=True)
class Ended:
    """The stream is over; ``reason`` is a sentence, empty when the component ended it."""

    reason: str


Event = Proven | Stanza | Ended
_Stage = Literal["opening", "handshake", "proven", "attached", "ended"]


class ComponentStream:
    """One connection. ``secret`` gives that of a component's domain (canonical), None when there is no such component;
    ``token`` gives a fresh stream id."""

    def __init__(self, *, secret: Callable[[str], str | None], token: Callable[[], str]) -> None:
        self.name = ""
        self._secret = secret
        self._id = token()
        self._framer = XmlStream(MAX_STANZA)
        self._stage: _Stage = "opening"
        self._taken = 0
        self._opened = False
        self._events: deque[Event] = deque()
        self._output = bytearray()

    @property
    def attached(self) -> bool:
        """Whether stanzas go both ways."""
        return self._stage == "attached"

    @property
    def over(self) -> bool:
        """Whether the stream has ended."""
        return self._stage == "ended"

    # --- in -----------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Bytes of the component; what they mean is told by ``next_event``."""
        if self._stage == "ended":
            return
        if self._stage in ("opening", "handshake"):
            self._taken += len(data)
            if self._taken > MAX_STANZA:
                self.end("policy-violation", "too much before the handshake")
                return
        try:
            events = self._framer.feed(data)
        except ProtocolError as error:
            self.end(getattr(error, "condition", "") or "not-well-formed", error.message)
            return
        for event in events:
            if self.over:
                return
            if event[0] == "open":
                self._open(event[1])
            elif event[0] == "element":
                self._element(event[1])
            else:
                self.end("", "")

    def _open(self, attrs: dict[str, str]) -> None:
        with suppress(ProtocolError):
            # Whether there is such a component is told only to those who have its secret.
            self.name = prepare_domain(attrs.get("to", ""))
        self._write_header()
        if attrs.get("xmlns") != ns.COMPONENT:
            self.end("invalid-namespace", "the stream is not one of a component")
            return
        self._stage = "handshake"

    def _write_header(self) -> None:
        if not self._opened:
            self._opened = True
            name = f" from={quoteattr(self.name)}" if self.name else ""
            self._output += (
                f"<?xml version='1.0'?><stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}'{name}"
                f" id={quoteattr(self._id)}>"
            ).encode()

    def _element(self, element: Element) -> None:
        if self._stage == "handshake":
            self._handshake(element)
        elif self._stage == "attached":
            self._stanza(element)
        else:
            self.end("not-authorized", "the handshake is not answered yet")

    def _handshake(self, element: Element) -> None:
        if (element.ns, element.name) != (ns.COMPONENT, "handshake"):
            self.end("not-authorized", "a handshake comes first")
            return
        secret = self._secret(self.name)
        # SHA-1 of the stream id and the secret is what the protocol has.
        digest = hashlib.sha1(f"{self._id}{secret or self._id}".encode(), usedforsecurity=False).hexdigest()
        right = hmac.compare_digest(digest.encode(), element.text.strip().lower()[:_MAX_BEFORE].encode())
        if secret is None or not right:
            self.end("not-authorized", f"no component {self.name or '?'} has this secret")
            return
        self._stage = "proven"
        self._events.append(Proven(self.name))

    def _stanza(self, element: Element) -> None:
        stanza = as_client(element, (ns.COMPONENT,))
        if stanza.ns != ns.CLIENT or stanza.name not in STANZAS:
            self.end("unsupported-stanza-type", "a component sends messages, presence and requests")
            return
        try:
            sender, to = Jid.parse(stanza.get("from") or ""), Jid.parse(stanza.get("to") or "")
        except ProtocolError as error:
            self.end("improper-addressing", f"a stanza needs 'from' and 'to': {error.message}")
            return
        if sender.domain != self.name:
            self.end("invalid-from", f"a stanza is from {sender.domain}, which is not this component")
            return
        self._events.append(Stanza(sender, to, stanza.with_attrs({"from": str(sender), "to": str(to)})))

    # --- out ----------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Tells the component that it is attached."""
        if self._stage == "proven":
            self._stage = "attached"
            self._output += b"<handshake/>"

    def send(self, stanza: Element) -> None:
        """Sends a stanza to an attached component."""
        if self._stage == "attached":
            # Written as for a stream of clients: what has their namespace gets that of the component's stream.
            self._output += stanza.to_xml(ns.CLIENT).encode()

    def end(self, condition: str, reason: str) -> None:
        """Ends the stream, with a stream error unless ``condition`` is empty."""
        if self._stage == "ended":
            return
        self._write_header()
        if condition:
            self._output += stream_error(condition, reason).to_xml("").encode()
        self._output += b"</stream:stream>"
        self._stage = "ended"
        self._events.append(Ended(reason))

    def next_event(self) -> Event | None:
        """What happened next, or None."""
        return self._events.popleft() if self._events else None

    def take_output(self) -> bytes:
        """What is to be sent now."""
        data = bytes(self._output)
        self._output.clear()
        return data
