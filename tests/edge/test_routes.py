"""The admin API of the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from moim.edge import admin_routes
from moim.errors import MoimError
from moim.net import http_errors

from .conftest import House

HEADER = "Url,Deployment,HttpMethods,MatchType,Description\r\n"


@pytest.fixture
async def admin(house: House) -> AsyncIterator[httpx.AsyncClient]:
    await house.start()

    async def answer(_request: object, error: Exception) -> object:
        assert isinstance(error, MoimError)
        return http_errors.response(error)

    app = Starlette(routes=admin_routes(house.inside), exception_handlers={MoimError: answer})  # type: ignore[dict-item]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        yield client


async def test_overview(admin: httpx.AsyncClient) -> None:
    answer = (await admin.get("/edge")).json()
    assert [(tunnel["name"], tunnel["state"]) for tunnel in answer["tunnels"]] == [("tunnel", "running")]
    assert "sessions" in answer["counters"]


async def test_refusals_and_relays(admin: httpx.AsyncClient) -> None:
    assert (await admin.get("/edge/refusals")).json() == {"refusals": []}
    assert (await admin.get("/edge/relays")).json() == {"relays": []}


async def test_rules_out_and_in(admin: httpx.AsyncClient, house: House) -> None:
    rows = (await admin.get("/edge/rules")).json()
    assert {row["target"] for row in rows["edge"]} == {"web", "mra", "xmpp-websocket"}
    assert {row["origin"] for row in rows["inside"]} == {"automatic"}
    text = (await admin.get("/edge/rules.csv")).text
    assert text.startswith(HEADER)
    more = text + f"https://{house.inside_address}:7443/vm/,,GET,Prefix,Voicemail\r\n"
    answer = await admin.put("/edge/rules.csv", content=more)
    assert [row["prefix"] for row in answer.json()["rules"]] == ["/vm/"]
    rows = (await admin.get("/edge/rules")).json()
    assert [row["prefix"] for row in rows["inside"] if row["origin"] == "manual"] == ["/vm/"]
    await house.inside.settled()
    assert house.edge._state is not None
    assert any(":7443" in rule.description for rule in house.edge._state.http)
    assert house.inside._dialer.applied == house.inside._dialer.pushed != ""


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"rubbish", 400), (b"\xff", 400), (b"x" * 1_100_000, 429), (HEADER.encode() + b"https://e.example/,,GET,,", 400)],
)
async def test_wrong_lists_are_refused(admin: httpx.AsyncClient, body: bytes, status: int) -> None:
    answer = await admin.put("/edge/rules.csv", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
