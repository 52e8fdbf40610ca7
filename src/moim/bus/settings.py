"""Settings of the bus: ``[bus]`` in ``moim.toml``."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from moim.errors import ConfigError
from moim.settings import Section


class Settings(Section):
    """How nodes reach each other. One inside node needs no bus; several share a NATS server or a cluster of them."""

    url: str = ""
    """``tls://nats.example.com:4222``, several separated by commas; empty for none. ``nats://`` has no TLS and is
    for loopback alone, unless ``plain`` allows it."""
    plain: bool = False
    """Allow ``nats://`` to other machines: whoever can listen on the network then reads and forges everything."""
    user: str = ""
    """The user that nodes sign in to NATS as, with ``password_file``."""
    password_file: str = ""
    """A file (mode 0600) with that user's password; a relative path starts at the site's directory."""
    token_file: str = ""
    """A file (mode 0600) with a token, instead of user and password."""
    ca_file: str = ""
    """Whom to trust for the NATS server's certificate, PEM; empty for the system's authorities."""
    certificate_file: str = ""
    """This node's own certificate for NATS, PEM, where the server asks for one."""
    key_file: str = ""
    """The key for it."""

    @property
    def urls(self) -> list[str]:
        """Every server."""
        return [part.strip() for part in self.url.split(",") if part.strip()]

    @field_validator("url")
    @classmethod
    def _are_urls(cls, value: str) -> str:
        for part in filter(None, (part.strip() for part in value.split(","))):
            split = urlsplit(part)
            if split.scheme not in ("nats", "tls") or not split.hostname:
                raise ValueError(f"'{part}' is not like tls://nats.example.com:4222")
            if split.username or split.password:
                raise ValueError("a password does not belong here: use bus.user and bus.password_file")
        return value

    @model_validator(mode="after")
    def _is_safe(self) -> Settings:
        for url in self.urls:
            split = urlsplit(url)
            if split.scheme == "nats" and not self.plain and not _loopback(split.hostname or ""):
                raise ValueError(f"'{url}' is without TLS and not on this machine: write tls://, or set bus.plain")
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("bus.certificate_file and bus.key_file go together")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("bus.user and bus.password_file go together")
        return self

    def tls(self, root: Path) -> ssl.SSLContext | None:
        """The context for ``tls://``; None where no server has it. Raises ConfigError for the files."""
        if not any(url.startswith("tls:") for url in self.urls):
            return None
        try:
            context = ssl.create_default_context(cafile=str(root / self.ca_file) if self.ca_file else None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certificate_file:
                context.load_cert_chain(root / self.certificate_file, root / self.key_file)
        except OSError as error:
            raise ConfigError(f"the files for the bus's TLS cannot be used: {error}") from error
        return context


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
