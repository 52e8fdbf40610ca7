"""HTTPS through the edge to servers inside, for signed-in clients: never further than the allow-list, never elsewhere.

A host is reached at the address that is configured for it, not at one that a name server says just now, and with TLS
it must show a certificate of the site's authority for its name.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from moim.edge.requests import passed_on
from moim.edge.rules import RuleTable, checked_path
from moim.edge.settings import MraSettings
from moim.errors import Forbidden
from moim.net.tls import client_context
from moim.proto import mra

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_log = logging.getLogger("moim.edge.mra")


class InsideProxy:
    """Carries requests to allowed servers. ``addresses`` maps their names to IP addresses."""

    def __init__(self, *, addresses: Mapping[str, str], ca_file: Path, settings: MraSettings) -> None:
        self.rules = RuleTable()
        self._addresses = dict(addresses)
        self._ca_file = ca_file
        self._settings = settings
        self._http: httpx.AsyncClient | None = None

    def start(self) -> None:
        """Opens the client. Raises ConfigError when the authority cannot be read."""
        self._http = httpx.AsyncClient(
            verify=client_context(self._ca_file),
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=15),
        )

    async def stop(self) -> None:
        """Closes the client."""
        if self._http is not None:
            await self._http.aclose()

    def address_of(self, host: str) -> str:
        """The address to connect to for an allowed host. Raises Forbidden when none is configured."""
        try:
            return ipaddress.ip_address(host).compressed
        except ValueError:
            pass
        if host not in self._addresses:
            raise Forbidden(f"no address is configured for {host}")
        return self._addresses[host]

    async def forward(self, request: Request, place: mra.Target, *, credentials: str | None = None) -> Response:
        """Asks the inside server that ``place`` names. Raises Forbidden or ProtocolError before anything is sent.

        ``credentials``: what was checked of the request's own, ``alice@example.com:password``.
        """
        assert self._http is not None
        path, _, query = place.path.partition("?")
        checked_path(path)
        if self.rules.find(place.scheme, place.host, place.port, path, request.method) is None:
            raise Forbidden(f"no rule allows {request.method} {place.scheme}://{place.host}:{place.port}{path[:100]}")
        address = self.address_of(place.host)
        length = int(request.headers.get("content-length") or 0)
        if length > self._settings.request_bytes:
            return PlainTextResponse("the body is too large\n", 413)
        authority = f"[{address}]" if ":" in address else address
        # Built by hand: the client's own defaults (User-Agent, Accept-Encoding) are not what the user's client said.
        outgoing = httpx.Request(
            request.method,
            f"{place.scheme}://{authority}:{place.port}{path}{'?' + query if query else ''}",
            headers=_headers(request, place, credentials),
            content=self._body(request) if length or "transfer-encoding" in request.headers else None,
            extensions={"timeout": _TIMEOUT.as_dict()}
            | ({"sni_hostname": place.host} if place.scheme == "https" else {}),
        )
        try:
            response = await self._http.send(outgoing, stream=True)
        except _TooLarge:
            return PlainTextResponse("the body is too large\n", 413)
        except httpx.TimeoutException:
            return PlainTextResponse(f"{place.host} did not answer in time\n", 504)
        except httpx.HTTPError as error:
            _log.warning("%s:%d could not be asked: %s", place.host, place.port, error or type(error).__name__)
            return PlainTextResponse(f"{place.host} could not be reached\n", 502)
        answer = StreamingResponse(self._content(response), response.status_code)
        fields = [(name.lower(), value) for name, value in response.headers.raw]
        answer.raw_headers = passed_on(fields, from_outside=False)
        return answer

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        taken = 0
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > self._settings.request_bytes:
                raise _TooLarge
            yield chunk

    async def _content(self, response: httpx.Response) -> AsyncIterator[bytes]:
        taken = 0
        try:
            async for chunk in response.aiter_raw():
                taken += len(chunk)
                if taken > self._settings.response_bytes:
                    raise _TooLarge
                yield chunk
        finally:
            await response.aclose()


class _TooLarge(Exception):
    """A body went over its bound while it was streamed."""


def _headers(request: Request, place: mra.Target, credentials: str | None) -> list[tuple[bytes, bytes]]:
    host = f"[{place.host}]" if ":" in place.host else place.host
    kept: list[tuple[bytes, bytes]] = [(b"host", f"{host}:{place.port}".encode())]
    for name, value in passed_on(list(request.headers.raw), from_outside=False):
        if name == b"host":
            continue
        if name == b"authorization" and credentials is not None:
            value = b"Basic " + base64.b64encode(credentials.encode())
        if name == b"cookie":
            others = [part.strip() for part in value.split(b";") if not part.strip().startswith(b"X-Auth=")]
            if not others:
                continue
            value = b"; ".join(others)
        kept.append((name, value))
    return kept
