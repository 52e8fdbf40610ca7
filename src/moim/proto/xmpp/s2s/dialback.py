"""Server dialback (XEP-0220): its keys, made as XEP-0185 recommends, and its two elements in both directions."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Literal

from moim.errors import ProtocolError
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.errors import STANZA_CONDITIONS, read_condition
from moim.proto.xmpp.jid import prepare_domain

_MAX_ID = 256
_KEY = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)
"""A peer's key; its form is the peer's own affair."""

Outcome = Literal["valid", "invalid", "error"]
Kind = Literal["result", "verify"]


class Keys:
    """Makes and checks the site's own keys; nodes that share ``secret`` can answer for each other."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("a dialback secret has at least 16 bytes")
        self._key = hashlib.sha256(secret).hexdigest().encode()

    def key(self, *, receiving: str, originating: str, stream_id: str) -> str:
        """The key for one pair of domains on one stream (XEP-0185 section 3)."""
        return hmac.new(self._key, f"{receiving} {originating} {stream_id}".encode(), "sha256").hexdigest()

    def check(self, key: str, *, receiving: str, originating: str, stream_id: str) -> bool:
        """Whether ``key`` is one that this site made."""
        made = self.key(receiving=receiving, originating=originating, stream_id=stream_id)
        return hmac.compare_digest(made.encode(), key.encode())


@dataclass(frozen=True, slots=True)
class Dialback:
    """A ``<db:result/>`` or ``<db:verify/>``. ``sender`` and ``target`` are prepared domains, as its addresses say.

    A request has a ``key`` and no ``outcome``; an answer has an ``outcome``, and for errors a ``condition``.
    """

    kind: Kind
    sender: str
    target: str
    key: str = ""
    stream_id: str = ""
    outcome: Outcome | None = None
    condition: str = ""
    text: str = ""


def is_dialback(element: Element) -> bool:
    """Whether the element belongs to dialback."""
    return element.ns == ns.DIALBACK and element.name in ("result", "verify")


def read(element: Element) -> Dialback:
    """Reads either element. Raises ProtocolError with ``condition``-worthy words when it is none."""
    sender, target = _domain(element, "from"), _domain(element, "to")
    kind: Kind = "result" if element.name == "result" else "verify"
    stream_id = element.get("id") or ""
    if kind == "verify" and not 0 < len(stream_id) <= _MAX_ID:
        raise ProtocolError("a dialback verification needs the id of a stream")
    outcome = element.get("type")
    if outcome is None:
        key = element.text.strip()
        if not _KEY.fullmatch(key):
            raise ProtocolError("a dialback key is 1 to 512 visible ASCII characters")
        return Dialback(kind, sender, target, key, stream_id)
    if outcome == "valid":
        return Dialback(kind, sender, target, "", stream_id, "valid")
    if outcome == "error":
        error = next((child for child in element.elements() if child.name == "error"), None)
        condition, text = read_condition(error, ns.STANZA_ERRORS)
        return Dialback(kind, sender, target, "", stream_id, "error", condition, text)
    # Anything else cannot mean that the key is right.
    return Dialback(kind, sender, target, "", stream_id, "invalid")


def request(kind: Kind, *, sender: str, target: str, key: str, stream_id: str = "") -> Element:
    """Asks for a pair (``result``), or asks whether a key is right (``verify``, with the stream's id)."""
    attrs = {"from": sender, "to": target} | ({"id": stream_id} if kind == "verify" else {})
    return Element(kind, ns.DIALBACK, attrs, (key,))


def answer(
    kind: Kind,
    outcome: Outcome,
    *,
    sender: str,
    target: str,
    stream_id: str = "",
    condition: str = "",
    text: str = "",
) -> Element:
    """The answer; ``condition`` is a stanza error's and goes with ``error`` only (XEP-0220 section 2.5)."""
    attrs = {"from": sender, "to": target, "type": outcome} | ({"id": stream_id} if kind == "verify" else {})
    if outcome != "error":
        return Element(kind, ns.DIALBACK, attrs)
    children = [Element(condition, ns.STANZA_ERRORS)]
    if text:
        children.append(Element("text", ns.STANZA_ERRORS, {"xml:lang": "en"}, (text,)))
    error = Element("error", ns.CLIENT, {"type": STANZA_CONDITIONS.get(condition, "cancel")}, tuple(children))
    return Element(kind, ns.DIALBACK, attrs, (error,))


def _domain(element: Element, attribute: str) -> str:
    value = element.get(attribute)
    if value is None:
        raise ProtocolError(f"a dialback element has no '{attribute}'")
    return prepare_domain(value)
