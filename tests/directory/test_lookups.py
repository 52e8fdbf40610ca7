"""Who asks too often without signing in is told to wait; the source behind the edge counts, not the edge."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from moim import directory
from moim.directory.uds import Uds


class Links:
    host = "inside.example.com"
    domain = "example.com"
    nodes = ("inside.example.com",)
    base = "https://inside.example.com:8443/cucm-uds"
    profile_url = ""

    def device_url(self, name: str) -> str:
        return name


@pytest.fixture
def client(service: directory.Service) -> Callable[[str], httpx.AsyncClient]:
    uds = Uds(service.users, Links(), search_needs_sign_in=True, lookups_per_second=1, clock=lambda: 0.0)

    def connect(peer: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(uds.app, client=(peer, 40000))
        return httpx.AsyncClient(transport=transport, base_url="https://192.0.2.1")

    return connect


async def test_bound(client: Callable[[str], httpx.AsyncClient]) -> None:
    codes = [(await client("192.0.2.9").get("/cucm-uds/version")).status_code for _ in range(6)]
    assert codes == [200] * 5 + [503]
    assert (await client("192.0.2.8").get("/cucm-uds/version")).status_code == 200


@pytest.mark.parametrize(("peer", "believed"), [("127.0.0.1", True), ("192.0.2.1", True), ("192.0.2.9", False)])
async def test_forwarded_for_is_believed_of_this_machine_only(
    client: Callable[[str], httpx.AsyncClient], peer: str, believed: bool
) -> None:
    codes = []
    for number in range(6):
        headers = {"X-Forwarded-For": f"203.0.113.9, 198.51.100.{number}"}
        codes.append((await client(peer).get("/cucm-uds/version", headers=headers)).status_code)
    assert codes[-1] == (200 if believed else 503)
