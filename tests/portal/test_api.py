"""Sign-in, session, site and discovery over HTTP, inside and as the edge passes requests on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from moim.errors import PeerUnreachable
from moim.model import Address, UserChanged, UserRemoved

from .conftest import Portal, StartPortal

ALICE = {"address": "Alice@Example.test", "password": "right"}


def error(answer: httpx.Response) -> str:
    body = answer.json()["error"]
    assert set(body) == {"code", "message", "hint"}
    assert body["message"]
    return str(body["code"])


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_login_gives_a_token_and_a_cookie_that_scripts_cannot_read(portal: Portal) -> None:
    answer = await portal.http.post("/api/login", json=ALICE)
    assert answer.status_code == 200
    given = answer.json()
    assert (given["address"], given["displayName"]) == ("alice@example.test", "Alice")
    assert portal.service.sessions.user_for(given["token"]) == Address("alice", "example.test")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("moim_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie  # plain HTTP on loopback
    assert given["token"] not in cookie
    assert answer.headers["cache-control"] == "no-store"
    assert portal.people.asked == [("alice@example.test", "127.0.0.1")]


async def test_people_of_every_hosted_domain_sign_in(start: StartPortal) -> None:
    portal = await start(hosted=("other.test",))
    portal.people.passwords["alice@other.test"] = "theirs"
    for address, password, status in [
        ("alice@other.test", "theirs", 200),
        ("alice@other.test", "right", 401),
        ("alice@example.test", "theirs", 401),
        ("alice@third.test", "theirs", 401),
    ]:
        answer = await portal.http.post("/api/login", json={"address": address, "password": password})
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["address"] == address
    assert (await portal.http.get("/api/site")).json()["domains"] == ["example.test", "other.test"]
    assert (await portal.http.post("/api/discover", json={"address": "alice@other.test"})).status_code == 200
    refused = await portal.http.post("/api/discover", json={"address": "alice@third.test"})
    assert refused.json()["error"]["hint"] == "addresses here end in @example.test or @other.test"


async def test_through_the_edge_the_cookie_is_secure_and_the_source_is_the_clients(portal: Portal) -> None:
    answer = await portal.through_the_edge.post("/api/login", json=ALICE)
    assert "Secure" in answer.headers["set-cookie"]
    assert portal.people.asked == [("alice@example.test", "203.0.113.7")]


async def test_forwarded_addresses_are_believed_from_the_edge_only(portal: Portal) -> None:
    await portal.http.post("/api/login", json=ALICE, headers={"X-Forwarded-For": "203.0.113.7"})
    await portal.through_the_edge.post("/api/login", json=ALICE, headers={"X-Forwarded-For": "1.1.1.1, 198.51.100.4"})
    await portal.through_the_edge.post("/api/login", json=ALICE, headers={"X-Forwarded-For": "rubbish"})
    assert [source for _, source in portal.people.asked] == ["127.0.0.1", "198.51.100.4", "127.0.0.9"]


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"address": "alice@example.test", "password": "wrong"}, 401, "auth-error"),
        ({"address": "nobody@example.test", "password": "right"}, 401, "auth-error"),
        ({"address": "alice@elsewhere.test", "password": "right"}, 401, "auth-error"),
        ({"address": "alice", "password": "right"}, 400, "usage-error"),
        ({"address": "alice@example.test"}, 400, "usage-error"),
        ({"address": 7, "password": "right"}, 400, "usage-error"),
        (["alice@example.test"], 400, "usage-error"),
        ({"address": "alice@example.test", "password": "x" * 20_000}, 429, "limit-exceeded"),
    ],
)
async def test_login_refuses(portal: Portal, given: Any, status: int, code: str) -> None:
    answer = await portal.http.post("/api/login", json=given)
    assert (answer.status_code, error(answer)) == (status, code)
    assert "set-cookie" not in answer.headers


async def test_login_passes_on_that_an_account_has_to_wait(portal: Portal) -> None:
    portal.people.asked = [("x", "")] * 20
    answer = await portal.http.post("/api/login", json=ALICE)
    assert (answer.status_code, error(answer)) == (429, "limit-exceeded")
    assert answer.json()["error"]["hint"] == "try again in 9 seconds"


@pytest.mark.parametrize("path", ["/api/login", "/api/logout", "/api/discover"])
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""]
)
async def test_forms_of_other_sites_are_no_requests(portal: Portal, path: str, kind: str) -> None:
    body = json.dumps(ALICE)
    answer = await portal.http.post(path, content=body, headers={"Content-Type": kind} if kind else {})
    assert (answer.status_code, error(answer)) == (400, "usage-error")


async def test_session_lasts_until_sign_out(portal: Portal) -> None:
    assert error(await portal.http.get("/api/session")) == "auth-error"
    first = (await portal.http.post("/api/login", json=ALICE)).json()
    again = (await portal.http.get("/api/session")).json()
    assert again["address"] == first["address"]
    assert again["token"] != first["token"]
    assert portal.service.sessions.user_for(again["token"]) is not None
    out = await portal.http.post("/api/logout", json={})
    assert out.status_code == 204
    assert 'moim_session=""' in out.headers["set-cookie"]
    for token in (first["token"], again["token"]):
        assert portal.service.sessions.user_for(token) is None
    assert (await portal.http.get("/api/session")).status_code == 401


async def test_signing_in_again_ends_the_old_session(portal: Portal) -> None:
    first = (await portal.http.post("/api/login", json=ALICE)).json()
    await portal.http.post("/api/login", json={"address": "bob@example.test", "password": "bobs"})
    assert portal.service.sessions.user_for(first["token"]) is None
    assert (await portal.http.get("/api/session")).json()["address"] == "bob@example.test"


async def test_session_ends_with_the_password_and_with_the_user(portal: Portal) -> None:
    await portal.http.post("/api/login", json=ALICE)
    await portal.bus.publish(UserChanged(Address("alice", "example.test"), password_changed=True))
    assert (await portal.http.get("/api/session")).status_code == 401
    await portal.http.post("/api/login", json=ALICE)
    await portal.bus.publish(UserRemoved(Address("alice", "example.test")))
    assert (await portal.http.get("/api/session")).status_code == 401
    await portal.http.post("/api/login", json=ALICE)
    del portal.people.passwords["alice@example.test"]  # gone, and no fact of it came
    assert (await portal.http.get("/api/session")).status_code == 401
    assert len(portal.service.sessions) == 0


async def test_site_tells_where_chat_is_for_the_caller(portal: Portal) -> None:
    inside = (await portal.http.get("/api/site")).json()
    assert inside == {
        "domain": "example.test",
        "domains": ["example.test"],
        "xmppWebsocket": "ws://127.0.0.1:15280/xmpp-websocket",
        "filesOrigin": "",
        "outside": False,
        "languages": ["ko", "en"],
        "version": inside["version"],
    }
    outside = (await portal.through_the_edge.get("/api/site")).json()
    assert outside["outside"] is True
    assert outside["xmppWebsocket"] == "wss://edge.example.test:18443/xmpp-websocket"


async def test_discovery_streams_steps_and_at_last_the_outcome(portal: Portal) -> None:
    step, outcome = lines(await portal.http.post("/api/discover", json={"address": "alice@example.test"}))
    assert step == {"type": "step", "kind": "input", "what": "alice@example.test", "result": "ok"}
    assert outcome == {"type": "outcome", "location": "inside", "elapsed_ms": 1.0}
    through = await portal.through_the_edge.post("/api/discover", json={"address": "alice@example.test"})
    assert lines(through)[-1]["location"] == "outside"


async def test_discovery_is_for_the_own_domain_only(portal: Portal) -> None:
    answer = await portal.http.post("/api/discover", json={"address": "alice@elsewhere.test"})
    assert (answer.status_code, error(answer)) == (400, "usage-error")


async def test_discovery_has_a_rate_for_each_client(start: StartPortal) -> None:
    portal = await start(discoveries_per_minute=2)
    ask = {"address": "alice@example.test"}
    answers = [await portal.http.post("/api/discover", json=ask) for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429]
    assert error(answers[2]) == "limit-exceeded"
    assert (await portal.through_the_edge.post("/api/discover", json=ask)).status_code == 200


async def test_discovery_that_fails_says_so_in_the_stream(start: StartPortal) -> None:
    async def broken(address: Address, *, outside: bool) -> AsyncIterator[Mapping[str, Any]]:
        yield {"kind": "input"}
        if address.local == "alice":
            raise PeerUnreachable("the name server is gone", hint="start it")
        raise RuntimeError("a mistake")

    portal = await start(discover=broken)
    step, trouble = lines(await portal.http.post("/api/discover", json={"address": "alice@example.test"}))
    assert step["type"] == "step"
    assert trouble["error"] == {"code": "peer-unreachable", "message": "the name server is gone", "hint": "start it"}
    crash = lines(await portal.http.post("/api/discover", json={"address": "bob@example.test"}))[-1]
    assert crash["error"]["code"] == "internal"
    assert "mistake" not in crash["error"]["message"].replace("the server made a mistake", "")


async def test_discovery_without_end_is_cut(start: StartPortal) -> None:
    async def silent(_address: Address, *, outside: bool) -> AsyncIterator[Mapping[str, Any]]:
        yield {"kind": "input"}
        await asyncio.Event().wait()

    ask = {"address": "alice@example.test"}
    portal = await start(discover=silent, discovery_seconds=0.05)
    assert lines(await portal.http.post("/api/discover", json=ask))[-1]["error"]["code"] == "peer-timeout"


async def test_discovery_with_too_many_steps_is_cut(start: StartPortal) -> None:
    async def endless(_address: Address, *, outside: bool) -> AsyncIterator[Mapping[str, Any]]:
        while True:
            yield {"kind": "input"}

    portal = await start(discover=endless)
    told = lines(await portal.http.post("/api/discover", json={"address": "alice@example.test"}))
    assert len(told) == 501
    assert told[-1]["error"]["code"] == "limit-exceeded"
