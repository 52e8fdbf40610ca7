"""The PROXY protocol, version 2: tells a server behind a proxy whose connection it is."""

from __future__ import annotations

import ipaddress

_UNSPECIFIED = ("0.0.0.0", 0)  # noqa: S104 - a value on the wire, nothing binds to it
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxy_header(source: tuple[str, int], destination: tuple[str, int] = _UNSPECIFIED) -> bytes:
    """A PROXY protocol header, version 2, command PROXY, for a TCP connection (HAProxy's proxy-protocol.txt, 2.2).

    The destination may stay unspecified. Two families are written as IPv6, the IPv4 one mapped. Raises ValueError when
    an address is not one.
    """
    addresses = [ipaddress.ip_address(address.partition("%")[0]) for address, _ in (source, destination)]
    ports = source[1].to_bytes(2, "big") + destination[1].to_bytes(2, "big")
    if all(address.version == 4 for address in addresses):
        family, packed = 0x11, b"".join(address.packed for address in addresses)
    else:
        family = 0x21
        packed = b"".join(
            address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
            for address in addresses
        )
    body = packed + ports
    return _SIGNATURE + bytes((0x21, family)) + len(body).to_bytes(2, "big") + body
