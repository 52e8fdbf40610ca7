"""The admin API of the directory, as the console mounts it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette

from moim import directory
from moim.model import UserChanged, UserRemoved
from moim.net import http_errors

PASSWORD = "correct horse"


@pytest.fixture
async def api(service: directory.Service) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=directory.admin_routes(service), exception_handlers=dict(http_errors.HANDLERS))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        yield client


async def test_users(api: httpx.AsyncClient, service: directory.Service) -> None:
    made = await api.post("/users", json={"address": "alice@example.com", "password": PASSWORD, "title": "CTO"})
    assert made.status_code == 201
    assert made.json()["title"] == "CTO"
    assert "argon2" not in made.text
    assert (await api.post("/users", json={"address": "alice@example.com"})).status_code == 409
    assert (await api.get("/users/alice%40example.com")).json() == made.json()
    listed = (await api.get("/users", params={"offset": 0, "limit": 10})).json()
    assert (listed["total"], listed["users"]) == (1, [made.json()])
    assert (await api.get("/users", params={"query": "nobody"})).json()["total"] == 0
    changed = await api.patch("/users/alice%40example.com", json={"display_name": "Alice", "disabled": True})
    assert (changed.json()["display_name"], changed.json()["disabled"]) == ("Alice", True)
    await api.patch("/users/alice%40example.com", json={"disabled": False})
    assert (await api.put("/users/alice%40example.com/password", json={"password": "new secret"})).status_code == 204
    assert await service.users.verify_password("alice@example.com", "new secret")
    assert (await api.delete("/users/alice%40example.com")).status_code == 204
    gone = await api.get("/users/alice%40example.com")
    assert gone.status_code == 404
    assert gone.json()["error"]["hint"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/users", b"no json"),
        ("POST", "/users", b"[" * 10_000),
        ("POST", "/users", b"[]"),
        ("POST", "/users", b"{}"),
        ("POST", "/users", b'{"address": "alice@example.com", "password": 7}'),
        ("POST", "/users", b'{"address": "alice@example.com", "title": null}'),
        ("POST", "/users", b'{"address": "no address"}'),
        ("PATCH", "/users/alice%40example.com", b'{"disabled": "yes"}'),
        ("PUT", "/users/alice%40example.com/password", b"{}"),
        ("GET", "/users?offset=-1", b""),
        ("POST", "/users/import", b"shoe size\n"),
    ],
)
async def test_wrong_input_is_the_callers_fault(api: httpx.AsyncClient, method: str, path: str, body: bytes) -> None:
    answer = await api.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


async def test_a_body_too_long_is_refused(api: httpx.AsyncClient) -> None:
    long = b'{"address": "' + b"x" * 100_000 + b'"}'
    answer = await api.post("/users", content=long, headers={"Content-Type": "application/json"})
    assert answer.status_code == 429


def _csv(count: int) -> str:
    people = "".join(f"user{n}@example.com,secret-{n:04},User {n}\n" for n in range(count))
    return f"address,password,display_name\n{people}"


async def _import(api: httpx.AsyncClient, text: str, **query: str) -> list[dict[str, object]]:
    answer = await api.post("/users/import", content=text, headers={"Content-Type": "text/csv"}, params=query)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_import_tells_progress_and_faults(
    api: httpx.AsyncClient, service: directory.Service, facts: list[UserChanged | UserRemoved]
) -> None:
    await service.users.add("user5@example.com", PASSWORD)
    facts.clear()
    text = _csv(300) + "user7@example.com,secret-xx,Again\nuser8@other.org,secret-xx,Away\nnew@example.com,short,New\n"
    *progress, final = await _import(api, text)
    assert [line["done"] for line in progress] == [128, 256, 303]
    assert all(line["total"] == 303 for line in progress)
    assert (final["done"], final["added"], final["failed"]) == (303, 299, 4)
    errors = final["errors"]
    assert isinstance(errors, list)
    assert sorted((one["line"], one["address"]) for one in errors) == [
        (7, "user5@example.com"),
        (302, "user7@example.com"),
        (303, "user8@other.org"),
        (304, "new@example.com"),
    ]
    assert len(facts) == 299
    assert await service.users.verify_password("user299@example.com", "secret-0299")
    assert await service.users.verify_password("user5@example.com", PASSWORD)


async def test_all_or_nothing(api: httpx.AsyncClient, service: directory.Service) -> None:
    await service.users.add("user5@example.com", PASSWORD)
    *_, final = await _import(api, _csv(10), all_or_nothing="true")
    assert (final["added"], final["failed"]) == (0, 1)
    assert len(await service.users.addresses()) == 1
    await service.users.remove("user5@example.com")
    *_, final = await _import(api, _csv(10), all_or_nothing="true")
    assert (final["added"], final["failed"]) == (10, 0)
    assert len(await service.users.addresses()) == 10
