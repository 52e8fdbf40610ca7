"""POSH (RFC 7711, RFC 7712 section 6): the domain's web server says which certificate its XMPP server shows."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from moim.errors import MoimError
from moim.model import domain_name

PATH = "/.well-known/posh/xmpp-server.json"
MAX_DOCUMENT = 64 * 1024
_MAX_FINGERPRINTS = 100
_HASHES = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}

_MAX_SECONDS = 24 * 3600
_MAX_REMEMBERED = 1000

Fetch = Callable[[str, str], Awaitable[bytes]]
"""Host and path to the body that HTTPS gives; raises MoimError."""
Fingerprint = tuple[str, bytes]
"""A hash by name, and what it makes of a certificate."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a web server says: fingerprints, or the URL of those. ``seconds`` is for how long."""

    seconds: int
    fingerprints: tuple[Fingerprint, ...] = ()
    url: str = ""


class Posh:
    """Asks web servers, and remembers what they said for as long as they said, at most a day."""

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[float, tuple[Fingerprint, ...]]] = OrderedDict()

    async def prove(self, domain: str, leaf: bytes) -> str:
        """Looks for the fingerprint of a certificate (DER). Returns "" when it is there, else why not."""
        until, fingerprints = self._remembered.get(domain, (0.0, ()))
        if self._clock() < until and _stands_for(fingerprints, leaf):
            return ""
        try:
            seconds, fingerprints = await self._ask(domain)
        except MoimError as error:
            return f"its web server vouches for nothing ({error.message})"
        except ValueError as error:
            return f"its POSH document {error}"
        self._remembered[domain] = (self._clock() + min(seconds, _MAX_SECONDS), fingerprints)
        self._remembered.move_to_end(domain)
        if len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return "" if _stands_for(fingerprints, leaf) else "its POSH document names another certificate"

    async def _ask(self, domain: str) -> tuple[int, tuple[Fingerprint, ...]]:
        """For how long, and the fingerprints. A document may name another one, which must not name a third."""
        first = read(await self._fetch(domain_name(domain), PATH))
        if not first.url:
            return first.seconds, first.fingerprints
        parts = urlsplit(first.url)
        if parts.scheme != "https" or not parts.hostname or parts.port not in (None, 443):
            raise ValueError("leads to something that is not HTTPS")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        second = read(await self._fetch(parts.hostname, path))
        if second.url:
            raise ValueError("leads on and on")
        return min(first.seconds, second.seconds), second.fingerprints


def _stands_for(fingerprints: Iterable[Fingerprint], leaf: bytes) -> bool:
    return any(hmac.compare_digest(_HASHES[kind](leaf).digest(), value) for kind, value in fingerprints)


def read(body: bytes) -> Document:
    """A document (RFC 7711 section 3). Raises ValueError with the end of a sentence about it."""
    if len(body) > MAX_DOCUMENT:
        raise ValueError(f"is larger than {MAX_DOCUMENT} bytes")
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    seconds = document.get("expires")
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds <= 0:
        raise ValueError("does not say for how long it holds")
    url, listed = document.get("url"), document.get("fingerprints")
    if isinstance(url, str) and url and listed is None:
        return Document(seconds, url=url)
    if not isinstance(listed, list) or url is not None:
        raise ValueError("has neither fingerprints nor a URL")
    found: list[Fingerprint] = []
    for entry in listed[:_MAX_FINGERPRINTS]:
        for kind, value in entry.items() if isinstance(entry, dict) else ():
            if kind in _HASHES and isinstance(value, str):
                try:
                    found.append((kind, base64.b64decode(value, validate=True)))
                except (binascii.Error, ValueError):
                    raise ValueError("has a fingerprint that is no base64") from None
    return Document(seconds, tuple(found))
