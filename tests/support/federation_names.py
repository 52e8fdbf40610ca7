"""Names and certificates that the tests of federation share."""

from __future__ import annotations

from moim.federation.chains import Anchors
from peer_certificates import authority, leaf

A, B = "a.example", "b.example"


def trusted(*domains: str) -> tuple[Anchors, dict[str, list[bytes]]]:
    """An authority, and a chain for each domain that it signed."""
    root = authority()
    return Anchors([root.certificate]), {domain: leaf([domain, f"*.{domain}"], root).chain for domain in domains}
