"""Who asks over HTTP without signing in."""

from __future__ import annotations

import ipaddress

from starlette.requests import HTTPConnection


def source_of(request: HTTPConnection) -> str:
    """The client's IP address: what the edge's connector, on this machine, says it forwards for, else the peer."""
    peer = request.client.host if request.client else ""
    forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    try:
        if forwarded and _local(peer, request):
            return str(ipaddress.ip_address(forwarded))
    except ValueError:
        return peer
    return peer


def _local(peer: str, request: HTTPConnection) -> bool:
    server = request.scope.get("server") or ("", 0)
    return peer == server[0] or ipaddress.ip_address(peer).is_loopback
