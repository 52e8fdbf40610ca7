"""Two sites' federation over a network of planes in memory: real policies, machines, queues; fake DNS and sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from moim import federation
from moim.federation import status
from moim.federation.chains import Anchors, now_utc
from moim.federation.locating import Dns
from moim.federation.policies import Policies
from moim.federation.running import Running
from moim.federation.settings import Settings
from moim.proto.xmpp import Element, ns
from moim.store import Store, migrate
from s2s_network import FakeDns, FakePlane, Network


class Site:
    """One site: ``got`` is what its chat room was given."""

    def __init__(
        self,
        network: Network,
        dns: Dns,
        store: Store,
        domain: str,
        address: str,
        *,
        shows: Sequence[bytes] = (),
        trusts: Anchors | None = None,
        **settings: Any,
    ) -> None:
        self.domain, self.address = domain, address
        self.hosts = [domain, f"rooms.{domain}"]
        self.services = [f"rooms.{domain}"]
        self.servers = FakePlane(network, address, {"": shows})
        usual: dict[str, Any] = {"target_networks": ("10.0.0.0/8",), "posh": False}
        self.settings = Settings(**(usual | settings))
        self.store = store
        self.policies = Policies(self.settings, store)
        self.got: list[Element] = []
        self.overs: list[Callable[[bool], None] | None] = []
        self.held = 0
        """Messages that wait, and must not be acknowledged."""
        self.arrived = asyncio.Event()
        self._dns, self._trusts = dns, trusts or Anchors([])
        self.now = 0.0
        self.later = timedelta()

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.now

    def today(self) -> datetime:
        return now_utc() + self.later

    async def start(self) -> Site:
        await self.policies.load()
        keys = await self.policies.keys()
        self.running = Running(
            self, self.settings, self.policies, keys, self._trusts, lambda: [(self.address, 5269)],
            dns=self._dns, clock=self.clock, today=self.today,
        )  # fmt: skip
        self.running.streams.start()
        self.servers.listen("xmpp-server", self.address, 5269, "server")
        self.servers.listen("xmpp-server-tls", self.address, 5270, "server-tls")
        return self

    async def stop(self) -> None:
        await self.running.stop()

    def remote_stanza(self, stanza: Element, over: Callable[[bool], None] | None = None) -> None:
        self.got.append(stanza)
        self.overs.append(over)
        self.arrived.set()

    def hold(self) -> Callable[[], None] | None:
        self.held += 1
        return self._release

    def _release(self) -> None:
        self.held -= 1

    def say(self, to: str, text: str = "hello", *, sender: str = "") -> None:
        attrs = {"from": sender or f"u@{self.domain}/r", "to": to, "type": "chat", "id": text}
        self.running.peers.send(Element("message", ns.CLIENT, attrs, (Element("body", ns.CLIENT, {}, (text,)),)))

    async def hears(self, count: int = 1) -> list[Element]:
        """Waits until its chat room was given so many stanzas since the last call, and takes them."""
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.arrived.clear()
                await self.arrived.wait()
        taken, self.got = self.got[:count], self.got[count:]
        return taken

    def row(self, domain: str) -> dict[str, Any]:
        """What the status says of a domain; its streams are those that are open."""
        rows = status.peers(self.running, self.policies)
        found: dict[str, Any] = next((row for row in rows if row["domain"] == domain), {"streams": []})
        return found | {"streams": [stream for stream in found["streams"] if stream["state"] == "open"]}

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


Make = Callable[..., Awaitable[Site]]


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def dns() -> FakeDns:
    found = FakeDns()
    for number, domain in enumerate(("a.example", "b.example"), 1):
        found.hosts[f"x.{domain}"] = [f"10.0.0.{number}"]
        for host in (domain, f"rooms.{domain}"):
            found.srv[f"_xmpp-server._tcp.{host}"] = [(0, 0, 5269, f"x.{domain}")]
    return found


@pytest.fixture
async def make(network: Network, dns: FakeDns, tmp_path: Path) -> AsyncIterator[Make]:
    sites: list[Site] = []
    stores: list[Store] = []

    async def work(domain: str, **options: Any) -> Site:
        beside: Site | None = options.pop("beside", None)  # another node of the same site: one database
        if beside is None:
            path = tmp_path / f"{domain}-{len(stores)}.db"
            migrate(path, [Path(federation.__path__[0]) / "migrations"])
            stores.append(Store(path))
        store = stores[-1] if beside is None else beside.store
        address = dns.hosts[f"x.{domain}"][0]
        site = Site(network, options.pop("dns", dns), store, domain, address, **options)
        sites.append(site)
        return await site.start()

    yield work
    for site in sites:
        await site.stop()
    for store in stores:
        store.close()
