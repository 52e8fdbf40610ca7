"""TURN on the edge: settings, the engine of ``moim._native`` behind a typed face, and its refusals in the log.

Credentials and the peers that meetings need come from the inside; static users and further peer rules from
``moim.toml`` are added to them. Until the inside has spoken, only the static ones work.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from moim._native import TurnServer
from moim.model import ServiceState, ServiceStatus
from moim.net.pump import Pump
from moim.settings import Section, Site

if TYPE_CHECKING:
    from moim._native import _TurnEvent

PORT = 3478
_log = logging.getLogger("moim.edge.turn")


class TurnSettings(Section):
    """The TURN server of the edge."""

    enabled: bool = True
    """Whether the edge relays media at all."""
    relay_ports: tuple[int, int] = (24000, 29999)
    """First and last UDP port of relays; the port profile does not move them."""
    old_channel_range: bool = False
    """Whether channel numbers up to 0x7FFF are taken, as RFC 5766 had them; RFC 8656 ends at 0x4FFF."""
    users: dict[str, str] = Field(default={}, max_length=256)
    """Long-term users: name and password. Meetings need none: they get short-term credentials."""
    allow_peers: list[str] = Field(default=[], max_length=256)
    """Peers that may be relayed to although they are private: network, address, or address:port."""
    deny_peers: list[str] = Field(default=[], max_length=256)
    """Peers that may not be relayed to although they are public."""
    max_allocations: int = Field(default=4096, ge=1)
    """Allocations at a time."""
    user_quota: int = Field(default=64, ge=1)
    """Allocations of one user name at a time."""
    unauthenticated_per_s: int = Field(default=50, ge=1)
    """Requests without valid credentials that one address may send per second, after a burst of ten times as many."""


class Turn:
    """The TURN service of the edge node."""

    def __init__(self, *, site: Site, settings: TurnSettings) -> None:
        node = site.settings.nodes.edge
        self._settings = settings
        self._realm = site.domain
        self._address = node.address
        self._public = node.public_address or None
        self._port = site.settings.ports.bind(PORT)
        self._server: TurnServer | None = None
        self._pump: Pump[_TurnEvent] | None = None
        self._failure = ""

    async def start(self) -> None:
        """Binds and serves. Raises Unavailable without the port, UsageError for rules that cannot be read."""
        settings = self._settings
        if not settings.enabled:
            return
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
        """Takes over what the inside wants: shared secrets, long-term users, peers as (IP address, UDP port)."""
        if self._server is None:
            return
        peers = [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in allow_peers]
        self._server.set_peer_rules([*self._settings.allow_peers, *peers], self._settings.deny_peers)
        self._server.set_users(self._keys(users))
        self._server.set_secrets([secret.encode() for secret in secrets])

    def relays(self) -> list[dict[str, Any]]:
        """The allocations now, a row each: client, relays, user, permissions and channels with their traffic (W6)."""
        return self._server.allocations() if self._server is not None else []

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
        return {
            name: long_term_keys(name, self._realm, password)
            for name, password in {**self._settings.users, **users}.items()
        }

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
    """MD5 and SHA-256 of ``user:realm:password`` (RFC 8489 sections 9.2.2 and 18.5.1)."""
    text = f"{user}:{realm}:{password}".encode()
    return hashlib.md5(text, usedforsecurity=False).digest(), hashlib.sha256(text).digest()


def rest_credentials(secret: bytes, user: str, lifetime_s: int, now: float) -> tuple[str, str]:
    """A time-limited user name and password from a shared secret: ``<end>:<user>``, base64(HMAC-SHA1)."""
    name = f"{int(now) + lifetime_s}:{user}"
    return name, base64.b64encode(hmac.digest(secret, name.encode(), "sha1")).decode()
