"""What the negotiation of any stream asks of its driver, with clients (RFC 6120 4-7) and between servers alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moim.proto.xmpp.element import Element


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Send a stream header with these attributes."""

    attrs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Send:
    """Send these elements."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class StartTls:
    """Do the handshake: as a server, behind ``<proceed/>``; as a client, after the peer's."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream, with an error when there is one. ``reason`` is a sentence for people."""

    error: Element | None
    reason: str
