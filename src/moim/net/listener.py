"""A TCP listener that counts before it works: limits in all and per client address apply ahead of any TLS handshake."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from moim.errors import Unavailable
from moim.net.streams import CHUNK, SocketStream

_BACKLOG = 1024
_log = logging.getLogger("moim.net.listener")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a listener: connections in all and per client, and seconds for the TLS handshake."""

    connections: int = 20_000
    per_client: int = 512
    handshake_s: float = 10.0


@lru_cache(maxsize=4096)
def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address (one subscriber's usual share)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


class Lasting(Protocol):
    """A protocol of asyncio that says when its connection is over."""

    on_lost: Callable[[], None]
    """Called once, when the connection is lost."""


class Listener:
    """Accepts on one address and hands each stream to ``handle`` in a task of its own.

    With ``protocol`` instead of ``handle``, each connection gets one of these, which reads and writes by itself.

    ``tls`` is asked for the context at each connection, so that a reload needs no rebind; None means that no
    certificate is there yet, and connections are closed at once. ``on_refused(address, reason)`` hears of everything
    that was turned away.
    """

    def __init__(
        self,
        handle: Callable[[SocketStream], Awaitable[None]] | None = None,
        *,
        name: str,
        address: str,
        port: int,
        limits: Limits,
        on_refused: Callable[[str, str], None],
        tls: Callable[[], ssl.SSLContext | None] | None = None,
        protocol: Callable[[], Lasting] | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.port = port
        self.accepted = 0
        self._handle = handle
        self._protocol = protocol
        self._limits = limits
        self._on_refused = on_refused
        self._tls = tls
        self._socket: socket.socket | None = None
        self._acceptor: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._per_client: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._serving)

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self._tls is not None

    @property
    def listening(self) -> bool:
        """Whether the port is bound and accepted from."""
        return self._acceptor is not None and not self._acceptor.done()

    def start(self) -> None:
        """Binds and begins to accept; ``port`` 0 becomes the one bound. Raises Unavailable when it cannot be had."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.address, self.port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise Unavailable(
                f"{self.name} cannot listen on {self.address}:{self.port}: {error.strerror or error}",
                hint="another program holds the port, or the address is not on this machine",
            ) from error
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._socket = listener
        self._acceptor = asyncio.get_running_loop().create_task(self._accept(listener), name=f"accept:{self.name}")

    async def close_port(self) -> None:
        """Accepts no more; connections go on."""
        if self._acceptor is not None:
            self._acceptor.cancel()
            await asyncio.gather(self._acceptor, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def stop(self) -> None:
        """Closes the port and every connection."""
        await self.close_port()
        for task in tuple(self._serving):
            task.cancel()
        if self._serving:
            await asyncio.wait(tuple(self._serving), timeout=1)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, name = await loop.sock_accept(listener)
            except OSError as error:
                # Out of descriptors, or the peer was gone already: the next connection may be fine.
                _log.warning("%s could not accept a connection: %s", self.name, error)
                await asyncio.sleep(0.1)
                continue
            address = str(name[0])
            key = client_key(address)
            reason = self._full(key)
            if reason:
                connection.close()
                self._on_refused(address, reason)
                continue
            self.accepted += 1
            self._per_client[key] += 1
            task = loop.create_task(self._serve(connection, (address, int(name[1]))), name=f"{self.name}:{address}")
            self._serving.add(task)
            task.add_done_callback(lambda done, key=key: self._ended(done, key))  # type: ignore[misc]

    def _full(self, key: str) -> str:
        if len(self._serving) >= self._limits.connections:
            return f"{self.name} has {self._limits.connections} connections, which is its limit"
        if self._per_client[key] >= self._limits.per_client:
            return f"this client has {self._limits.per_client} connections to {self.name}, which is the limit"
        return ""

    def _ended(self, task: asyncio.Task[None], key: str) -> None:
        self._serving.discard(task)
        self._per_client[key] -= 1
        if self._per_client[key] <= 0:
            del self._per_client[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection to %s ended in an unexpected error", self.name, exc_info=error)

    async def _serve(self, connection: socket.socket, peer: tuple[str, int]) -> None:
        context = self._tls() if self._tls is not None else None
        if self._tls is not None and context is None:
            connection.close()
            self._on_refused(peer[0], f"{self.name} has no certificate yet")
            return
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._protocol is not None:
            await self._leave_to(self._protocol(), connection, context, peer[0])
        elif self._handle is not None:
            await self._handle_stream(self._handle, connection, context, peer)

    async def _leave_to(
        self, protocol: Lasting, connection: socket.socket, context: ssl.SSLContext | None, peer: str
    ) -> None:
        lost = asyncio.get_running_loop().create_future()
        protocol.on_lost = lambda: None if lost.done() else lost.set_result(None)
        transport = await self._attach(protocol, connection, context, peer)
        if transport is not None:
            try:
                await lost
            except asyncio.CancelledError:
                transport.abort()
                raise

    async def _handle_stream(
        self,
        handle: Callable[[SocketStream], Awaitable[None]],
        connection: socket.socket,
        context: ssl.SSLContext | None,
        peer: tuple[str, int],
    ) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport = await self._attach(protocol, connection, context, peer[0])
        if transport is None:
            return
        stream = SocketStream(reader, asyncio.StreamWriter(transport, protocol, reader, loop), peer)
        try:
            await handle(stream)
        except asyncio.CancelledError:
            stream.abort()
            raise
        except (OSError, EOFError):
            stream.abort()  # the peer went away in the middle, which is its right
        finally:
            stream.close()

    async def _attach(
        self, protocol: Any, connection: socket.socket, context: ssl.SSLContext | None, peer: str
    ) -> asyncio.Transport | None:
        """Gives the connection to a protocol, behind TLS if there is a context; None when the handshake failed."""
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=context,
                ssl_handshake_timeout=self._limits.handshake_s if context is not None else None,
                ssl_shutdown_timeout=2.0 if context is not None else None,
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            connection.close()
            if context is not None:
                self._on_refused(peer, f"the TLS handshake with {self.name} failed: {_reason(error)}")
            return None
        except BaseException:
            connection.close()
            raise
        return transport


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS error"
    if isinstance(error, TimeoutError):
        return "it took too long"
    return getattr(error, "strerror", None) or type(error).__name__
