"""The bounded listener: clients, limits, refusals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from moim.errors import Unavailable
from moim.net.listener import Limits, Listener, client_key
from moim.net.streams import SocketStream


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("odd", "odd"),
    ],
)
def test_what_counts_as_one_client(address: str, key: str) -> None:
    assert client_key(address) == key


class Echo:
    def __init__(self, limits: Limits) -> None:
        self.refused: list[str] = []
        self.listener = Listener(
            self.serve,
            name="echo",
            address="127.0.0.1",
            port=0,
            limits=limits,
            on_refused=lambda _client, reason: self.refused.append(reason),
        )

    async def serve(self, stream: SocketStream) -> None:
        while data := await stream.reader.read(100):
            if data == b"bug":
                raise ValueError("a bug")
            stream.write(data)
            await stream.drain()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.listener.port)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo(Limits(connections=3, per_client=2))
    echo.listener.start()
    yield echo
    await echo.listener.stop()


async def _says(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    pair[1].write(b"x")
    try:
        return await pair[0].read(1)
    except OSError:
        return b""


async def test_a_client_has_a_limit_and_gets_its_place_back(echo: Echo) -> None:
    held = [await echo.connect() for _ in range(2)]
    assert [await _says(pair) for pair in held] == [b"x", b"x"]
    third = await echo.connect()
    assert await _says(third) == b""
    assert echo.refused == ["this client has 2 connections to echo, which is the limit"]
    held[0][1].close()
    async with asyncio.timeout(5):
        while echo.listener.connections == 2:
            await asyncio.sleep(0)
    assert await _says(await echo.connect()) == b"x"
    held[1][1].close()
    third[1].close()


async def test_an_error_in_one_connection_ends_that_one(echo: Echo) -> None:
    bad, good = await echo.connect(), await echo.connect()
    bad[1].write(b"bug")
    assert await bad[0].read() == b""
    assert await _says(good) == b"x"
    good[1].close()


async def test_stop_ends_connections_and_frees_the_port(echo: Echo) -> None:
    reader, _ = pair = await echo.connect()
    assert await _says(pair) == b"x"
    await echo.listener.stop()
    with contextlib.suppress(OSError):
        assert await reader.read() == b""
    again = Echo(Limits())
    again.listener.port = echo.listener.port
    again.listener.start()
    second = Echo(Limits())
    second.listener.port = echo.listener.port
    with pytest.raises(Unavailable, match="cannot listen"):
        second.listener.start()
    await again.listener.stop()
