"""The ``[federation]`` section of ``moim.toml``: who may be talked to, what a stream has to fulfil, and its limits."""

from __future__ import annotations

import ipaddress
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from moim.model import domain_name
from moim.net.resolver import parse_server
from moim.proto.xmpp.s2s import Use
from moim.settings import Section


class Settings(Section):
    """Messages and presence to and from other XMPP domains.

    What an administrator sets for a single domain while the site runs (``moim federation policy``) wins over this.
    """

    enabled: bool = True
    """Whether anything is exchanged with other domains at all."""
    mode: Literal["open", "allow-list"] = "open"
    """``open``: with every domain that is not in ``deny``; ``allow-list``: with those in ``allow`` alone."""
    allow: tuple[str, ...] = Field(default=(), max_length=10_000)
    """Domains of the allow-list; ``*.example.com`` stands for everything below example.com."""
    deny: tuple[str, ...] = Field(default=(), max_length=10_000)
    """Domains that nothing is exchanged with, in either mode."""
    tls: Use = "required"
    """Encryption with other servers: ``off``, ``optional`` (used where offered) or ``required``."""
    certificates: Use = "optional"
    """Certificates of other servers: ``off`` (not looked at), ``optional`` (used where right, else dialback), or
    ``required`` (no exchange without a right one)."""
    dialback: bool = True
    """Whether a server without a right certificate may prove its domain by dialback (XEP-0220)."""
    server_auth_only: bool = True
    """Whether a certificate for servers alone (``serverAuth``) is good enough for a server that connects here; public
    authorities issue no other ones any more."""
    system_authorities: bool = True
    """Whether certificates of the authorities that this machine's system trusts are right."""
    trusted: tuple[str, ...] = Field(default=(), max_length=100)
    """PEM files with further authorities, or with the self-signed certificates of single servers."""
    dnssec: bool = False
    """Whether ``resolvers`` check DNSSEC and cannot be tampered with on the way: then TLSA records (DANE) count."""
    posh: bool = True
    """Whether a certificate may be vouched for by the domain's web server (POSH, RFC 7711). It is asked only where
    no right certificate would end the stream."""
    resolvers: tuple[str, ...] = Field(default=(), max_length=8)
    """Name servers (``192.0.2.53`` or ``192.0.2.53:5353``) to ask for other domains; none: those of the system."""
    target_networks: tuple[str, ...] = Field(default=(), max_length=100)
    """Networks that other domains' SRV and address records may lead to although they are not public: ``10.0.0.0/8``.
    Any other such record is refused, so that nobody's DNS makes this server connect to machines of its own site."""
    advertised_host: str = ""
    """The name that other servers find this site under, in front of NAT or a firewall; empty: the edge's own."""
    advertised_port: int = Field(default=0, ge=0, le=65535)
    """The port that reaches the edge's ``edge-xmpp-server`` from outside; 0: the same one."""
    connect_seconds: float = Field(default=10.0, gt=0, le=120)
    """Seconds for one attempt to connect to one address."""
    handshake_seconds: float = Field(default=30.0, gt=0, le=300)
    """Seconds from a connection to an authenticated stream."""
    idle_seconds: float = Field(default=600.0, ge=10, le=86400)
    """Seconds without a stanza after which a stream is closed."""
    ping_seconds: float = Field(default=60.0, ge=5, le=3600)
    """Seconds of silence after which a peer is asked whether it is there; as many again without a word end the
    stream."""
    queue_stanzas: int = Field(default=1000, ge=1, le=100_000)
    """Stanzas that may wait for one domain while a stream is being opened."""
    queue_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """Bytes that may wait for one domain."""
    queue_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that a stanza may wait; then its sender gets it back."""
    queue_total_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Bytes that may wait for all domains together."""
    retry_first_seconds: float = Field(default=5.0, gt=0, le=3600)
    """Seconds after a failed connection in which the domain is not tried again; they double up to the most."""
    retry_most_seconds: float = Field(default=300.0, gt=0, le=86400)
    """Longest pause before a domain is tried again."""
    max_streams: int = Field(default=4000, ge=1, le=200_000)
    """Streams with other servers at a time."""
    max_streams_per_address: int = Field(default=100, ge=1, le=100_000)
    """Streams that one address may have opened at a time."""
    verifications_per_minute: int = Field(default=60, ge=1, le=100_000)
    """Domains that one address may have this server call back in a minute, long-term average."""

    @field_validator("allow", "deny")
    @classmethod
    def _are_domains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(pattern(text) for text in value)

    @field_validator("resolvers")
    @classmethod
    def _are_resolvers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_server(text)
        return value

    @field_validator("target_networks")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @field_validator("advertised_host")
    @classmethod
    def _is_name(cls, value: str) -> str:
        return domain_name(value) if value else ""

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if (problem := impossible(self.tls, self.certificates, self.dialback)) is not None:
            raise ValueError(problem)
        return self


def pattern(text: str) -> str:
    """A domain, or ``*.`` and a domain, in canonical form. Raises UsageError."""
    return f"*.{domain_name(text[2:])}" if text.startswith("*.") else domain_name(text)


def impossible(tls: Use, certificates: Use, dialback: bool) -> str | None:
    """Why these three cannot be fulfilled together; None when they can."""
    if certificates == "off" and not dialback:
        return "with certificates off and no dialback nobody could prove a domain"
    if certificates == "required" and tls == "off":
        return "certificates are shown in TLS: they cannot be required with tls off"
    if not dialback and tls == "off":
        return "without TLS there are no certificates, so dialback is needed"
    return None
