"""The stream behind a BOSH session: a WebSocket to the plane on a private Unix socket, with the client's address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from xml.sax.saxutils import quoteattr

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from moim.errors import PeerUnreachable
from moim.net.proxy_header import proxy_header
from moim.proto.xmpp import ns

_OPEN_S = 10.0
_CLOSE_S = 2.0
_MAX_FRAME = 1 << 20
_PATH = "/xmpp-websocket"


class PlaneStream:
    """One stream. Frames are whole elements, as in RFC 7395."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, path: Path, client: str) -> PlaneStream:
        """Connects on behalf of ``client``, an IP address. Raises PeerUnreachable."""
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_OPEN_S):
                await loop.sock_connect(plain, str(path))
                await loop.sock_sendall(plain, proxy_header((_address(client), 0)))
                connection = await unix_connect(
                    sock=plain,
                    uri=f"ws://localhost{_PATH}",
                    subprotocols=[Subprotocol("xmpp")],
                    compression=None,
                    max_size=_MAX_FRAME,
                    max_queue=8,
                    ping_interval=None,
                    close_timeout=_CLOSE_S,
                )
        except (OSError, WebSocketException) as error:
            plain.close()
            raise PeerUnreachable(f"the XMPP engine does not answer: {error}") from error
        except BaseException:
            plain.close()
            raise
        return cls(connection)

    async def open(self, to: str, language: str) -> None:
        """Opens the stream, or opens it anew. Raises ConnectionError when it is gone."""
        lang = f" xml:lang={quoteattr(language)}" if language else ""
        await self.send(f"<open xmlns='{ns.FRAMING}' to={quoteattr(to)} version='1.0'{lang}/>")

    async def send(self, text: str) -> None:
        """Sends one element, written with its namespace. Raises ConnectionError when the stream is gone."""
        try:
            await self._connection.send(text)
        except ConnectionClosed as error:
            raise ConnectionResetError("the stream is gone") from error

    async def frames(self) -> AsyncIterator[str]:
        """What the server sends, to the end of the connection."""
        try:
            async for frame in self._connection:
                if isinstance(frame, str):
                    yield frame
        except ConnectionClosed:
            return

    async def close(self) -> None:
        """Ends the stream, properly if that is still possible."""
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(f"<close xmlns='{ns.FRAMING}'/>")
        await self._connection.close()


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return "127.0.0.1"
