"""Gets a POSH document over HTTPS: the guard judges the addresses first, and the certificate must be a public one's."""

from __future__ import annotations

import ssl

from moim.errors import NotFound, PeerUnreachable
from moim.federation.guard import Guard
from moim.federation.locating import Dns
from moim.federation.posh import MAX_DOCUMENT
from moim.net.http_client import HttpClient

_SECONDS = 10.0


class Fetcher:
    """``tls`` verifies web servers; ``port`` is where they are."""

    def __init__(self, dns: Dns, guard: Guard, tls: ssl.SSLContext, *, port: int = 443) -> None:
        self._dns = dns
        self._guard = guard
        self._port = port
        self._client = HttpClient(tls)

    async def __call__(self, host: str, path: str) -> bytes:
        """The body of ``https://host/path``. Raises PeerError, or NotFound for any status but 200."""
        answer = await self._dns.addresses(host)
        allowed = [one for one in answer.addresses if not self._guard.refusal(one, self._port)]
        if not allowed:
            raise PeerUnreachable(f"https://{host} has no address that may be connected to")
        found = await self._client.get(
            "https", host, self._port, path, addresses=allowed, timeout=_SECONDS, limit=MAX_DOCUMENT
        )
        if found.status != 200:
            raise NotFound(f"https://{host}{path} answered {found.status}")
        return found.body

    async def aclose(self) -> None:
        """Closes kept connections."""
        await self._client.aclose()
