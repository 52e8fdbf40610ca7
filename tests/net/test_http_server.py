"""The HTTP server: addresses, Unix sockets, a port in use, WebSockets, a clean stop."""

from pathlib import Path

import httpx
import pytest
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from moim.errors import LimitExceeded, Unavailable
from moim.net import http_errors
from moim.net.http_server import HttpServer


async def hello(_: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def refuse(_: Request) -> PlainTextResponse:
    raise LimitExceeded("too many", hint="wait")


async def crash(_: Request) -> PlainTextResponse:
    raise RuntimeError("secret detail")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


APP = Starlette(
    routes=[Route("/", hello), Route("/refuse", refuse), Route("/crash", crash), WebSocketRoute("/ws", echo)],
    exception_handlers=dict(http_errors.HANDLERS),
)


async def test_serves_on_a_free_port_and_stops() -> None:
    server = HttpServer(APP, address="127.0.0.1")
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.get("/")).text == "hello"
    await server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{server.port}/")


async def test_a_port_in_use_is_a_plain_sentence() -> None:
    first = HttpServer(APP, address="127.0.0.1")
    await first.start()
    with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{first.port}"):
        await HttpServer(APP, address="127.0.0.1", port=first.port).start()
    await first.stop()


async def test_a_unix_socket_is_private(tmp_path: Path) -> None:
    server = HttpServer(APP, path=tmp_path / "x.sock")
    await server.start()
    assert (tmp_path / "x.sock").stat().st_mode & 0o077 == 0
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(tmp_path / "x.sock"))) as client:
        assert (await client.get("http://any/")).text == "hello"
    await server.stop()


async def test_websockets() -> None:
    server = HttpServer(APP, address="127.0.0.1")
    await server.start()
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as socket:
        await socket.send("안녕 👋")
        assert await socket.recv() == "안녕 👋"
    await server.stop()


async def test_errors_are_json_and_leak_nothing() -> None:
    server = HttpServer(APP, address="127.0.0.1")
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        refused = await client.get("/refuse")
        assert refused.status_code == 429
        assert refused.json() == {"error": {"code": "limit-exceeded", "message": "too many", "hint": "wait"}}
        crashed = await client.get("/crash")
        assert crashed.status_code == 500
        assert "secret" not in crashed.text
        missing = await client.get("/missing")
        assert missing.json()["error"]["code"] == "http-404"
    await server.stop()


def test_error_responses_are_json_too() -> None:
    assert isinstance(http_errors.response(LimitExceeded("x")), JSONResponse)
