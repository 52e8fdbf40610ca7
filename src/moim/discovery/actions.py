"""What the engine asks its driver to do, and what the driver may answer. Values only.

Every request has ``timeout`` in seconds: the engine itself ends a request that takes longer, so a driver needs no
clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Reason = Literal[
    "timeout",  # no answer in time
    "refused",  # nothing listens there
    "unreachable",  # no way to the address
    "closed",  # the other side hung up in the middle
    "tls-name",  # the certificate is for another name
    "tls-expired",  # the certificate is not valid now
    "tls-untrusted",  # nobody that we trust vouches for the certificate
    "tls-failed",  # no common version or cipher, or no TLS at all
    "rubbish",  # bytes that break the protocol, or too many of them
    "dns-refused",  # the name server does not answer for this name
    "dns-failed",  # the name server failed
    "credentials",  # the password was not accepted
    "login-refused",  # signed in is refused for another reason
    "unencrypted",  # the server offers no encryption
]


# -- requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuerySrv:
    """Ask the name server for the SRV records of ``name``. Answer: Records, Nothing or Failed."""

    name: str
    timeout: float = 9.0


@dataclass(frozen=True, slots=True)
class QueryAddress:
    """Ask the same name server for the addresses of ``host``. Answer: Addresses, Nothing or Failed."""

    host: str
    timeout: float = 9.0


@dataclass(frozen=True, slots=True)
class HttpGet:
    """GET ``scheme://host:port/path`` by connecting to one of ``addresses``.

    The certificate is checked for ``name``, or for ``host`` when that is empty. No redirects are followed.
    Answer: Response or Failed.
    """

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    name: str = ""
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class XmppLogin:
    """Sign in to an XMPP server; the certificate is checked for the domain of ``address``. Answer: LoggedIn or Failed.

    ``direct`` means TLS from the first byte, else STARTTLS.
    """

    host: str
    port: int
    addresses: tuple[str, ...]
    direct: bool
    address: str
    username: str
    password: str = field(repr=False)
    timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class AskPassword:
    """Ask the person. ``address`` is empty when only the domain is known. ``again``: the last password was wrong.

    Answer: Credentials, or NoCredentials when there is nobody to ask. It may take any time.
    """

    address: str
    domain: str
    again: bool = False
    timeout: float = float("inf")


Request = QuerySrv | QueryAddress | HttpGet | XmppLogin | AskPassword


# -- answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV record (RFC 2782). ``target`` without final dot; empty: "decidedly not available at this domain"."""

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Records:
    """SRV records; ``ttl`` in seconds; ``server`` is the name server that answered."""

    records: tuple[Srv, ...]
    ttl: int
    server: str


@dataclass(frozen=True, slots=True)
class Addresses:
    """IP addresses of a host in the order to try."""

    addresses: tuple[str, ...]
    ttl: int
    server: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is no such record. ``exists``: the name has other records; else there is no such name (NXDOMAIN)."""

    exists: bool
    ttl: int
    server: str


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP answer. ``headers`` keys are lower case; a header that came several times has several values."""

    status: int
    headers: Mapping[str, tuple[str, ...]]
    body: bytes = field(repr=False)
    address: str = ""

    def header(self, name: str) -> str:
        """The first value of a header, or empty."""
        return self.headers.get(name, ("",))[0]


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Signed in over XMPP: the full JID, and how the password was proven."""

    jid: str
    mechanism: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """``user`` is an address or the part before ``@``; empty when the request named it."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """Nobody answered."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The request had no answer. ``detail`` adds what is known (certificate names, a server's words)."""

    reason: Reason
    detail: str = ""
    server: str = ""


Result = Records | Addresses | Nothing | Response | LoggedIn | Credentials | NoCredentials | Failed
