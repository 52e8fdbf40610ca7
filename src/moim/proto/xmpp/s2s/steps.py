"""What the two machines of a server-to-server stream ask their driver to do, and the rules that they go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moim.proto.xmpp import steps
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.steps import OpenStream, Send, StartTls

Use = Literal["off", "optional", "required"]
Proof = Literal["pkix", "dane", "posh"]
How = Literal["external", "certificate", "dialback"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a stream with one remote domain has to fulfil.

    ``tls``: never used, used where offered, or nothing goes without it. ``certificates``: never looked at, used where
    right, or nothing goes without a right one. ``dialback``: whether a key that the other's DNS vouches for is enough.
    ``refusal`` is a sentence when nothing at all is exchanged with that domain.
    """

    tls: Use = "required"
    certificates: Use = "optional"
    dialback: bool = True
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Restart:
    """A new stream begins on the same connection; ``success`` (a server's) is sent before it."""

    success: Element | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Say by ``judged`` whether the peer's certificate proves that it is ``domain``."""

    domain: str


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask the authoritative server of ``remote`` about a key; answer by ``verified``."""

    local: str
    remote: str
    stream_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Count:
    """Send ``<enable/>`` and count what goes out from there on (XEP-0198)."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Stanzas may come in from ``remote`` to ``local`` on this stream; with ``both`` they may go out on it, too.

    It comes before the word that tells the peer, whose stanzas may follow at once; what goes out waits for that word.
    """

    local: str
    remote: str
    how: How
    both: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """Stanzas from ``local`` to ``remote`` may go out; with ``both`` the other way, too."""

    local: str
    remote: str
    how: How
    both: bool = False


@dataclass(frozen=True, slots=True)
class Verified:
    """The authoritative server's word about a key: ``valid``, ``invalid``, or the condition of an error."""

    local: str
    remote: str
    stream_id: str
    outcome: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The peer was refused something, or refused us; for the log and the status. The stream goes on."""

    remote: str
    reason: str


@dataclass(frozen=True, slots=True)
class Close(steps.Close):
    """``condition`` is the protocol's word. ``final``: another address of the same domain would say the same."""

    condition: str = ""
    final: bool = False


Step = OpenStream | Send | StartTls | Restart | Judge | Verify | Count | Paired | Ready | Verified | Refused | Close
