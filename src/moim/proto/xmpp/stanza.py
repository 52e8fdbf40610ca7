"""What the three stanzas may look like (RFC 6120 section 8), and how to answer them."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.errors import StanzaError

STANZAS: Final = frozenset({"message", "presence", "iq"})
MESSAGE_TYPES: Final = frozenset({"normal", "chat", "groupchat", "headline", "error"})
SUBSCRIPTION_TYPES: Final = frozenset({"subscribe", "subscribed", "unsubscribe", "unsubscribed"})

_BYTE = re.compile(r"[+-]?0{0,8}\d{1,3}", re.ASCII)
_DATE_TIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:Z|([+-])(\d{2}):(\d{2}))", re.ASCII
)


def as_client(element: Element, spaces: Collection[str]) -> Element:
    """An element of one of these namespaces as one of ``jabber:client``, down to where another namespace begins."""
    if element.ns not in spaces:
        return element
    children = [child if isinstance(child, str) else as_client(child, spaces) for child in element.children]
    return Element(element.name, ns.CLIENT, element.attrs, children)


def message_type(message: Element) -> str:
    """A message's type; absent and unknown ones are ``normal`` (RFC 6121 section 5.2.2)."""
    kind = message.get("type") or "normal"
    return kind if kind in MESSAGE_TYPES else "normal"


def check_iq(iq: Element) -> Element | None:
    """The payload of a ``get`` or ``set``; None for a ``result`` or ``error``.

    Raises StanzaError bad-request for an IQ that RFC 6120 section 8.2.3 does not allow.
    """
    kind = iq.get("type")
    if kind not in ("get", "set", "result", "error"):
        raise StanzaError("bad-request", "an iq needs the type get, set, result or error")
    if not iq.get("id"):
        raise StanzaError("bad-request", "an iq needs an id")
    if kind in ("result", "error"):
        return None
    children = list(iq.elements())
    if len(children) != 1:
        raise StanzaError("bad-request", "an iq of type get or set has exactly one child")
    return children[0]


def result(iq: Element, *payload: Element) -> Element:
    """The result that answers ``iq``."""
    attrs = {"type": "result"}
    for name, source in (("from", "to"), ("to", "from"), ("id", "id")):
        value = iq.get(source)
        if value is not None:
            attrs[name] = value
    return Element("iq", ns.CLIENT, attrs, tuple(payload))


def iq_set(identifier: str, to: str, payload: Element) -> Element:
    """A request of the server's own, without ``from``: it comes from the account itself."""
    return Element("iq", ns.CLIENT, {"type": "set", "id": identifier, "to": to}, (payload,))


def presence(sender: str, to: str, kind: str) -> Element:
    """A presence stanza of a type, and nothing in it."""
    return Element("presence", ns.CLIENT, {"from": sender, "to": to, "type": kind})


def priority_of(stanza: Element) -> int:
    """The priority of available presence: −128…127, 0 when absent. Raises StanzaError when it is not one."""
    child = stanza.find("priority", ns.CLIENT)
    if child is None:
        return 0
    text = child.text.strip()
    if not _BYTE.fullmatch(text) or not -128 <= int(text) <= 127:
        raise StanzaError("bad-request", "a presence priority is a number from -128 to 127")
    return int(text)


def timestamp(moment: datetime) -> str:
    """An instant as XEP-0082 writes it: UTC, milliseconds, ``Z``."""
    utc = moment.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z"


def read_timestamp(text: str) -> datetime:
    """The instant that a text of XEP-0082's DateTime profile names. Raises ValueError when it names none."""
    found = _DATE_TIME.fullmatch(text.strip()) if len(text) <= 64 else None
    if found is None:
        raise ValueError("a time is written as XEP-0082 has it: 2026-01-31T12:00:00Z")
    year, month, day, hour, minute, second = (int(part) for part in found.group(1, 2, 3, 4, 5, 6))
    fraction, sign, zone_hours, zone_minutes = found.group(7, 8, 9, 10)
    micros = int((fraction or "").ljust(6, "0")[:6])
    moment = datetime(year, month, day, hour, minute, min(second, 59), micros, UTC)
    if sign is None:
        return moment
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        return moment - offset if sign == "+" else moment + offset
    except OverflowError:
        raise ValueError("a time is out of range") from None


def delay(moment: datetime, sender: str) -> Element:
    """The note that a stanza was held back since ``moment`` by ``sender`` (XEP-0203)."""
    return Element("delay", ns.DELAY, {"from": sender, "stamp": timestamp(moment)})
