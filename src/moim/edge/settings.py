"""The edge's settings: section ``[edge]`` of ``moim.toml``, read by both nodes."""

from __future__ import annotations

from pydantic import Field, field_validator

from moim.edge.turn import TurnSettings
from moim.model import domain_name
from moim.settings import Section


class TunnelSettings(Section):
    """The SSH tunnel between the inside and the edge."""

    keepalive_s: float = Field(default=5.0, gt=0)
    """Seconds of silence after which a side asks whether the other is there."""
    keepalive_missed: int = Field(default=2, ge=1)
    """Unanswered questions after which the other side counts as gone: 5 s and 2 notice it within 15 s."""
    connect_s: float = Field(default=10.0, gt=0)
    """Seconds for connecting and signing in."""
    retry_least_s: float = Field(default=0.25, gt=0)
    """First pause before connecting again; it doubles, with jitter, up to ``retry_most_s``."""
    retry_most_s: float = Field(default=10.0, gt=0)
    """Longest pause before connecting again."""


class LimitSettings(Section):
    """What the public listeners of the edge take. A client is an IPv4 address or an IPv6 /64."""

    connections: int = Field(default=20_000, ge=1)
    """Connections of one listener in all."""
    connections_per_client: int = Field(default=512, ge=1)
    """Connections of one client to one listener."""
    requests_per_s: float = Field(default=100.0, gt=0)
    """HTTP requests of one client, long-term average."""
    requests_burst: int = Field(default=500, ge=1)
    """HTTP requests of one client at once."""
    body_bytes: int = Field(default=100 * 1024 * 1024, ge=0)
    """Largest body of an HTTP request."""
    handshake_s: float = Field(default=10.0, gt=0)
    """Seconds for the TLS handshake."""
    head_s: float = Field(default=10.0, gt=0)
    """Seconds for the head of an HTTP request once it has begun."""
    keepalive_s: float = Field(default=60.0, gt=0)
    """Seconds an HTTP connection may wait for its next request."""
    body_s: float = Field(default=30.0, gt=0)
    """Seconds without a byte of a request's body, or without room for a response's."""
    upstream_s: float = Field(default=60.0, gt=0)
    """Seconds for the head of the response from inside, and between two pieces of its body."""
    stream_idle_s: float = Field(default=3600.0, gt=0)
    """Seconds without a byte, either way, on a WebSocket or an XMPP connection."""


class MraSettings(Section):
    """Sign-in through the edge: edge configuration and proxied HTTPS (inside node)."""

    session_s: int = Field(default=8 * 3600, ge=60)
    """Lifetime of the session cookie."""
    sessions: int = Field(default=50_000, ge=1)
    """Sessions at a time; the oldest goes when there are more."""
    response_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Largest proxied response."""
    request_bytes: int = Field(default=1024 * 1024, ge=0)
    """Largest body of a proxied request."""


class IceSettings(Section):
    """TURN credentials for meeting participants (inside node)."""

    credential_s: int = Field(default=12 * 3600, ge=60)
    """How long a short-term TURN credential works."""
    rotate_s: int = Field(default=24 * 3600, ge=3600)
    """Age at which the shared secret is replaced; the old one works until its last credential ended."""
    relay_inside: bool = True
    """Whether participants inside also get the relay, as a last resort of their ICE."""


class Settings(Section):
    """The edge."""

    domains: list[str] = Field(default=[], max_length=64)
    """Voice services domains that may sign in through the edge; empty means the site's domains."""
    names: list[str] = Field(default=[], max_length=64)
    """Further host names under which browsers reach the edge, besides ``edge.<domain>``, the domains and addresses."""
    tunnel: TunnelSettings = TunnelSettings()
    """The tunnel."""
    limits: LimitSettings = LimitSettings()
    """Limits of the public listeners."""
    mra: MraSettings = MraSettings()
    """Sign-in through the edge."""
    ice: IceSettings = IceSettings()
    """TURN credentials."""
    turn: TurnSettings = TurnSettings()
    """The TURN server."""

    @field_validator("domains", "names")
    @classmethod
    def _are_names(cls, value: list[str]) -> list[str]:
        return [domain_name(name) for name in value]
