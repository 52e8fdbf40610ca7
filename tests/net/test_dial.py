"""Connecting to one of several addresses, and what is said when none of them will do."""

from __future__ import annotations

import asyncio
import socket

import pytest

from moim.errors import PeerTimeout, PeerUnreachable
from moim.net.dial import NotListening, close, connect


async def test_the_first_address_that_accepts_is_used() -> None:
    accepted = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.93", 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await connect(["127.0.0.91", "127.0.0.92", "127.0.0.93"], port)
    assert writer.get_extra_info("peername")[0] == "127.0.0.93"
    await accepted.wait()
    await close(writer)
    server.close()


async def test_nothing_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.94", 0))
        with pytest.raises(NotListening):
            await connect(["127.0.0.94"], reserved.getsockname()[1], name="host")


async def test_no_address() -> None:
    with pytest.raises(PeerUnreachable):
        await connect([], 1)


async def test_a_listener_that_never_accepts_ends_in_a_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.95", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        full: list[asyncio.StreamWriter] = []  # connections that wait to be accepted, until no more may wait
        try:
            while len(full) < 8:
                try:
                    full.append((await connect(["127.0.0.95"], port, timeout=0.2))[1])
                except PeerTimeout:
                    return
        finally:
            for writer in full:
                writer.transport.abort()
    raise AssertionError("every connection was made, though nobody accepts")
