"""What must survive: the inside node killed while people are signed in, the edge killed, the tunnel gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from moim.proto.xmpp import ns
from raw_xmpp import RawXmpp
from running_site import RunningSite
from slixmpp_client import Client
from stanza_parts import child

HELD = "<message to='carol@moim.test' type='chat' id='held'><body>held</body></message>"


async def until(check: Callable[[], object], timeout: float = 30) -> None:
    """Waits for a condition that only the status of another process shows."""
    async with asyncio.timeout(timeout):
        while not await asyncio.to_thread(check):
            await asyncio.sleep(0.1)


def pid(site: RunningSite, node: str) -> int:
    number: int = next(n["pid"] for n in site.status()["nodes"] if n["name"] == node)
    return number


@contextmanager
def locked(site: RunningSite) -> Iterator[None]:
    """Within, nobody else writes to the database."""
    with closing(sqlite3.connect(site.root / "inside" / "moim.db", isolation_level=None, timeout=20)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield


async def counting(site: RunningSite, resume: str = "") -> tuple[RawXmpp, str]:
    """Bob in a session with stream management, and its token."""
    tls = ssl.create_default_context(cafile=str(site.ca))
    bob = await RawXmpp.open(site.place("xmpp-client-tls"), "moim.test", tls)
    bind = f"{resume}<bind xmlns='{ns.BIND2}'><enable xmlns='{ns.SM}' resume='true'/></bind>"
    success = await bob.scram("bob", site.passwords["bob@moim.test"], bind)
    assert success.find("resumed", ns.SM) is None
    return bob, child(success, ("bound", ns.BIND2), ("enabled", ns.SM)).get("id") or ""


async def test_inside_killed_comes_back_and_loses_nothing_stored(own_site: RunningSite) -> None:
    alice = Client(own_site, "alice@moim.test")
    await alice.sign_in(own_site, "xmpp-client")
    for number in range(20):
        alice.send_message("carol@moim.test", f"기억해 {number}")
    await alice.plugin["xep_0199"].ping("moim.test", timeout=10)

    gone = asyncio.Event()
    alice.add_event_handler("disconnected", lambda _: gone.set())
    before = pid(own_site, "inside")
    bob, token = await counting(own_site)
    with locked(own_site):
        bob.say(HELD + f"<r xmlns='{ns.SM}'/>")
        assert (await bob.element()).get("h") == "0", "it is not on disk"
        os.kill(before, signal.SIGKILL)
        await asyncio.wait_for(gone.wait(), 20)
    await until(lambda: own_site.status()["ready"] and pid(own_site, "inside") != before)
    assert next(n["restarts"] for n in own_site.status()["nodes"] if n["name"] == "inside") == 1
    assert any("killed by SIGKILL" in line for line in own_site.output)

    again, carol = Client(own_site, "alice@moim.test"), Client(own_site, "carol@moim.test")
    await again.sign_in(own_site, "xmpp-client")
    await carol.sign_in(own_site, "edge-xmpp")
    assert [await carol.message() for _ in range(20)] == [("alice@moim.test", f"기억해 {n}") for n in range(20)]
    bob, _ = await counting(own_site, f"<resume xmlns='{ns.SM}' previd='{token}' h='0'/>")
    bob.say(HELD)  # as every client does with what was not acknowledged
    assert await carol.message() == ("bob@moim.test", "held")
    await bob.close()
    again.send_message("carol@moim.test", "다시 여기")
    assert await carol.message() == ("alice@moim.test", "다시 여기")
    await asyncio.gather(again.disconnect(), carol.disconnect())


async def test_edge_killed_comes_back_and_serves(own_site: RunningSite) -> None:
    before = pid(own_site, "edge")
    os.kill(before, signal.SIGKILL)
    await until(lambda: own_site.status()["ready"] and pid(own_site, "edge") != before)
    bob = Client(own_site, "bob@moim.test")
    await bob.sign_in(own_site, "edge-xmpp")
    await bob.disconnect()
