"""Two Moim sites, each found by the other's own name server: people of both with slixmpp, unmodified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import pytest

from federated_sites import two_sites
from running_site import RunningSite
from slixmpp_client import Client

ALICE, BOB, CAROL = "alice@a.test", "bob@b.test", "carol@b.test"


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningSite, RunningSite]]:
    a, b = two_sites(tmp_path_factory.mktemp("federated"), trusting=True)
    yield a, b
    for site in (a, b):
        site.stop()


class Person(Client):
    """Somebody whose subscriptions, presence and room events are kept in queues, and who agrees to everything."""

    def __init__(self, site: RunningSite, address: str) -> None:
        super().__init__(site, address)
        self.site = site
        self.seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.room: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.errors: asyncio.Queue[str] = asyncio.Queue()
        self.register_plugin("xep_0045")
        self.register_plugin("xep_0030")
        self.auto_authorize = self.auto_subscribe = True
        self.add_event_handler("presence_available", lambda p: self.seen.put_nowait((p["from"].bare, "there")))
        self.add_event_handler("presence_unavailable", lambda p: self.seen.put_nowait((p["from"].bare, "gone")))
        self.add_event_handler("groupchat_message", lambda m: self.room.put_nowait((m["from"].resource, m["body"])))
        self.add_event_handler("message_error", lambda m: self.errors.put_nowait(m["error"]["text"]))

    async def sees(self, address: str, state: str) -> None:
        async with asyncio.timeout(20):
            while await self.seen.get() != (address, state):
                pass


@pytest.fixture
async def people(sites: tuple[RunningSite, RunningSite]) -> AsyncIterator[dict[str, Person]]:
    a, b = sites
    found = {address: Person(a if address.endswith("a.test") else b, address) for address in (ALICE, BOB, CAROL)}
    yield found
    for person in found.values():
        person.disconnect(wait=0.5)


async def test_contacts_presence_chat_and_a_room_across_domains(
    sites: tuple[RunningSite, RunningSite], people: dict[str, Person]
) -> None:
    a, b = sites
    alice, bob, carol = people[ALICE], people[BOB], people[CAROL]
    await asyncio.gather(alice.sign_in(a, "xmpp-client"), bob.sign_in(b, "xmpp-client"))

    alice.send_presence_subscription(BOB, ptype="subscribe")
    await asyncio.gather(alice.sees(BOB, "there"), bob.sees(ALICE, "there"))
    async with asyncio.timeout(20):
        while alice.client_roster[BOB]["subscription"] != "both":
            await asyncio.sleep(0.05)

    alice.send_message(BOB, "hello", mtype="chat")
    assert await bob.message() == (ALICE, "hello")
    bob.send_message(ALICE, "hello yourself", mtype="chat")
    assert await alice.message() == (BOB, "hello yourself")

    room = "meeting@rooms.a.test"
    await alice.plugin["xep_0045"].join_muc_wait(room, "alice", maxstanzas=0, timeout=15)
    await alice.plugin["xep_0045"].set_room_config(room, _instant(alice))
    await bob.plugin["xep_0045"].join_muc_wait(room, "bob", maxstanzas=0, timeout=15)
    bob.send_message(room, "from afar", mtype="groupchat")
    assert await asyncio.wait_for(alice.room.get(), 20) == ("bob", "from afar")
    alice.send_message(room, "from here", mtype="groupchat")
    async with asyncio.timeout(20):
        while await bob.room.get() != ("alice", "from here"):
            pass

    info = await bob.plugin["xep_0030"].get_info(jid="a.test", timeout=15)
    assert ("server", "im") in {(kind[0], kind[1]) for kind in info["disco_info"]["identities"]}

    # Somebody who is away gets it later.
    alice.send_message(CAROL, "for later", mtype="chat")
    await asyncio.sleep(0)
    await carol.sign_in(b, "xmpp-client")
    assert await carol.message() == (ALICE, "for later")

    bob.disconnect()
    await alice.sees(BOB, "gone")

    peers = json.loads(a.moim("federation", "status", "--json").stdout)["peers"]
    peer = next(one for one in peers if one["domain"] == "b.test")
    open_streams = [one for one in peer["streams"] if one["state"] == "open"]
    assert {one["certificate"] for one in open_streams} == {"pkix"}
    assert {one["authenticatedBy"] for one in open_streams} == {"external"}
    assert open_streams[0]["tls"]["version"] == "TLSv1.3"


def _instant(client: Person) -> object:
    return client.plugin["xep_0004"].make_form(ftype="submit")


async def test_a_policy_set_while_running_counts_and_the_sender_hears_why(
    sites: tuple[RunningSite, RunningSite], people: dict[str, Person]
) -> None:
    a, _ = sites
    alice = people[ALICE]
    await alice.sign_in(a, "xmpp-client")
    a.moim("federation", "policy", "set", "b.test", "--access", "deny")
    alice.send_message(BOB, "hello?", mtype="chat")
    assert "exchanges nothing with b.test" in await asyncio.wait_for(alice.errors.get(), 20)
    a.moim("federation", "policy", "remove", "b.test")
    alice.send_message("somebody@nowhere.test", "hello?", mtype="chat")
    assert "nowhere.test" in await asyncio.wait_for(alice.errors.get(), 20)
