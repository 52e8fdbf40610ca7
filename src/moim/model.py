"""The nouns that rooms share, and the facts that travel on the bus. Frozen values only: no behaviour, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from moim.errors import UsageError

NodeName = Literal["inside", "edge"]
ServiceState = Literal["starting", "running", "degraded", "stopped", "failed"]

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
# Characters that RFC 7622 section 3.3.1 forbids in a localpart, besides spaces and control characters.
_LOCAL_FORBIDDEN = frozenset("\"&'/:<>@")


def domain_name(text: str) -> str:
    """Canonical form of a DNS domain name: lower case, IDNA A-labels, no trailing dot.

    Raises UsageError when it cannot be one (RFC 1035 section 2.3.4 sizes).
    """
    folded = text.strip().rstrip(".").lower()
    try:
        ascii_form = folded.encode("idna").decode("ascii") if not folded.isascii() else folded
    except UnicodeError:
        ascii_form = ""
    labels = ascii_form.split(".")
    if not ascii_form or len(ascii_form) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UsageError(f"'{text}' is not a domain name", hint="write it like example.com")
    return ascii_form


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A user's address, ``local@domain``: what a person types, an e-mail address and a bare JID at once."""

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads ``local@domain``; case folds. Raises UsageError with what is wrong."""
        local, at, domain = text.strip().rpartition("@")
        if not at or not local:
            raise UsageError(f"'{text.strip()}' is not an address", hint="write it like alice@example.com")
        folded = local.lower()
        bad = [c for c in folded if c in _LOCAL_FORBIDDEN or c.isspace() or ord(c) < 0x20 or ord(c) == 0x7F]
        if bad or len(folded.encode()) > 1023:
            raise UsageError(f"'{text.strip()}' has a name part that cannot be used", hint="use letters, digits, . - _")
        return cls(folded, domain_name(domain))

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One listener or connection of a node, as ``moim status`` shows it."""

    name: str
    node: str
    transport: str
    address: str
    port: int
    state: ServiceState
    detail: str = ""


# Facts on the bus: what has happened and is committed. Named in the past tense.


@dataclass(frozen=True, slots=True)
class UserChanged:
    """A user was added, or their profile or password changed."""

    address: Address
    password_changed: bool = False


@dataclass(frozen=True, slots=True)
class UserRemoved:
    """A user is gone: sessions end, rosters drop them."""

    address: Address


@dataclass(frozen=True, slots=True)
class CertificateChanged:
    """The certificate for a purpose (``tomcat``, ``cup-xmpp``, …) was replaced; listeners reload it."""

    purpose: str


@dataclass(frozen=True, slots=True)
class TunnelChanged:
    """The tunnel between the inside and an edge node came up or went down."""

    edge: str
    up: bool
    detail: str = ""
