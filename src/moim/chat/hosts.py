"""The domains that a site's chat service answers for, from the settings alone: for name servers and certificates."""

from __future__ import annotations

from moim.chat.settings import Settings
from moim.errors import ConfigError, ProtocolError
from moim.proto.xmpp import prepare_domain


def hosts(domain: str, settings: Settings) -> tuple[str, ...]:
    """The users' domain first, then those of rooms and uploads as far as they are on. Raises ConfigError."""
    found = [domain]
    if settings.rooms:
        found.append(rooms_host(domain, settings))
    if settings.uploads:
        found.append(uploads_host(domain, settings))
    return tuple(found)


def rooms_host(domain: str, settings: Settings) -> str:
    """Where group chat lives. Raises ConfigError."""
    return component_host("rooms_host", settings.rooms_host or f"rooms.{domain}", domain)


def uploads_host(domain: str, settings: Settings) -> str:
    """Who is asked for a place to upload a file to. Raises ConfigError."""
    return component_host("uploads_host", settings.uploads_host or f"upload.{domain}", domain)


def component_host(key: str, text: str, domain: str) -> str:
    """The domain of a part with one of its own. Raises ConfigError when ``text`` is no domain, or the site's own."""
    try:
        host = prepare_domain(text)
    except ProtocolError as error:
        raise ConfigError(f"chat.{key} is not a domain: {error.message}") from error
    if host == domain:
        raise ConfigError(f"chat.{key} is the site's own domain", hint="give it a domain of its own")
    return host
