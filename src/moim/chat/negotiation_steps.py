"""What the negotiation of a connection asks of its driver, one step after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moim.chat import sasl2
from moim.proto.xmpp import Element, Jid, sasl


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Answer the client's stream header with one of these attributes."""

    attrs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Send:
    """Send these elements."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class StartTls:
    """Tell the client to proceed, and do the handshake."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client is ``jid``: send ``success`` and expect a new stream."""

    jid: Jid
    success: Element
    mechanism: str


@dataclass(frozen=True, slots=True)
class Proven:
    """The client is ``jid``, in the way of XEP-0388: do what ``request`` asks, then send what ``finish`` gives."""

    jid: Jid
    mechanism: str
    request: sasl2.Request


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream, with an error when there is one. ``reason`` is for the log."""

    error: Element | None
    reason: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Find what is needed to go on; answer by ``verifier``, ``password_checked``, ``token_checked`` or ``refuse``.

    ``request`` is what the client asked for in the way of XEP-0388; None in the older way.
    """

    need: sasl.Need
    request: sasl2.Request | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """An attempt to authenticate failed. ``guess``: it may be password guessing."""

    local: str
    mechanism: str
    reason: str
    guess: bool


@dataclass(frozen=True, slots=True)
class BindRequest:
    """Bind a resource (empty: choose one); answer by ``bound`` or ``bind_refused``."""

    jid: Jid
    resource: str


@dataclass(frozen=True, slots=True)
class Registration:
    """A stranger asks about an account (XEP-0077): send an answer to this request."""

    iq: Element


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """Go on with an older session of this account (XEP-0198), as the element asks; another may follow if not."""

    jid: Jid
    element: Element


Output = (
    OpenStream
    | Send
    | StartTls
    | Authenticated
    | Proven
    | Close
    | Lookup
    | Rejected
    | BindRequest
    | ResumeRequest
    | Registration
)
