"""POSH (RFC 7711, RFC 7712 section 6): the domain's web server says which certificate its XMPP server shows."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from moim.errors import MoimError

PATH = "/.well-known/posh/xmpp-server.json"
MAX_DOCUMENT = 64 * 1024
_MAX_FINGERPRINTS = 100
_HASHES = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}

Fetch = Callable[[str, str], Awaitable[bytes]]
"""Host and path to the body that HTTPS gives; raises MoimError."""


async def prove(fetch: Fetch, domain: str, leaf: bytes) -> str:
    """Looks for the fingerprint of a certificate (DER). Returns "" when it is there, else why not."""
    host, path = domain, PATH
    for _ in range(2):  # a document may name another one, which must not name a third (RFC 7711 section 3.2)
        try:
            document = read(await fetch(host, path))
        except MoimError as error:
            return f"its web server vouches for nothing ({error.message})"
        except ValueError as error:
            return f"its POSH document cannot be read ({error})"
        if isinstance(document, str):
            parts = urlsplit(document)
            if parts.scheme != "https" or not parts.hostname or parts.port not in (None, 443):
                return "its POSH document leads to something that is not HTTPS"
            host, path = parts.hostname, parts.path or "/"
            continue
        if any(hmac.compare_digest(_HASHES[kind](leaf).digest(), value) for kind, value in document):
            return ""
        return "its POSH document names another certificate"
    return "its POSH document leads on and on"


def read(body: bytes) -> str | list[tuple[str, bytes]]:
    """The URL that a document leads to, or its fingerprints as (hash, digest). Raises ValueError."""
    if len(body) > MAX_DOCUMENT:
        raise ValueError(f"larger than {MAX_DOCUMENT} bytes")
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    expires = document.get("expires")
    if not isinstance(expires, int) or isinstance(expires, bool) or expires <= 0:
        raise ValueError("it does not say for how long it holds")
    url, listed = document.get("url"), document.get("fingerprints")
    if isinstance(url, str) and listed is None:
        return url
    if not isinstance(listed, list) or url is not None:
        raise ValueError("neither fingerprints nor a URL")
    found: list[tuple[str, bytes]] = []
    for entry in listed[:_MAX_FINGERPRINTS]:
        for kind, value in entry.items() if isinstance(entry, dict) else ():
            if kind in _HASHES and isinstance(value, str):
                try:
                    found.append((kind, base64.b64decode(value, validate=True)))
                except (binascii.Error, ValueError):
                    raise ValueError("a fingerprint is no base64") from None
    return found
