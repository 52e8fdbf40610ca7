"""The portal's settings: ``[portal]`` in ``moim.toml``."""

from __future__ import annotations

from pydantic import Field, field_validator

from moim.model import domain_name
from moim.settings import Section


class Settings(Section):
    """The web app and its sign-in."""

    http_port: int = Field(default=8080, ge=1, le=65535)
    """Catalogue port of the web app where only this machine reaches it: plain HTTP on loopback."""
    https_port: int = Field(default=443, ge=1, le=65535)
    """Catalogue port of the web app everywhere else: HTTPS."""
    names: list[str] = Field(default=[], max_length=64)
    """Further host names under which browsers reach the web app, besides the nodes' names, domains and addresses."""
    session_hours: float = Field(default=12.0, gt=0, le=24 * 31)
    """Hours that a sign-in of the web app lasts."""
    sessions: int = Field(default=50_000, ge=1)
    """Sign-ins at a time; the oldest ends when there are more."""
    sessions_per_user: int = Field(default=32, ge=1)
    """Sign-ins of one user at a time; the oldest ends when there are more."""
    discoveries_per_minute: int = Field(default=30, ge=1)
    """Discovery runs that one client may ask for in a minute."""
    discovery_seconds: float = Field(default=30.0, gt=0)
    """Seconds after which a discovery run for a browser is given up."""

    @field_validator("names")
    @classmethod
    def _are_names(cls, value: list[str]) -> list[str]:
        return [domain_name(name) for name in value]
