"""ICE servers for meeting participants: the edge's TURN with short-term credentials from a shared secret that rotates.

The secret is made inside, kept in ``SITE/inside/edge/turn-secrets.json`` (0600) and pushed to the edge. A credential is
``<end in seconds since 1970>:<name>`` with base64(HMAC-SHA1(secret, user name)), the form that TURN servers with
shared secrets understand (draft-uberti-behave-turn-rest-00).
"""

from __future__ import annotations

import base64
import json
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moim.edge.keys import write_private
from moim.edge.settings import IceSettings
from moim.edge.turn import rest_credentials

_PLAIN = re.compile(r"[^A-Za-z0-9_.@-]")
_log = logging.getLogger("moim.edge.ice")


@dataclass(frozen=True, slots=True)
class _Secret:
    value: str
    made: float


class TurnSecrets:
    """The shared secrets, newest first: one that signs, and older ones until their last credential has ended."""

    def __init__(self, path: Path, settings: IceSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._secrets: list[_Secret] = []

    def load(self) -> None:
        """Reads the file; makes the first secret when there is none or it cannot be read."""
        try:
            raw = json.loads(self._path.read_text(encoding="utf-8"))
            self._secrets = [_Secret(str(item["secret"]), float(item["made"])) for item in raw][:8]
        except FileNotFoundError:
            self._secrets = []
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the TURN secrets in %s cannot be read, new ones are made: %s", self._path, error)
            self._secrets = []
        self.rotate()

    def rotate(self) -> bool:
        """Replaces the newest secret when it is due and drops those that nobody can hold a credential of."""
        now = self._clock()
        kept = list(self._secrets)
        if not kept or now - kept[0].made >= self._settings.rotate_s or kept[0].made > now:
            kept.insert(0, _Secret(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(), now))
        # A secret signs until its successor is made; the last credential of it ends a lifetime later.
        kept = [
            secret
            for number, secret in enumerate(kept)
            if number == 0 or kept[number - 1].made + self._settings.credential_s > now
        ][:8]
        if kept == self._secrets:
            return False
        self._secrets = kept
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = [{"secret": secret.value, "made": secret.made} for secret in kept]
        write_private(self._path, json.dumps(content).encode())
        return True

    def values(self) -> tuple[str, ...]:
        """The secrets that the edge accepts, newest first."""
        return tuple(secret.value for secret in self._secrets)

    def credential(self, name: str) -> tuple[str, str, int]:
        """User name, password and end (seconds since 1970) for ``name``, which is only there for the logs."""
        if not self._secrets:
            self.load()
        now, lifetime = int(self._clock()), self._settings.credential_s
        secret = self._secrets[0].value.encode()
        user, password = rest_credentials(secret, _PLAIN.sub("_", name)[:64], lifetime, now)
        return user, password, now + lifetime


class IceServers:
    """Gives participants their ``iceServers``. ``public`` and ``private`` are the edge's addresses from each side."""

    def __init__(
        self, turn_secrets: TurnSecrets, *, public: str, private: str, port: int, inside: bool, enabled: bool
    ) -> None:
        self._secrets = turn_secrets
        self._addresses = {True: public, False: private}
        self._port = port
        self._inside = inside
        self._enabled = enabled

    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        """RTCIceServer dictionaries for a participant: ``urls``, ``username``, ``credential``; empty without TURN."""
        if not self._enabled or not (outside or self._inside):
            return []
        user, password, _ = self._secrets.credential(name)
        address = self._addresses[outside]
        host = f"[{address}]" if ":" in address else address
        return [{"urls": [f"turn:{host}:{self._port}?transport=udp"], "username": user, "credential": password}]
