"""Listens on one address for length-bounded messages: UDP datagrams, and TCP with a two-byte length before each.

That is the transport of DNS (RFC 1035 section 4.2, RFC 7766) and knows nothing else about it. Bounds: connections in
all and per source, queries per connection, silence, time to send; queries that wait for an answer at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Protocol

from moim.errors import Unavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_BACKLOG = 128
_WAITING = 512
_WAITING_PER_CONNECTION = 32
_PAIR_ATTEMPTS = 16
_log = logging.getLogger("moim.net.dns")


class Handler(Protocol):
    """Answers one message: with messages at once, or with an awaitable of them. No message: silence."""

    def __call__(
        self, message: bytes, source: Address, *, stream: bool
    ) -> Sequence[bytes] | Awaitable[Sequence[bytes]]: ...


class DnsServer:
    """UDP and TCP on the same port. ``port`` 0 takes one that is free for both; ``self.port`` holds it."""

    def __init__(
        self,
        handler: Handler,
        address: str,
        port: int,
        *,
        connections: int = 256,
        per_source: int = 32,
        queries: int = 1000,
        idle: float = 10.0,
    ) -> None:
        self.address = address
        self.port = port
        self._handler = handler
        self._connections = connections
        self._per_source = per_source
        self._queries = queries
        self._idle = idle
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._sources: Counter[Address] = Counter()
        self._waiting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Binds both. Raises Unavailable when the address or port cannot be had."""
        loop = asyncio.get_running_loop()
        datagrams, listener = _bind_pair(self.address, self.port)
        self.port = listener.getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
        self._tcp = await asyncio.start_server(self._accept, sock=listener, backlog=_BACKLOG)

    async def stop(self) -> None:
        """Closes the sockets and every connection."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        tasks = [*self._open, *self._waiting]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    # -- UDP --------------------------------------------------------------------------------------------------------

    def datagram(self, message: bytes, peer: tuple[str, int]) -> None:
        """Answers one datagram; called by the transport."""
        try:
            reply = self._handler(message, _source(peer[0]), stream=False)
        except Exception:
            _log.exception("a query from %s was not handled", peer[0])
            return
        if isinstance(reply, Sequence):
            self._send_datagrams(reply, peer)
        elif len(self._waiting) < _WAITING:
            self._spawn(self._answer_later(reply, peer), self._waiting)
        else:
            _log.warning("a query from %s is dropped: %d others wait for an answer", peer[0], _WAITING)
            _discard(reply)

    async def _answer_later(self, reply: Awaitable[Sequence[bytes]], peer: tuple[str, int]) -> None:
        self._send_datagrams(await reply, peer)

    def _send_datagrams(self, messages: Sequence[bytes], peer: tuple[str, int]) -> None:
        if self._udp is not None and not self._udp.is_closing():
            for message in messages:
                self._udp.sendto(message, peer)

    # -- TCP --------------------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        source = _source(peer[0]) if peer else None
        if source is None or len(self._open) >= self._connections or self._sources[source] >= self._per_source:
            writer.transport.abort()
            return
        self._sources[source] += 1
        task = self._spawn(self._serve(reader, writer, source), self._open)
        task.add_done_callback(lambda _: self._leave(source))

    def _leave(self, source: Address) -> None:
        self._sources[source] -= 1
        if self._sources[source] <= 0:
            del self._sources[source]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: Address) -> None:
        pending: set[asyncio.Task[None]] = set()
        try:
            for _ in range(self._queries):
                async with asyncio.timeout(self._idle):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    message = await reader.readexactly(length)
                reply = self._handler(message, source, stream=True)
                if isinstance(reply, Sequence):
                    await self._send(writer, reply)
                    continue
                # Answers that take time do not hold up the queries behind them (RFC 7766 section 6.2.1.1).
                self._spawn(self._send_later(writer, reply), pending)
                if len(pending) >= _WAITING_PER_CONNECTION:
                    await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if pending:
                await asyncio.wait(pending, timeout=self._idle)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            if pending:
                await asyncio.wait(pending, timeout=self._idle)
        except Exception:
            _log.exception("a query from %s was not handled", source)
        finally:
            for task in pending:
                task.cancel()
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    async def _send_later(self, writer: asyncio.StreamWriter, reply: Awaitable[Sequence[bytes]]) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await self._send(writer, await reply)

    async def _send(self, writer: asyncio.StreamWriter, messages: Sequence[bytes]) -> None:
        for message in messages:
            writer.write(len(message).to_bytes(2, "big") + message)
        async with asyncio.timeout(self._idle):
            await writer.drain()

    @staticmethod
    def _spawn(work: Awaitable[None], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)

    def error_received(self, exc: Exception) -> None:
        """An ICMP error about an answer: the client is gone, which is no news."""


def _source(text: str) -> Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    # A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d; rules are written for what they are.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _discard(reply: Awaitable[Sequence[bytes]]) -> None:
    close = getattr(reply, "close", None)
    if close is not None:
        close()


def _bind_pair(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A datagram socket and a listening one on the same port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for attempt in range(_PAIR_ATTEMPTS):
        listener = socket.socket(family, socket.SOCK_STREAM)
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            datagrams.bind((address, listener.getsockname()[1]))
        except OSError as error:
            listener.close()
            datagrams.close()
            # With port 0 only the UDP half can be taken already: another number may be free for both.
            if port == 0 and attempt + 1 < _PAIR_ATTEMPTS:
                continue
            raise Unavailable(
                f"cannot listen for DNS on {address}:{port}: {error.strerror or error}",
                hint="another program holds the port, or the address is not on this machine",
            ) from error
        listener.setblocking(False)
        datagrams.setblocking(False)
        return datagrams, listener
    raise Unavailable(f"no port is free for both UDP and TCP on {address}")
