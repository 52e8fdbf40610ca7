"""The ``[names]`` section of ``moim.toml``: extra records, time to live, limits, forwarders, transfers."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from pydantic import Field, field_validator

from moim.net.resolver import parse_server
from moim.settings import Section, checked_domain

_OWNER = re.compile(r"@|(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,30}|\*", re.ASCII | re.IGNORECASE)


class Record(Section):
    """One record that the site adds to one of its zones."""

    domain: str = ""
    """The domain whose zone it is for; empty for the service domain."""
    name: str
    """Owner, relative to that domain: ``sip``, ``_sip._tcp``, ``*.apps``; ``@`` is the domain itself."""
    type: Literal["A", "AAAA", "CAA", "CNAME", "HTTPS", "MX", "NAPTR", "PTR", "SRV", "SVCB", "TLSA", "TXT"]
    """Record type."""
    value: str = Field(min_length=1, max_length=4096)
    """Record data as in a zone file; names without a final dot are relative to the domain."""
    ttl: int = Field(default=0, ge=0, le=604800)
    """Seconds; 0 takes the section's ``ttl``."""
    view: Literal["inside", "outside", "both"] = "both"
    """Who sees it."""

    @field_validator("domain")
    @classmethod
    def _is_domain(cls, value: str) -> str:
        return checked_domain(value) if value else ""

    @field_validator("name")
    @classmethod
    def _is_owner(cls, value: str) -> str:
        if not _OWNER.fullmatch(value):
            raise ValueError(f"'{value}' is not a name below the domain (write '@' for the domain itself)")
        return value.lower()


class Settings(Section):
    """The built-in name server."""

    enabled: bool = True
    """Whether this site answers DNS itself; off when other name servers carry its records."""
    ttl: int = Field(default=60, ge=0, le=86400)
    """Seconds that resolvers and clients may keep an answer."""
    negative_ttl: int = Field(default=30, ge=0, le=10800)
    """Seconds that they may keep "there is no such record" (RFC 2308)."""
    serial: int = Field(default=0, ge=0, le=0xFFFF_FFFF)
    """Serial number of the zone; 0 takes the time of start, which rises by itself."""
    records: tuple[Record, ...] = Field(default=(), max_length=2000)
    """Records beside those that the site's services need."""
    forwarders: tuple[str, ...] = Field(default=(), max_length=8)
    """Resolvers (``192.0.2.53`` or ``192.0.2.53:5353``) that the inside view asks for foreign names; none: refused."""
    forward_for: tuple[str, ...] = (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
    """Networks whose foreign queries are forwarded; anybody else is refused, so that this is no open resolver."""
    forward_timeout: float = Field(default=3.0, gt=0, le=30)
    """Seconds that each forwarder gets to answer."""
    allow_transfer: tuple[str, ...] = ()
    """Networks that may copy the zone (AXFR, over TCP only)."""
    udp_payload: int = Field(default=1232, ge=512, le=4096)
    """Largest UDP answer in bytes that a client may ask for with EDNS; longer ones go over TCP."""
    rate: int = Field(default=100, ge=1, le=1_000_000)
    """UDP answers per second to one source network (/24, or /56 for IPv6); beyond it every second one is cut to a
    truncated header, which real clients follow over TCP, and the others are dropped."""
    rate_burst: int = Field(default=400, ge=1, le=1_000_000)
    """UDP answers to one source network that may come at once."""
    rate_exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks without that limit. Loopback addresses cannot be forged from another machine."""
    tcp_connections: int = Field(default=256, ge=1, le=10_000)
    """TCP connections at a time."""
    tcp_per_source: int = Field(default=32, ge=1, le=10_000)
    """TCP connections of one address at a time."""
    tcp_queries: int = Field(default=1000, ge=1, le=1_000_000)
    """Queries on one TCP connection before it is closed."""
    tcp_idle: float = Field(default=10.0, gt=0, le=300)
    """Seconds that a TCP connection may be silent, and that a message or an answer may take."""

    @field_validator("forward_for", "allow_transfer", "rate_exempt")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @field_validator("forwarders")
    @classmethod
    def _are_resolvers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_server(text)
        return value
