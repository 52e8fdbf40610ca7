"""Byte streams of one shape, whatever carries them: reading with back-pressure, half-close, and a pipe between two.

A stream reads through an ``asyncio.StreamReader`` (bounded, pauses its source) and writes through the methods below;
``SocketStream`` is the one over TCP, TLS and Unix sockets, ``moim.net.ssh`` has the one over an SSH channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moim.errors import PeerTimeout, PeerUnreachable

CHUNK = 64 * 1024
"""How much is read at once, and the limit of a socket stream's line or head reads."""


class ByteStream(Protocol):
    """A two-way stream of bytes."""

    reader: asyncio.StreamReader

    def write(self, data: bytes) -> None:
        """Queues bytes; on a stream that is gone they are dropped (``drain`` tells)."""
        ...

    async def drain(self) -> None:
        """Waits until the peer takes more. Raises OSError when the stream is gone."""
        ...

    def write_eof(self) -> bool:
        """Ends the writing half; False when this carrier cannot, and nothing was done."""
        ...

    def close(self) -> None:
        """Sends what is queued, then closes both halves."""
        ...

    def abort(self) -> None:
        """Closes at once and drops what is queued."""
        ...


class SocketStream:
    """A stream over a socket: TCP, TLS or Unix. ``peer`` is the address of the other side as text."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: tuple[str, int]) -> None:
        self.reader = reader
        self.peer = peer
        self._writer = writer

    def write(self, data: bytes) -> None:
        """Queues bytes; on a stream that is gone they are dropped (``drain`` tells)."""
        if not self._writer.transport.is_closing():
            self._writer.write(data)

    async def drain(self) -> None:
        """Waits until the peer takes more. Raises OSError when the stream is gone."""
        await self._writer.drain()

    def write_eof(self) -> bool:
        """Ends the writing half; False for TLS, which has no half-close here."""
        if self._writer.transport.is_closing() or not self._writer.can_write_eof():
            return False
        with contextlib.suppress(OSError):
            self._writer.write_eof()
        return True

    def close(self) -> None:
        """Sends what is queued, then closes both halves."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()

    def abort(self) -> None:
        """Closes at once and drops what is queued."""
        self._writer.transport.abort()

    def give_up_after(self, seconds: float) -> None:
        """Counts a peer as gone that acknowledges nothing for so long, although something was sent to it."""
        raw = self._writer.get_extra_info("socket")
        if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))

    def local(self) -> tuple[str, int]:
        """This side's address and port; empty and 0 for Unix sockets."""
        name = self._writer.get_extra_info("sockname")
        return (str(name[0]), int(name[1])) if isinstance(name, tuple) else ("", 0)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a stream goes on this machine or network: a Unix socket (``path``), or ``host`` and ``port``.

    With ``announce`` the stream begins with a PROXY header that names the client.
    """

    path: Path | None = None
    host: str = ""
    port: int = 0
    announce: bool = False

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else f"{self.host}:{self.port}"


async def connect(target: Target, *, timeout: float, tls: ssl.SSLContext | None = None) -> SocketStream:  # noqa: ASYNC109
    """Opens a stream to ``target`` within ``timeout`` seconds. Raises PeerUnreachable or PeerTimeout."""
    try:
        async with asyncio.timeout(timeout):
            if target.path is not None:
                reader, writer = await asyncio.open_unix_connection(str(target.path), limit=CHUNK)
            else:
                reader, writer = await asyncio.open_connection(target.host, target.port, limit=CHUNK, ssl=tls)
    except TimeoutError:
        raise PeerTimeout(f"{target} did not answer within {timeout:g} s") from None
    except OSError as error:
        raise PeerUnreachable(f"no connection to {target}: {error.strerror or error}") from error
    return SocketStream(reader, writer, (target.host, target.port))


@dataclass(slots=True)
class Relayed:
    """What a pipe carried: bytes each way, and why it ended (``closed``, ``idle`` or ``broken``)."""

    forward: int = 0
    backward: int = 0
    end: str = "closed"


async def relay(left: ByteStream, right: ByteStream, *, idle_s: float, half_closed_s: float = 60.0) -> Relayed:
    """Copies both ways until both halves ended, one side broke, or nothing moved for ``idle_s`` seconds.

    A half-close on one side is passed on and the other direction goes on, for ``half_closed_s`` seconds without
    traffic at the most. Both streams are closed at the end.
    """
    loop = asyncio.get_running_loop()
    total = Relayed()
    last = loop.time()
    can_half_close = True

    async def copy(source: ByteStream, sink: ByteStream, forward: bool) -> None:
        nonlocal last, can_half_close
        while data := await source.reader.read(CHUNK):
            last = loop.time()
            if forward:
                total.forward += len(data)
            else:
                total.backward += len(data)
            sink.write(data)
            await sink.drain()
            last = loop.time()
        if not sink.write_eof():
            can_half_close = False

    tasks = {loop.create_task(copy(left, right, True)), loop.create_task(copy(right, left, False))}
    try:
        while True:
            allowed = idle_s if len(tasks) == 2 else half_closed_s
            left_s = last + allowed - loop.time()
            if left_s <= 0:
                total.end = "idle"
                break
            done, tasks = await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() is not None for task in done):
                total.end = "broken"
                break
            if not tasks or not can_half_close:
                break
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        if total.end != "closed":
            left.abort()
            right.abort()
        else:
            left.close()
            right.close()
    return total
