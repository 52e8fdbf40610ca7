"""The admin API of federation, with and without a running service."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from federation_names import A, B
from moim.bus import Bus, Hub
from moim.errors import Unavailable
from moim.federation.routes import admin_routes
from moim.federation.service import Service
from moim.net import http_errors


def node(site: Any, bus: Bus, here: str = "inside", others: Iterable[str] = ()) -> Service:
    """The service of one node, as it is while ``site`` runs."""
    place: Any = SimpleNamespace(domain=A, domains=(A,), here=here, peers=others, section=lambda _: site.settings)
    service = Service(
        place, site.store, bus, credential=lambda _: pytest.fail("no certificate is asked for"), anchors=list
    )
    service.policies, service._running = site.policies, site.running
    service._cancel.append(service._nodes.start())
    return service


def api(service: Service) -> httpx.AsyncClient:
    """The admin API of a node."""
    app = Starlette(routes=admin_routes(service), exception_handlers=dict(http_errors.HANDLERS))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://moim")


@pytest.fixture
async def house(make: Any) -> AsyncIterator[SimpleNamespace]:
    """Two sites, and the API of the first."""
    a, b = await make(A), await make(B)
    service = node(a, Bus())
    async with api(service) as client:
        yield SimpleNamespace(a=a, b=b, client=client, service=service)


async def test_overview_and_peers(house: SimpleNamespace) -> None:
    before = (await house.client.get("/federation")).json()
    assert before["running"]
    assert before["domains"] == [A, f"rooms.{A}"]
    assert (await house.client.get("/federation/peers")).json() == {"peers": [], "missing": []}
    assert (await house.client.get(f"/federation/peers/{B}")).status_code == 404
    house.a.say(f"v@{B}")
    await house.b.hears()
    peer = (await house.client.get(f"/federation/peers/{B}")).json()
    assert peer["sent"] == 1
    assert any(stream["state"] == "open" for stream in peer["streams"])
    assert json.dumps(peer)


async def test_a_reset_ends_streams_and_pauses(house: SimpleNamespace) -> None:
    house.a.say(f"v@{B}")
    await house.b.hears()
    gone = (await house.client.delete(f"/federation/peers/{B.upper()}")).json()
    assert gone["streams"] >= 1
    await house.a.until(lambda: not house.a.running.peers.get(B).streams)
    house.a.say(f"v@{B}")
    await house.b.hears()


async def test_policies(house: SimpleNamespace) -> None:
    path = f"/federation/policies/{B}"
    set_ = await house.client.put(path, json={"access": "deny", "dialback": False})
    assert set_.json()["set"] == {"access": "deny", "dialback": False}
    assert set_.json()["counts"]["refusal"]
    listed = (await house.client.get("/federation/policies")).json()
    assert [one["domain"] for one in listed["policies"]] == [B]
    assert listed["defaults"]["tls"] == "required"
    house.a.say(f"v@{B}")
    assert (await house.a.hears())[0].get("type") == "error"
    assert (await house.client.delete(path)).status_code == 204
    assert (await house.client.delete(path)).status_code == 404
    assert (await house.client.get(path)).json()["set"] == {}
    for bad in ({"tls": "maybe"}, {"nonsense": 1}, {"certificates": "off", "dialback": False}):
        assert (await house.client.put(path, json=bad)).status_code == 400
    assert (await house.client.put("/federation/policies/not a domain", json={})).status_code == 400


async def test_the_check_needs_a_domain_and_a_running_service(house: SimpleNamespace) -> None:
    assert (await house.client.post("/federation/check", json={"domain": 1})).status_code == 400
    assert (await house.client.post("/federation/check", json={"domain": "a b"})).status_code == 400
    for wrong in ({"domain": B, "from": 1}, {"domain": B, "from": "c.example"}):
        assert (await house.client.post("/federation/check", json=wrong)).status_code == 400
    house.service._running = None
    answer = await house.client.post("/federation/check", json={"domain": B})
    assert answer.json()["error"]["code"] == "unavailable"
    assert (await house.client.get("/federation/peers")).json() == {"peers": [], "missing": []}
    assert (await house.client.delete(f"/federation/peers/{B}")).status_code == 503
    with pytest.raises(Unavailable):
        house.service.check(B)


async def test_every_node_shows_its_streams_and_ends_them(make: Any) -> None:
    """Two nodes of a.example on one bus, each with its own streams to b.example."""
    one, b = await make(A), await make(B)
    two = await make(A, beside=one)
    hub = Hub()
    nodes = node(one, Bus(hub), "inside", ["inside2"]), node(two, Bus(hub), "inside2", ["inside"])
    for site in (one, two):
        site.say(f"v@{B}")
        await b.hears()
    one.running.peers.note(B, "an older failure")
    two.now = 60
    two.running.peers.note(B, "the latest failure")
    async with api(nodes[0]) as client:
        answer = (await client.get("/federation/peers")).json()
        assert answer["missing"] == []
        [row] = answer["peers"]
        assert {stream["node"] for stream in row["streams"]} == {"inside", "inside2"}
        assert row["sent"] == 2
        gone = (await client.delete(f"/federation/peers/{B}")).json()
        assert gone["missing"] == []
        assert gone["streams"] >= 2
        await two.until(lambda: not len(two.running.streams))
        await hub.cut()
        two.say(f"v@{B}")
        await b.hears()
        answer = (await client.get(f"/federation/peers/{B}")).json()
        assert answer["missing"] == ["inside2"]
        assert not answer["streams"]
        assert (await client.delete(f"/federation/peers/{B}")).json() == {
            "domain": B,
            "streams": 0,
            "missing": ["inside2"],
        }


async def test_a_policy_counts_on_every_node_at_once(make: Any) -> None:
    one, b = await make(A), await make(B)
    two = await make(A, beside=one)
    hub = Hub()
    nodes = node(one, Bus(hub), "inside", ["inside2"]), node(two, Bus(hub), "inside2", ["inside"])
    two.say(f"v@{B}")
    await b.hears()
    async with api(nodes[0]) as client:
        assert (await client.put(f"/federation/policies/{B}", json={"access": "deny"})).is_success
    two.say(f"v@{B}")
    [refused] = await two.hears()
    assert refused.get("type") == "error"
