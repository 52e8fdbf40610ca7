"""The domains that a site's chat service answers for, and what counts in each, from the settings alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moim.chat.settings import Settings
from moim.errors import ConfigError, ProtocolError
from moim.proto.xmpp import prepare_domain


@dataclass(frozen=True, slots=True)
class Host:
    """One hosted domain, prepared, with the settings that count in it.

    ``rooms`` and ``uploads`` are the domains of its services, empty where they are off. ``own`` are the keys that it
    does not have from the site.
    """

    domain: str
    settings: Settings
    rooms: str
    uploads: str
    own: frozenset[str] = frozenset()


class Hosts(Mapping[str, Host]):
    """The hosted domains by name, the service domain first. Raises ConfigError for names that cannot be, or clash."""

    def __init__(self, domains: Sequence[str], settings: Settings) -> None:
        self._hosts: dict[str, Host] = {}
        overrides = {_prepared("domains", name): own for name, own in settings.domains.items()}
        for name in domains:
            domain = _prepared("domains", name)
            # What names one place cannot count in every domain.
            update: dict[str, Any] = {"rooms_host": "", "uploads_host": ""} if self._hosts else {}
            own = overrides.pop(domain, None)
            update |= {key: getattr(own, key) for key in own.model_fields_set} if own is not None else {}
            keys = frozenset(own.model_fields_set) if own is not None else frozenset[str]()
            self._hosts[domain] = _host(domain, settings.model_copy(update=update), keys)
        self.primary = next(iter(self._hosts))
        if overrides:
            raise ConfigError(
                f"moim.toml: chat.domains: {next(iter(overrides))} is not a domain of this site",
                hint="name it in hosted_domains first",
            )
        names = [*self, *self.services]
        if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
            raise ConfigError(f"two parts of the chat service have the same domain: {twice}")

    def __getitem__(self, domain: str) -> Host:
        return self._hosts[domain]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hosts)

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def services(self) -> tuple[str, ...]:
        """The domains of the services of all hosted domains."""
        return tuple(name for host in self._hosts.values() for name in (host.rooms, host.uploads) if name)

    def settings(self, address: str) -> Settings:
        """What counts in a domain, or in that of a bare JID. What counts for the person: see ``Policies``."""
        return self._hosts[address.rpartition("@")[2]].settings


def hosts(domains: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """The users' domains, then those of rooms and uploads as far as they are on. Raises ConfigError."""
    found = Hosts(domains, settings)
    return (*found, *found.services)


def _host(domain: str, settings: Settings, own: frozenset[str]) -> Host:
    rooms = component_host("rooms_host", settings.rooms_host or f"rooms.{domain}") if settings.rooms else ""
    uploads = component_host("uploads_host", settings.uploads_host or f"upload.{domain}") if settings.uploads else ""
    return Host(domain, settings, rooms, uploads, own)


def component_host(key: str, text: str, taken: Mapping[str, Host] | None = None) -> str:
    """The domain of a part with one of its own. Raises ConfigError when ``text`` is no domain, or one of people."""
    host = _prepared(key, text)
    if taken is not None and host in taken:
        raise ConfigError(f"chat.{key} is one of the site's own domains", hint="give it a domain of its own")
    return host


def _prepared(key: str, text: str) -> str:
    try:
        return prepare_domain(text)
    except ProtocolError as error:
        raise ConfigError(f"chat.{key} is not a domain: {error.message}") from error
