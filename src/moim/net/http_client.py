"""An HTTP/1.1 client that connects where it is told: to given addresses, checking the certificate for the URL's host.

Small on purpose: GET only, no redirects, no cookies, no proxies, bounded heads and bodies. Connections are kept for the
next request to the same server.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import h11

from moim.errors import PeerTimeout, ProtocolError
from moim.net.dial import HungUp, close, connect

MAX_BODY = 1 << 20
_MAX_HEAD = 32 * 1024
_READ = 64 * 1024
_IDLE = 10.0
_AGENT = "Moim"
_Key = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """``headers`` keys are lower case with all values of each; ``address`` is the IP address that answered."""

    status: int
    headers: Mapping[str, tuple[str, ...]]
    body: bytes = field(repr=False)
    address: str


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    state: h11.Connection
    used_at: float = 0.0


class HttpClient:
    """Keeps connections until ``aclose``. ``tls`` verifies https servers."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._idle: dict[_Key, _Connection] = {}

    async def get(
        self,
        scheme: Literal["http", "https"],
        host: str,
        port: int,
        path: str,
        *,
        addresses: Sequence[str],
        headers: Sequence[tuple[str, str]] = (),
        name: str = "",
        timeout: float = 10.0,  # noqa: ASYNC109
        limit: int = MAX_BODY,
    ) -> HttpResponse:
        """One GET. The certificate must be for ``name``, else for ``host``; the body has at most ``limit`` bytes.

        Raises PeerTimeout, PeerUnreachable (NotListening, HungUp), CertificateRefused, ProtocolError.
        """
        key = (scheme, host, port, name or host)
        try:
            async with asyncio.timeout(timeout):
                kept = self._idle.pop(key, None)
                if kept is not None:
                    if time.monotonic() - kept.used_at < _IDLE and not kept.reader.at_eof():
                        try:
                            return await self._exchange(key, kept, path, headers, limit)
                        except (HungUp, OSError):
                            pass  # the server closed the kept connection meanwhile: a new one tells the truth
                    kept.writer.transport.abort()
                tls = self._tls if scheme == "https" else None
                reader, writer = await connect(addresses, port, tls=tls, name=name or host, timeout=timeout)
                fresh = _Connection(reader, writer, h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD))
                return await self._exchange(key, fresh, path, headers, limit)
        except TimeoutError:
            raise PeerTimeout(f"{host}:{port} did not answer within {timeout:g} s") from None
        except OSError as error:
            raise HungUp(f"the connection to {host}:{port} broke: {error.strerror or error}") from None

    async def aclose(self) -> None:
        """Closes every kept connection."""
        connections = list(self._idle.values())
        self._idle.clear()
        await asyncio.gather(*(close(connection.writer) for connection in connections))

    async def _exchange(
        self, key: _Key, connection: _Connection, path: str, headers: Sequence[tuple[str, str]], limit: int
    ) -> HttpResponse:
        scheme, host, port, _ = key
        done = False
        try:
            named = f"[{host}]" if ":" in host else host
            standard = 443 if scheme == "https" else 80
            lines = [
                ("Host", named if port == standard else f"{named}:{port}"),
                ("User-Agent", _AGENT),
                ("Accept", "*/*"),
            ]
            try:
                request = h11.Request(method="GET", target=path, headers=[*lines, *headers])
                wire = (connection.state.send(request) or b"") + (connection.state.send(h11.EndOfMessage()) or b"")
            except h11.LocalProtocolError as error:
                raise ProtocolError(f"the path cannot be asked for: {error}") from None
            connection.writer.write(wire)
            await connection.writer.drain()
            try:
                response = await self._read(connection, f"{host}:{port}", limit)
            except h11.RemoteProtocolError as error:
                raise ProtocolError(f"{host}:{port} broke the protocol: {error}") from None
            if connection.state.our_state is h11.DONE and connection.state.their_state is h11.DONE:
                connection.state.start_next_cycle()
                connection.used_at = time.monotonic()
                self._idle[key] = connection
                done = True
            return response
        finally:
            if not done:
                connection.writer.transport.abort()

    @staticmethod
    async def _read(connection: _Connection, where: str, limit: int) -> HttpResponse:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = connection.state.next_event()
            if event is h11.NEED_DATA:
                data = await connection.reader.read(_READ)
                if not data and head is None:
                    raise HungUp(f"{where} closed the connection without an answer")
                connection.state.receive_data(data)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limit:
                    raise ProtocolError(f"{where} sent more than {limit} bytes")
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise HungUp(f"{where} closed the connection in the middle of an answer")
        headers: dict[str, tuple[str, ...]] = {}
        for raw_name, raw_value in head.headers:
            name = raw_name.decode("latin-1")
            headers[name] = (*headers.get(name, ()), raw_value.decode("latin-1"))
        peer = connection.writer.get_extra_info("peername")
        return HttpResponse(head.status_code, headers, bytes(body), str(peer[0]) if peer else "")
