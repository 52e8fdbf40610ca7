"""A subcluster for tests: two inside nodes as two programs, on one PostgreSQL and one NATS of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moim import app
from moim.net.resolver import Resolver
from nats_server import PrivateNats
from postgres import PrivatePostgres
from running_site import RunningSite, loopback_pair
from slixmpp_client import Client

_MORE = """
[nodes.others.inside2]
address = "{second}"

[store]
url = "postgresql://moim@/{database}?host={folder}"

[bus]
url = "{bus}"

[chat]
lease_seconds = 2

[chat.policies.inner]
federation = false
archive = false
"""


class TwoNodes:
    """Two machines: each its own directory, its own ``moim up``. ``sites`` by the node's name."""

    def __init__(self, folder: Path) -> None:
        self.postgres = PrivatePostgres()
        self.postgres.start()
        self.nats = PrivateNats()
        self.nats.start()
        first, second = loopback_pair()
        _, edge = loopback_pair()
        root = folder / "inside"
        app.create_site(root, domain="moim.test", demo=False, ports="dev", inside=first, edge_address=edge)
        url = self.postgres.database()
        with (root / "moim.toml").open("a") as file:
            file.write(_MORE.format(second=second, database=url.database, folder=self.postgres.home, bus=self.nats.url))
        asyncio.run(app._add_demo_users(app.open_site(root)))
        # What docs/operator.md has an operator do: the second machine gets a copy.
        shutil.copytree(root, folder / "inside2")
        self.addresses = {"inside": first, "inside2": second}
        self.sites = {name: RunningSite(folder / name) for name in self.addresses}
        for name in self.sites:
            self.start(name)

    def start(self, node: str) -> None:
        """Starts a node's program, and waits until it is ready."""
        self.sites[node].start(*(["--node", "edge"] if node == "inside" else []), "--node", node)

    def kill(self, node: str) -> None:
        """Ends a node's machine: supervisor and node, without a word."""
        site = self.sites[node]
        pids = [entry["pid"] for entry in site.status()["nodes"]]
        assert site.process is not None
        site.process.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        site.process.wait()

    def remove(self) -> None:
        """Ends everything."""
        for site in self.sites.values():
            if site.process is not None and site.process.poll() is None:
                site.stop()
        self.nats.remove()
        self.postgres.remove()

    def logs(self) -> str:
        """The ends of both nodes' logs."""
        return "".join(site.logs() for site in self.sites.values())


class Person(Client):
    """slixmpp with what a person's program does after a failure: it asks the name servers and tries every server."""

    def __init__(self, nodes: TwoNodes, name: str, *, room: str = "", managed: bool = False) -> None:
        super().__init__(nodes.sites["inside"], f"{name}@moim.test")
        self.nodes = nodes
        self.room = room
        self.nick = name.capitalize()
        self.register_plugin("xep_0045")
        self.register_plugin("xep_0313")
        self.register_plugin("xep_0334")
        if managed:
            self.register_plugin("xep_0198")
        self.refusals: asyncio.Queue[Any] = asyncio.Queue()
        self.add_event_handler("message_error", lambda m: self.refusals.put_nowait(m["error"]))
        self.joined = asyncio.Event()
        self.at = ""
        self.seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._leaving = False
        self._again: asyncio.Task[None] | None = None
        self.add_event_handler("disconnected", self._disconnected)
        self.add_event_handler("presence", lambda p: self.seen.put_nowait((str(p["from"]), p["type"])))
        self.whitespace_keepalive_interval = 2

    async def _start(self, event: object) -> None:
        await super()._start(event)
        if self.room:
            await self.enter()

    async def enter(self) -> None:
        """Joins the room, making it for everybody when it is not there."""
        muc: Any = self.plugin["xep_0045"]
        await muc.join_muc_wait(self.room, self.nick, timeout=20)
        self.joined.set()

    async def reach(self, *, prefer: str = "") -> None:
        """Signs in at the node ``prefer``, or at whichever of those that the name servers name answers."""
        order = [self.nodes.addresses[prefer]] if prefer else await self._found()
        self.online.clear()
        self.joined.clear()
        for address in order:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(address, 15222), 5)
            except (OSError, TimeoutError):
                continue
            writer.close()
            self.at = address
            self.enable_direct_tls, self.enable_starttls = False, True
            self.connect(address, 15222)
            await asyncio.wait_for(self.online.wait(), 30)
            return
        raise AssertionError(f"none of {order} answers")

    async def cut(self) -> None:
        """The network goes away, and neither side says a word; the program does not look for a server by itself."""
        self._leaving = True
        gone = asyncio.Event()
        self.add_event_handler("disconnected", lambda _: gone.set(), disposable=True)
        assert self.transport is not None
        self.transport.abort()
        await asyncio.wait_for(gone.wait(), 20)

    async def resume(self, node: str) -> None:
        """Comes back to a node, and goes on with its session there (XEP-0198)."""
        resumed = asyncio.Event()
        self.add_event_handler("session_resumed", lambda _: resumed.set(), disposable=True)
        self.at = self.nodes.addresses[node]
        self.connect(self.at, 15222)
        await asyncio.wait_for(resumed.wait(), 30)
        self._leaving = False

    async def _found(self) -> list[str]:
        resolver = Resolver([(address, 10053) for address in self.nodes.addresses.values()])
        records = (await resolver.services("_xmpp-client._tcp.moim.test")).services
        assert len(records) == 2
        return [self.nodes.addresses[record.target.partition(".")[0]] for record in records]

    def _disconnected(self, _reason: object) -> None:
        if not self._leaving:
            self._again = asyncio.get_running_loop().create_task(self.reach())

    async def leave(self) -> None:
        """Signs out for good."""
        self._leaving = True
        if self._again is not None:
            self._again.cancel()
        await self.disconnect()

    async def until_message(self, fits: Callable[[tuple[str, str]], bool]) -> tuple[str, str]:
        """The next message that fits."""
        while not fits(got := await self.message()):
            pass
        return got

    async def until_seen(self, sender: str, kind: str) -> None:
        """Waits for a presence."""
        while await asyncio.wait_for(self.seen.get(), 20) != (sender, kind):
            pass
