"""HTTP connections that want to stay for ever: silent, dripping and not reading ones; and those that may take long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from moim.net.http_protocol import Patience
from moim.net.http_server import HttpServer
from moim.net.listener import Limits
from moim.net.tls import ServerTls
from own_certificate import write_certificate

HASTE = Patience(head=0.3, body=0.3, rate=100_000, unread=0.3, look=0.05)
WAIT = 20


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def later(_: Request) -> PlainTextResponse:
    """Longer than anybody's patience here."""
    await asyncio.sleep(1)
    return PlainTextResponse("news")


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def endless(_: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    return StreamingResponse(pieces())


async def chat(socket: WebSocket) -> None:
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_text(await socket.receive_text())


APP = Starlette(
    routes=[
        Route("/", hello),
        Route("/later", later),
        Route("/count", count, methods=["POST"]),
        Route("/endless", endless),
        WebSocketRoute("/ws", chat),
    ]
)


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    made = HttpServer(APP, address="127.0.0.1", patience=HASTE, limits=Limits(connections=8, per_client=4))
    await made.start()
    yield made
    await made.stop()


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, server: HttpServer) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    async def drip(self, text: bytes) -> None:
        """Byte by byte, until the other side has had enough."""
        with contextlib.suppress(ConnectionError):
            for byte in text:
                self.writer.write(bytes((byte,)))
                await self.writer.drain()
                await asyncio.sleep(0.02)
                if self.reader.at_eof():
                    return

    async def rest(self) -> bytes:
        async with asyncio.timeout(WAIT):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""
            finally:
                self.writer.close()


async def test_who_says_nothing_is_cut_off(server: HttpServer) -> None:
    assert await (await Peer.to(server)).rest() == b""


async def test_a_head_that_drips_is_cut_off_whatever_came_before(server: HttpServer) -> None:
    for before in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
        peer = await Peer.to(server)
        peer.writer.write(before)
        if before:
            await peer.reader.readuntil(b"hello")
        dripping = asyncio.create_task(peer.drip(b"GET / HTTP/1.1\r\nHost: " + b"x" * 100_000))
        assert await peer.rest() == b""
        dripping.cancel()


async def test_a_body_that_drips_is_cut_off(server: HttpServer) -> None:
    peer = await Peer.to(server)
    peer.writer.write(b"POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
    dripping = asyncio.create_task(peer.drip(b"x" * 100_000))
    assert await peer.rest() == b""
    dripping.cancel()


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: gzip, chunked",
        "Content-Length: +5",
    ],
)
async def test_a_body_with_two_framings_is_no_body(server: HttpServer, fields: str) -> None:
    peer = await Peer.to(server)
    smuggled = "5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n"
    peer.writer.write(f"POST /count HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{smuggled}".encode())
    answer = await peer.rest()
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501"))
    assert answer.count(b"HTTP/1.1") == 1


async def test_who_does_not_read_the_answer_is_cut_off(server: HttpServer) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: connections(server) == 1)
        await until(lambda: connections(server) == 0)


async def test_who_only_waits_is_served(server: HttpServer) -> None:
    peer = await Peer.to(server)
    peer.writer.write(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(WAIT):
        await peer.reader.readuntil(b"news")
    peer.writer.close()
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as talk:
        await asyncio.sleep(1)
        await talk.send("still here")
        assert await talk.recv() == "still here"
    await until(lambda: connections(server) == 0)


async def test_one_client_does_not_take_every_place(server: HttpServer) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as talk:
        silent = [await Peer.to(server) for _ in range(3)]
        await until(lambda: connections(server) == 4)
        assert await (await Peer.to(server)).rest() == b"", "the fifth is turned away at once"
        for peer in silent:
            assert await peer.rest() == b""
        await until(lambda: connections(server) == 1)
        await talk.send("x")
        assert await talk.recv() == "x"
    peer = await Peer.to(server)
    peer.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await peer.rest()).endswith(b"hello")


async def test_handshakes_that_never_end_take_places_for_a_while_alone(tmp_path: Path) -> None:
    own = write_certificate(tmp_path, "localhost")
    tls = ServerTls(own.chain, own.key)
    limits = Limits(connections=8, per_client=4, handshake_s=0.3)
    server = HttpServer(APP, address="127.0.0.1", tls=tls, patience=HASTE, limits=limits)
    await server.start()
    half_open = [await Peer.to(server) for _ in range(4)]
    for peer in half_open:
        peer.writer.write(b"\x16\x03\x01\x02\x00")
    await until(lambda: connections(server) == 4)
    assert await (await Peer.to(server)).rest() == b""
    for peer in half_open:
        await peer.rest()
    await until(lambda: connections(server) == 0)
    context = ssl.create_default_context(cafile=str(own.chain))
    context.check_hostname = False
    late = Peer(*await asyncio.open_connection("127.0.0.1", server.port, ssl=context))
    late.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await late.rest()).endswith(b"hello")
    await server.stop()


def connections(server: HttpServer) -> int:
    assert server._listener is not None
    return server._listener.connections


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.01)
