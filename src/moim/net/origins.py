"""Whose web page sends a request: the ``Origin`` field (RFC 6454 section 7) against the name that the page asked."""

from __future__ import annotations

from urllib.parse import urlsplit


def same_host(origin: str, authority: str) -> bool:
    """Whether a page of this origin is served by ``authority``, the host and port as the client wrote them."""
    try:
        return urlsplit(origin).netloc.lower() == authority.lower() != ""
    except ValueError:  # half an IPv6 address
        return False
