"""The HTTP client over plain TCP: connections are kept and replaced, and bounds hold. TLS: see tests/discovery."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from moim.errors import PeerTimeout, PeerUnreachable, ProtocolError
from moim.net.http_client import HttpClient, HttpResponse

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[bool]]


class Server:
    """Calls ``talk`` with each request head; it says whether the connection goes on."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.connections = 0
        self.heads: list[bytes] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            go_on = True
            while go_on:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                go_on = await self._talk(reader, writer, head)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient(ssl.create_default_context())
    yield client
    await client.aclose()


async def get(client: HttpClient, port: int, path: str = "/a?b=c", timeout: float = 5.0, **rest: str) -> HttpResponse:
    headers = list(rest.items())
    return await client.get("http", "host.test", port, path, addresses=["127.0.0.1"], headers=headers, timeout=timeout)


def answer(wire: bytes, *, keep: bool = True) -> Talk:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> bool:
        writer.write(wire)
        return keep

    return talk


OK = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 2\r\n\r\nhi"


async def test_a_response_and_its_connection_are_kept(client: HttpClient) -> None:
    server = Server(answer(OK))
    port = await server.start()
    for _ in range(3):
        found = await get(client, port, X="y")
        assert (found.status, found.body, found.address) == (200, b"hi", "127.0.0.1")
        assert found.headers["set-cookie"] == ("a=1", "b=2")
    assert server.connections == 1
    assert server.heads[0].startswith(f"GET /a?b=c HTTP/1.1\r\nHost: host.test:{port}\r\n".encode())
    assert b"X: y\r\n" in server.heads[0]
    server.stop()


async def test_a_kept_connection_that_the_server_closed_is_replaced(client: HttpClient) -> None:
    server = Server(answer(OK, keep=False))
    port = await server.start()
    for _ in range(3):
        assert (await get(client, port)).body == b"hi"
    assert server.connections == 3
    server.stop()


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\n\r\nhi",
    ],
)
async def test_every_framing_is_read(client: HttpClient, wire: bytes) -> None:
    server = Server(answer(wire, keep=False))
    assert (await get(client, await server.start())).body == b"hi"
    server.stop()


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"", PeerUnreachable),
        (b"nonsense\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 8\r\n\r\nhihihihihi", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 40_000, ProtocolError),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ProtocolError),
    ],
)
async def test_what_is_no_answer_is_an_error(client: HttpClient, wire: bytes, error: type[Exception]) -> None:
    server = Server(answer(wire, keep=False))
    port = await server.start()
    with pytest.raises(error):
        await get(client, port)
    server.stop()


async def test_a_server_that_is_silent_is_given_up(client: HttpClient) -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter, head: bytes) -> bool:
        await reader.read()
        return False

    server = Server(talk)
    port = await server.start()
    with pytest.raises(PeerTimeout):
        await get(client, port, timeout=0.1)
    server.stop()


async def test_a_path_cannot_smuggle_a_second_request(client: HttpClient) -> None:
    server = Server(answer(OK))
    port = await server.start()
    with pytest.raises(ProtocolError):
        await get(client, port, path="/a HTTP/1.1\r\nX: y\r\n\r\nGET /b")
    assert server.heads == []
    server.stop()
