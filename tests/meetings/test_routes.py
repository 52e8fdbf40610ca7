"""Spaces over HTTP: people's own on the web app, all of them for administrators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from moim import meetings
from moim.net import http_errors


@pytest.fixture
async def web(room: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=room.http, trust_env=False) as client:
        yield client


@pytest.fixture
async def admin(room: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=meetings.admin_routes(room.service), exception_handlers=dict(http_errors.HANDLERS))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        yield client


ALICE = {"Authorization": "Bearer token-of-alice"}
BOB = {"Cookie": "moim_session=token-of-bob"}


async def test_people_have_spaces_of_their_own(web: httpx.AsyncClient) -> None:
    made = await web.post("/api/spaces", json={"name": "Planning"}, headers=ALICE)
    assert made.status_code == 201
    space = made.json()
    assert set(space) == {"id", "name", "callId", "passcode", "link"}
    assert space["link"].startswith(f"https://edge.example.com/meeting/{space['callId']}?secret=")
    assert (await web.get("/api/spaces", headers=ALICE)).json() == {"spaces": [space], "total": 1}
    assert (await web.get("/api/spaces", headers=BOB)).json() == {"spaces": [], "total": 0}
    assert (await web.delete(f"/api/spaces/{space['id']}", headers=BOB)).status_code == 404
    assert (await web.delete(f"/api/spaces/{space['id']}", headers=ALICE)).status_code == 204
    assert (await web.delete(f"/api/spaces/{space['id']}", headers=ALICE)).status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer no"}, {"Authorization": "Basic eA=="}])
async def test_strangers_have_none(web: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for answer in (
        await web.get("/api/spaces", headers=headers),
        await web.post("/api/spaces", json={"name": "x"}, headers=headers),
        await web.delete("/api/spaces/x", headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.json()["error"]["hint"]


async def test_bodies_that_cannot_be_meant(web: httpx.AsyncClient) -> None:
    for content in (
        b"",
        b"[]",
        b"{",
        b'{"name": 3}',
        b'{"name": ""}',
        b'{"name": "x", "passcode": "abc"}',
        b"[" * 9999,
    ):
        headers = ALICE | {"Content-Type": "application/json"}
        answer = await web.post("/api/spaces", content=content, headers=headers)
        assert answer.status_code == 400, content
    assert (await web.post("/api/spaces", content=b'{"name": "x"}', headers=BOB)).status_code == 400
    long = b'{"name": "' + b"x" * 20_000 + b'"}'
    answer = await web.post("/api/spaces", content=long, headers=ALICE | {"Content-Type": "application/json"})
    assert answer.status_code == 429
    assert (await web.get("/api/spaces?limit=-1", headers=ALICE)).status_code == 400


async def test_a_link_shows_the_name_and_nothing_else_does(web: httpx.AsyncClient, room: Any) -> None:
    space = await room.service.spaces.create("Planning")
    right = await web.get(f"/api/meeting/{space.call_id}", params={"secret": space.secret})
    assert right.json() == {"callId": space.call_id, "name": "Planning"}
    for call_id, secret in ((space.call_id, ""), (space.call_id, "no"), ("999999999", "no"), ("999999999", "")):
        answer = await web.get(f"/api/meeting/{call_id}", params={"secret": secret})
        assert answer.json() == {"callId": call_id}
    for _ in range(30):
        answer = await web.get("/api/meeting/999999999", params={"secret": "guess"})
    assert answer.status_code == 429


async def test_administrators_manage_all_spaces(admin: httpx.AsyncClient, room: Any) -> None:
    made = (await admin.post("/spaces", json={"name": "All hands"})).json()
    assert made["owner"] is None
    own = await admin.post("/spaces", json={"name": "Bob's", "owner": "Bob@example.com", "passcode": "4711"})
    assert own.status_code == 201
    assert (own.json()["owner"], own.json()["passcode"]) == ("bob@example.com", "4711")
    assert (await admin.get("/spaces")).json()["total"] == 2
    assert (await admin.get("/spaces", params={"owner": "bob@example.com"})).json()["spaces"] == [own.json()]
    assert (await admin.get(f"/spaces/{made['callId']}")).json() == made
    changed = await admin.patch(f"/spaces/{made['id']}", json={"name": "Town hall", "regenerateSecret": True})
    assert changed.json()["name"] == "Town hall"
    assert changed.json()["link"] != made["link"]
    assert (await admin.patch(f"/spaces/{made['id']}", json={"regenerateSecret": "yes"})).status_code == 400
    assert (await admin.delete(f"/spaces/{made['callId']}")).status_code == 204
    assert (await admin.get(f"/spaces/{made['callId']}")).status_code == 404
    assert (await admin.post("/spaces", json={"name": "x", "owner": "nobody"})).status_code == 400
    assert (await admin.get("/meetings")).json() == {"meetings": []}


async def test_the_media_port_is_reported(room: Any) -> None:
    (status,) = room.service.health()
    assert (status.name, status.transport, status.state) == ("media", "udp", "running")
    assert status.port == room.service.port > 0
    assert room.service.media == (("127.0.0.1", room.service.port),)
