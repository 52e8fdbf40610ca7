"""TURN on the edge: settings, the engine of ``moim._native`` behind a typed face, and its refusals in the log.

Credentials and the peers that meetings need come from the inside; static users and further peer rules from
``moim.toml`` are added to them. Until the inside has spoken, only the static ones work.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from moim._native import TurnServer
from moim.errors import ConfigError
from moim.model import ServiceState, ServiceStatus
from moim.net.pump import Pump
from moim.settings import Section, Site

if TYPE_CHECKING:
    from moim._native import _TurnEvent

PORT = 3478
_LOWEST_PORT = 1024
_DETAILS = 4096
_log = logging.getLogger("moim.edge.turn")


class TurnSettings(Section):
    """The TURN server of the edge."""

    enabled: bool = True
    """Whether the edge relays media at all."""
    relay_ports: tuple[int, int] = (24000, 29999)
    """First and last UDP port of relays, 1024 the lowest; the port profile does not move them."""
    old_channel_range: bool = False
    """Whether channel numbers up to 0x7FFF are taken, as RFC 5766 had them; RFC 8656 ends at 0x4FFF."""
    users: dict[str, str] = Field(default={}, max_length=256)
    """Long-term users: name and password, or ``file:`` and a file in the site's ``edge/`` folder that holds
    the password and is readable by its owner alone. Meetings need no users: they get short-term credentials."""
    allow_peers: list[str] = Field(default=[], max_length=256)
    """Peers that may be relayed to although they are private: network, address, or address:port. The edge's own
    addresses must be named one by one, loopback apart; ``0.0.0.0/0`` opens nothing that is closed."""
    deny_peers: list[str] = Field(default=[], max_length=256)
    """Peers that may not be relayed to although they are public. The most specific rule decides."""
    max_allocations: int = Field(default=4096, ge=1)
    """Allocations at a time."""
    user_quota: int = Field(default=64, ge=1)
    """Allocations of one user name at a time."""
    unauthenticated_per_s: int = Field(default=50, ge=1)
    """Requests without valid credentials that one address may send per second, after a burst of ten times as many."""

    @field_validator("relay_ports")
    @classmethod
    def _is_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not _LOWEST_PORT <= value[0] <= value[1] <= 65535:
            raise ValueError(f"{value[0]}–{value[1]} is not a range of ports between {_LOWEST_PORT} and 65535")
        return value

    @field_validator("allow_peers", "deny_peers")
    @classmethod
    def _are_peers(cls, value: list[str]) -> list[str]:
        for text in value:
            if not _is_peer(text):
                raise ValueError(f"'{text}' is not a network, an address or an address with a port")
        return value


class Turn:
    """The TURN service of the edge node."""

    def __init__(self, *, site: Site, settings: TurnSettings) -> None:
        node = site.settings.nodes.edge
        self._settings = settings
        self._folder = site.node_dir("edge")
        self._realm = site.domain
        self._address = node.address
        self._public = node.public_address or None
        self._port = site.settings.ports.bind(PORT)
        self._server: TurnServer | None = None
        self._pump: Pump[_TurnEvent] | None = None
        self._static: dict[str, str] = {}
        self._failure = ""

    async def start(self) -> None:
        """Binds and serves. Raises Unavailable without the port, ConfigError for an unusable password file."""
        settings = self._settings
        if not settings.enabled:
            return
        self._static = {name: self._password(name, given) for name, given in settings.users.items()}
        server = TurnServer(
            self._realm,
            old_channel_range=settings.old_channel_range,
            max_allocations=settings.max_allocations,
            user_quota=settings.user_quota,
            unauthenticated_rate=settings.unauthenticated_per_s,
            unauthenticated_burst=settings.unauthenticated_per_s * 10,
        )
        server.set_peer_rules(settings.allow_peers, settings.deny_peers)
        server.set_users(self._keys({}))
        self._port = server.listen(
            self._address,
            self._port,
            relay_address=self._address,
            external_address=self._public,
            relay_ports=settings.relay_ports,
        )
        self._server = server
        self._pump = Pump(server, self._told)
        self._pump.start()

    async def stop(self) -> None:
        """Ends every allocation and closes every socket."""
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
        if self._server is not None:
            self._server.stop()
            self._server = None

    def apply(
        self, *, secrets: Sequence[str], users: Mapping[str, str], allow_peers: Sequence[tuple[str, int]]
    ) -> None:
        """Takes over what the inside wants: shared secrets, long-term users (name, password), peers as (IP address, UDP
        port). Running allocations of users who are gone end; those made with an older secret go on while refreshed.
        Raises UsageError for what cannot be one of these."""
        if self._server is None:
            return
        peers = [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in allow_peers]
        self._server.set_peer_rules([*self._settings.allow_peers, *peers], self._settings.deny_peers)
        self._server.set_users(self._keys(users))
        self._server.set_secrets([secret.encode() for secret in secrets])

    def relays(self) -> list[dict[str, Any]]:
        """The allocations now, a row each: client, relays, user, permissions and channels with their traffic (W6).

        ``permission_count`` and ``channel_count`` are complete; of the lists, ``_DETAILS`` entries in all are kept,
        so that no user can make the table longer than the control channel takes.
        """
        rows = self._server.allocations() if self._server is not None else []
        left = _DETAILS
        for row in rows:
            for name in ("permission", "channel"):
                entries = row[f"{name}s"]
                row[f"{name}_count"] = len(entries)
                row[f"{name}s"] = entries[:left]
                left -= len(row[f"{name}s"])
        return rows

    def health(self) -> list[ServiceStatus]:
        """The listener; nothing when TURN is switched off."""
        if not self._settings.enabled:
            return []
        state: ServiceState = "stopped"
        detail = ""
        if self._failure:
            state, detail = "failed", self._failure
        elif self._server is not None:
            state, detail = "running", f"{self._server.stats()['allocations']} relays"
        return [ServiceStatus("turn", "edge", "udp", self._address, self._port, state, detail)]

    def _keys(self, users: Mapping[str, str]) -> dict[str, tuple[bytes, bytes]]:
        merged = {**self._static, **users}
        return {name: long_term_keys(name, self._realm, password) for name, password in merged.items()}

    def _password(self, name: str, given: str) -> str:
        if not given.startswith("file:"):
            return given
        path = self._folder / given.removeprefix("file:")
        try:
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others than its owner", hint=f"chmod 600 {path}")
            password = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the password of TURN user '{name}' cannot be read from {path}: {error}") from error
        if not password:
            raise ConfigError(f"{path} holds no password for TURN user '{name}'")
        return password

    def _told(self, batch: Sequence[_TurnEvent]) -> None:
        for event in batch:
            match event:
                case ("refused", client, code, reason, times):
                    _log.warning("refused %s: %d %s%s", client, code, reason, f", {times} times" if times > 1 else "")
                case ("suppressed", times):
                    _log.warning("%d more refusals in that second", times)
                case ("failed", reason):
                    self._failure = reason
                    _log.error("a thread of the relay ended: %s", reason)
                case ("allocated", client, user, relays, _):
                    _log.info("%s (%s) got the relay %s", client, user, ", ".join(relays))
                case ("closed", client, user, relays, reason, sent, received):
                    _log.info(
                        "the relay %s of %s (%s) ended: %s; %d packets out, %d in",
                        ", ".join(relays), client, user, reason, sent, received,
                    )  # fmt: skip


def long_term_keys(user: str, realm: str, password: str) -> tuple[bytes, bytes]:
    """MD5 (16 bytes) and SHA-256 (32 bytes) of ``user:realm:password`` (RFC 8489 sections 9.2.2 and 18.5.1)."""
    text = ":".join((_opaque(user), _opaque(realm), _opaque(password))).encode()
    return hashlib.md5(text, usedforsecurity=False).digest(), hashlib.sha256(text).digest()


def rest_credentials(secret: bytes, user: str, lifetime_s: int, now: float) -> tuple[str, str]:
    """User name and password for ``lifetime_s`` seconds from ``now`` (seconds since 1970), vouched for by a secret.

    ``<end>:<user>`` and base64(HMAC-SHA1(secret, user name)), as draft-uberti-behave-turn-rest-00 has them.
    """
    name = f"{int(now) + lifetime_s}:{user}"
    return name, base64.b64encode(hmac.digest(secret, name.encode(), "sha1")).decode()


def _opaque(text: str) -> str:
    """The OpaqueString profile (RFC 8265 section 4.2): every kind of space is a space, composed characters."""
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in text)
    return unicodedata.normalize("NFC", spaced)


def _is_peer(text: str) -> bool:
    """``network/bits``, ``address``, ``address:port`` or ``[address]:port``."""
    address, colon, port = text.rpartition(":")
    bracketed = address.startswith("[") and address.endswith("]")
    if colon and (bracketed or ":" not in address):
        inner = address[1:-1] if bracketed else address
        try:
            version = ipaddress.ip_address(inner).version
        except ValueError:
            return False
        return (version == 6) == bracketed and port.isascii() and port.isdecimal() and 0 < int(port) <= 65535
    bits = text.partition("/")[2]
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "%" not in text and ("/" not in text or bits.isdecimal())
