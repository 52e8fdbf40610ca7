"""The application around the API: host names, security headers, the page and its files, other rooms' routes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from moim.errors import NotFound

from .conftest import Portal, StartPortal


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1:18080", "localhost:18080", "[::1]:18080", "203.0.113.9", "INSIDE.example.test"),
        *("inside.example.test.:18080", "edge.example.test", "example.test:443", "chat.example.org"),
    ],
)
async def test_answers_to_its_own_names(start: StartPortal, host: str) -> None:
    portal = await start(names=["chat.example.org"])
    assert (await portal.http.get("/api/site", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.test", "example.test.evil.test", "127.0.0.1.evil.test", "localhost.evil.test", "a b", ""),
        *("[::1", "[127.0.0.1]", "[::::]", "[1::2::3]:80"),
    ],
)
async def test_other_names_reach_nothing(portal: Portal, host: str) -> None:
    for path in ("/", "/api/site", "/assets/index-abc123.js"):
        answer = await portal.http.get(path, headers={"Host": host})
        assert answer.status_code == 421, path
        assert answer.json()["error"]["code"] == "forbidden"


async def test_every_answer_has_the_security_headers(portal: Portal) -> None:
    paths = ("/", "/meeting/1", "/assets/index-abc123.js", "/api/site", "/api/session", "/nowhere")
    for client in (portal.http, portal.through_the_edge):
        for path in paths:
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "camera=(self)" in headers["permissions-policy"]
            policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "strict-transport-security" not in (await portal.http.get("/")).headers


async def test_the_policy_allows_the_websockets_of_the_callers_side(portal: Portal) -> None:
    def sources(policy: str) -> list[str]:
        found = re.search(r"connect-src ([^;]*)", policy)
        assert found is not None
        return found[1].split()

    inside = (await portal.http.get("/")).headers
    own = f"ws://{portal.http.base_url.netloc.decode()}"
    assert sources(inside["content-security-policy"]) == ["'self'", "ws://127.0.0.1:15280", own]
    outside = (await portal.through_the_edge.get("/")).headers
    assert sources(outside["content-security-policy"]) == ["'self'", "wss://edge.example.test:18443"]
    assert outside["strict-transport-security"] == "max-age=31536000"


async def test_the_page_is_asked_for_each_time_and_its_files_are_kept(portal: Portal) -> None:
    for path in ("/", "/meeting", "/meeting/", "/meeting/700100200?secret=x"):
        answer = await portal.http.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-cache"
    script = await portal.http.get("/assets/index-abc123.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert script.headers["content-encoding"] == "gzip"
    plain = await portal.http.get("/assets/index-abc123.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == script.content
    again = await portal.http.get("/assets/index-abc123.js", headers={"If-None-Match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await portal.http.get("/icon.svg")).headers["content-type"].startswith("image/svg+xml")
    assert (await portal.http.head("/")).status_code == 200


@pytest.mark.parametrize("path", ["/nowhere", "/index.html", "/assets/", "/assets/../index.html", "/%2e%2e/etc/passwd"])
async def test_nothing_else_is_there(portal: Portal, path: str) -> None:
    answer = await portal.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not-found")
    assert (await portal.http.post("/nowhere", json={})).status_code == 405


async def test_an_app_that_is_not_built_is_said_to_be_missing(start: StartPortal, tmp_path: Path) -> None:
    portal = await start(assets=tmp_path / "nothing")
    answer = await portal.http.get("/")
    assert answer.status_code == 503
    assert "make build" in answer.text
    status = portal.service.health()[0]
    assert (status.state, "make build" in status.detail) == ("degraded", True)
    assert (await portal.http.get("/api/site")).status_code == 200


async def test_health_tells_the_listener(portal: Portal) -> None:
    status = portal.service.health()[0]
    assert (status.name, status.node, status.transport, status.address) == ("web", "inside", "http", "127.0.0.1")
    assert portal.service.url == f"http://127.0.0.1:{status.port}/"
    await portal.service.stop()
    assert portal.service.health()[0].state == "stopped"


async def test_routes_of_other_rooms_are_served_beside(start: StartPortal) -> None:
    async def spaces(request: Request) -> Response:
        caller = request.state.caller
        if "fail" in request.query_params:
            raise NotFound("no such space")
        return JSONResponse([caller.source, caller.outside])

    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    portal = await start(extra_routes=[Route("/api/spaces", spaces), WebSocketRoute("/meet/ws", echo)])
    assert (await portal.http.get("/api/spaces")).json() == ["127.0.0.1", False]
    assert (await portal.through_the_edge.get("/api/spaces")).json() == ["203.0.113.7", True]
    assert (await portal.http.get("/api/spaces?fail=1")).status_code == 404
    url = portal.service.url.replace("http", "ws", 1)
    async with connect(f"{url}meet/ws") as socket:
        await socket.send("안녕")
        assert await socket.recv() == "안녕"
    with pytest.raises(InvalidStatus):
        await connect(f"{url}meet/ws", additional_headers={"Host": "evil.test"})
