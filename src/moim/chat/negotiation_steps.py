"""What the negotiation of a client's connection asks of its driver, besides what every stream does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moim.chat import sasl2
from moim.proto.xmpp import Element, Jid, sasl
from moim.proto.xmpp.steps import Close, OpenStream, Send, StartTls


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client is ``jid``: send ``success`` and expect a new stream.

    One that is opened as the last was is answered with ``header`` and ``features``; any other has to be told of.
    """

    jid: Jid
    success: Element
    mechanism: str
    header: Mapping[str, str]
    features: Element


@dataclass(frozen=True, slots=True)
class Proven:
    """The client is ``jid``, in the way of XEP-0388: do what ``request`` asks, then send what ``finish`` gives."""

    jid: Jid
    mechanism: str
    request: sasl2.Request


@dataclass(frozen=True, slots=True)
class Lookup:
    """Find what is needed to go on; answer by ``verifier``, ``password_checked``, ``token_checked`` or ``refuse``.

    ``request`` is what the client asked for in the way of XEP-0388; None in the older way.
    """

    need: sasl.Need
    request: sasl2.Request | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """An attempt to authenticate failed."""

    local: str
    mechanism: str
    reason: str


@dataclass(frozen=True, slots=True)
class BindRequest:
    """Bind this resource; answer by ``bind_result`` or ``bind_refused``."""

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
