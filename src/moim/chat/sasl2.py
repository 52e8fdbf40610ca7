"""The wire of XEP-0388 with what goes inside it: XEP-0386 (resources) and XEP-0484 (tokens). Elements in, data out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, ns, timestamp

_MAX_DATA = 8192
_MAX_TEXT = 128
_MAX_INLINE = 16
_TRUE = ("1", "true")


@dataclass(frozen=True, slots=True)
class Fast:
    """A token is used (XEP-0484 section 3.4): ``count`` rises with each use, ``invalidate`` ends the token."""

    count: int | None
    invalidate: bool


@dataclass(frozen=True, slots=True)
class BindWish:
    """A resource is wanted: ``tag`` names the program, ``inline`` are the features to switch on."""

    tag: str
    inline: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """An ``<authenticate/>``. ``client`` is the lasting identifier of the program on its device, empty for none."""

    mechanism: str
    initial: bytes | None
    client: str = ""
    bind: BindWish | None = None
    resume: Element | None = None
    wants_token: str = ""
    fast: Fast | None = None


def read_request(element: Element) -> Request:
    """Reads an ``<authenticate/>``. Raises ProtocolError for one that breaks the rules or the bounds."""
    initial, client, bind, resume, wants, fast = None, "", None, None, "", None
    for child in element.elements():
        key = (child.ns, child.name)
        if key == (ns.SASL2, "initial-response"):
            initial = read_data(child)
        elif key == (ns.SASL2, "user-agent"):
            client = _short(child.get("id") or "")
        elif key == (ns.BIND2, "bind"):
            bind = _bind(child)
        elif key == (ns.SM, "resume"):
            resume = child
        elif key == (ns.FAST, "request-token"):
            wants = _short(child.get("mechanism") or "")
        elif key == (ns.FAST, "fast"):
            fast = Fast(_count(child), child.get("invalidate") in _TRUE)
    return Request(element.get("mechanism") or "", initial, client, bind, resume, wants, fast)


def _bind(element: Element) -> BindWish:
    tag = element.find("tag", ns.BIND2)
    inline = tuple(child for child in element.elements() if child.ns != ns.BIND2)
    if len(inline) > _MAX_INLINE:
        raise ProtocolError("too many features are asked for at once")
    return BindWish(tag.text.strip() if tag is not None else "", inline)


def _count(element: Element) -> int | None:
    text = element.get("count")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise ProtocolError("the count of the token's uses is not a number")
    return int(text)


def _short(text: str) -> str:
    if len(text) > _MAX_TEXT:
        raise ProtocolError("a name in the sign-in is too long")
    return text.strip()


def read_data(element: Element) -> bytes:
    """The SASL bytes of an element; an empty element is an empty message. Raises ProtocolError if not base64."""
    text = element.text.strip()
    if len(text) > _MAX_DATA:
        raise ProtocolError("the SASL data is too long")
    try:
        return binascii.a2b_base64(text, strict_mode=True) if text else b""
    except (binascii.Error, ValueError):
        raise ProtocolError("the SASL data is not base64") from None


def challenge(data: bytes) -> Element:
    """A ``<challenge/>``."""
    return Element("challenge", ns.SASL2, {}, (base64.b64encode(data).decode(),) if data else ())


def failure(condition: str, text: str = "") -> Element:
    """A ``<failure/>``; ``text`` is for people."""
    said = (Element("text", ns.SASL2, {}, (text,)),) if text else ()
    return Element("failure", ns.SASL2, {}, (Element(condition, ns.SASL), *said))


def success(jid: Jid, data: bytes | None, extra: Sequence[Element] = ()) -> Element:
    """A ``<success/>``: the address (full when a resource is bound), what SASL says last, and what else was asked."""
    children = []
    if data is not None:
        children.append(Element("additional-data", ns.SASL2, {}, (base64.b64encode(data).decode(),)))
    children.append(Element("authorization-identifier", ns.SASL2, {}, (str(jid),)))
    return Element("success", ns.SASL2, {}, (*children, *extra))


def bound(answers: Sequence[Element]) -> Element:
    """What a bound resource is answered with."""
    return Element("bound", ns.BIND2, {}, tuple(answers))


def token(text: str, expires: datetime) -> Element:
    """A token for the next sign-in."""
    return Element("token", ns.FAST, {"token": text, "expiry": timestamp(expires)})
