"""The domains that a site's chat service answers for, from the settings alone: for name servers and certificates."""

from __future__ import annotations

from moim.chat.parts import component_host
from moim.chat.settings import Settings


def hosts(domain: str, settings: Settings) -> tuple[str, ...]:
    """The users' domain first, then those of rooms and uploads as far as they are on. Raises ConfigError."""
    found = [domain]
    if settings.rooms:
        found.append(component_host("rooms_host", settings.rooms_host or f"rooms.{domain}", domain))
    if settings.uploads:
        found.append(component_host("uploads_host", settings.uploads_host or f"upload.{domain}", domain))
    return tuple(found)
