"""Settings of meetings: ``[meetings]`` in ``moim.toml``."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator

from moim.settings import Section


class Settings(Section):
    """Meeting spaces and their media."""

    media_port: int = Field(default=16384, ge=0, le=65535)
    """Catalogue port of audio and video (UDP) on the inside node; the port profile applies."""
    media_addresses: tuple[str, ...] = ()
    """IP addresses announced for media besides the inside node's own, such as a public one in front of a static NAT."""
    max_participants: int = Field(default=500, ge=2, le=10_000)
    """People in all meetings of the node together."""
    max_meeting: int = Field(default=50, ge=2, le=64)
    """People in one meeting."""
    max_connections: int = Field(default=2_000, ge=10, le=50_000)
    """Signalling connections of the node, those included that have not joined yet."""
    max_spaces_per_user: int = Field(default=100, ge=1, le=10_000)
    """Spaces that one person may own."""
    join_timeout_s: float = Field(default=10, gt=0, le=60)
    """How long a connection may take to say which meeting it wants to join."""
    media_timeout_s: float = Field(default=30, gt=1, le=300)
    """How long a participant's audio and video may take to connect."""
    lost_timeout_s: float = Field(default=10, gt=1, le=300)
    """How long a participant's media may be lost before they are taken out of the meeting."""
    messages_per_second: float = Field(default=20, gt=0, le=1_000)
    """Signalling messages that a participant may send; five times as many in a burst."""
    max_video_bitrate: int = Field(default=2_500_000, ge=100_000, le=20_000_000)
    """What one person's video may take, bit/s."""
    min_video_bitrate: int = Field(default=200_000, ge=30_000, le=5_000_000)
    """With less than this for each, bit/s, a participant is sent fewer videos rather than worse ones."""
    passcode_digits: int = Field(default=6, ge=4, le=12)
    """Length of the passcodes of new spaces."""

    @field_validator("media_addresses")
    @classmethod
    def _are_ips(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_address(value)) for value in values)
