"""Stream headers and features (RFC 6120 sections 4 and 5): what opens a stream, and the check of a client's opening."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import quoteattr

from moim.errors import ProtocolError
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.jid import prepare_domain

VERSION: Final = "1.0"


def stream_header(to: str, *, sender: str = "") -> str:
    """The opening of a client's stream over TCP, with the XML declaration; ``sender`` is its bare JID, if told."""
    who = f" from={quoteattr(sender)}" if sender else ""
    return (
        f"<?xml version='1.0'?><stream:stream{who} to={quoteattr(to)} version='{VERSION}' xml:lang='en'"
        f" xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}'>"
    )


@dataclass(frozen=True, slots=True)
class OpeningError:
    """Why an opening is refused: a stream error condition, and a sentence."""

    condition: str
    text: str


def check_opening(attrs: Mapping[str, str], domain: str) -> OpeningError | None:
    """Judges a client's stream header for the server of ``domain`` (RFC 6120 sections 4.7.1 and 4.7.5)."""
    to = attrs.get("to")
    if to is None:
        return OpeningError("improper-addressing", "the stream header has no 'to'")
    try:
        known = prepare_domain(to) == domain
    except ProtocolError:
        known = False
    if not known:
        return OpeningError("host-unknown", "this server does not serve that domain")
    major, _, minor = attrs.get("version", "0.9").partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()) or int(major[:4]) < 1:
        return OpeningError("unsupported-version", "this server speaks version 1.0")
    return None


def features(*children: Element) -> Element:
    """The ``<stream:features/>`` of these features."""
    return Element("features", ns.STREAMS, {}, children)


def starttls_required() -> Element:
    """The STARTTLS feature of a stream on which nothing else is possible yet."""
    return Element("starttls", ns.TLS, {}, (Element("required", ns.TLS),))
