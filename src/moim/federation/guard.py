"""Which addresses and ports another domain's records may lead to: never this site's own machines, unless it says so.

Whoever registers a domain writes its records. Without this, a message to it would make this server connect to any
address that the records name, from inside the site's network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_STREAM_PORTS = frozenset({80, 443})
"""Ports below 1024 that servers are found behind; others belong to protocols that a stream header might mean something
to."""


class Guard:
    """``allowed`` networks are exempt; ``own`` gives the addresses and ports that this site listens on itself."""

    def __init__(self, allowed: Iterable[str], own: Callable[[], Iterable[tuple[str, int]]]) -> None:
        self._allowed = tuple(ipaddress.ip_network(text) for text in allowed)
        self._own = own

    def refusal(self, address: str, port: int) -> str:
        """Why nothing may be sent there, as the end of a sentence; empty when it may."""
        try:
            ip = _plain(ipaddress.ip_address(address))
        except ValueError:
            return f"{address} is no address"
        if not 0 < port < 65536 or (port < 1024 and port not in _STREAM_PORTS):
            return f"port {port} is none that servers use"
        if any(port == own_port and _same(ip, own) for own, own_port in self._own()):
            return f"{address}:{port} is this server itself"
        if any(ip.version == network.version and ip in network for network in self._allowed):
            return ""
        if not ip.is_global or ip.is_multicast:
            return f"{address} is no public address (federation.target_networks allows exceptions)"
        return ""


def _plain(ip: Address) -> Address:
    """The IPv4 address inside an IPv6 one, where there is one: it is where the packets go."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip.sixtofour is not None:
            return ip.sixtofour
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip


def _same(ip: Address, own: str) -> bool:
    try:
        return ip == _plain(ipaddress.ip_address(own))
    except ValueError:
        return False
