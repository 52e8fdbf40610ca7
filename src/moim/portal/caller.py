"""Who asks, and under which name they reached us: read once per request, trusted only as far as the way it came.

A request is from outside when the listener that the edge's tunnel leads to says so; only then is X-Forwarded-For
believed. The Host header must be one of ours, so that a page of another site cannot reach the API by DNS rebinding.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import HTTPConnection

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Caller:
    """``authority`` is host and port as the browser wrote them; ``source`` the client's IP address."""

    authority: str
    source: str
    outside: bool
    secure: bool

    @property
    def websocket_origin(self) -> str:
        """The origin of WebSockets on the same host and port."""
        return f"{'wss' if self.secure else 'ws'}://{self.authority}"


class Hosts:
    """The host names that the portal answers to: ``names``, ``localhost``, and any IP address.

    An address needs no check: it cannot be made to point elsewhere, as a name of another site can.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names) | {"localhost"}

    def serves(self, authority: str) -> bool:
        """Whether a Host header names us."""
        match = _HOST.fullmatch(authority)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        if name in self._names:
            return True
        try:
            # Only an IPv6 address stands in brackets, and never without (RFC 3986 section 3.2.2).
            ipaddress.IPv6Address(name[1:-1]) if name.startswith("[") else ipaddress.IPv4Address(name)
        except ValueError:
            return False
        return True


def caller_of(connection: HTTPConnection, *, secure: bool) -> Caller:
    """The caller of a request. ``secure`` is whether our own listener speaks TLS; the edge always does."""
    outside = connection.scope.get("state", {}).get("outside") is True
    source = connection.client.host if connection.client else ""
    if outside:
        forwarded = connection.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        source = _address(forwarded) or source
    return Caller(connection.headers.get("host", ""), source, outside, secure or outside)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
