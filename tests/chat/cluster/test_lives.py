"""Nodes that end, begin anew, and find each other late: whoever is online is reached, wherever and since whenever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chat.cluster.conftest import NewNode, Pair, Waiting, arrived, die, leave
from chat.cluster.test_two_nodes import befriend, body, until
from moim.bus import Hub
from moim.chat.cluster import service
from moim.errors import Unavailable
from moim.proto.xmpp import Jid, ns


async def alone(house: Any) -> None:
    """Returns when a node knows that the other one is gone."""
    while house.service._cluster.alive():
        await asyncio.sleep(0.01)


def chat(client: Any, to: str, text: str) -> None:
    client.send(f"<message to='{to}' type='chat'><body>{text}</body></message>")


async def told(client: Any, *expected: str) -> list[str]:
    """Waits for these messages, by their text, and presence, by its sender, in any order; the texts in theirs."""
    missing, texts = set(expected), []
    while missing:
        stanza = await client.receive(f"waiting for {missing}")
        what = body(stanza) if stanza.name == "message" else stanza.get("from") or ""
        missing.discard(what)
        texts += [what] if stanza.name == "message" else []
    return texts


async def reach_each_other(one: Any, other: Any) -> None:
    """Messages to the bare and to the full address arrive on both sides."""
    for sender, recipient in ((one, other), (other, one)):
        for to in (recipient.jid, str(Jid.parse(recipient.jid).bare)):
            chat(sender, to, f"to {to}")
            assert body(await until(recipient, "message", sender=sender.jid)) == f"to {to}"


@pytest.mark.parametrize("end", [die, leave])
async def test_a_node_that_begins_anew_is_heard(
    pair: Pair, new_second: NewNode, hub: Hub, end: Callable[[Any, Hub], Awaitable[None]]
) -> None:
    """Also the one whose life was the newest of all."""
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await befriend(alice, bob)
    for _ in range(2):
        gone = bob.jid
        await end(there, hub)
        await alone(here)
        await until(alice, "presence", sender=gone, type="unavailable")
        there = await new_second(here)
        bob = await there.online("bob")
        await until(alice, "presence", sender=bob.jid, type=None)
        await reach_each_other(alice, bob)


async def test_a_node_that_is_back_before_it_was_missed(pair: Pair, new_second: NewNode, hub: Hub) -> None:
    """What was for its former life finds another way as soon as the new one is there."""
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await befriend(alice, bob)
    await die(there, hub)
    chat(alice, "bob@chat.test", "to the dead")
    chat(alice, bob.jid, "to the dead session")
    await alice.sync()
    there = await new_second(here)
    await until(alice, "presence", sender=bob.jid, type="unavailable")
    again = await there.client("bob", "again").connect()
    again.send("<presence/>")
    assert body(await until(again, "message")) == "to the dead"
    assert body(await until(again, "message")) == "to the dead session"
    await until(alice, "presence", sender=again.jid, type=None)
    await reach_each_other(alice, again)


async def test_nodes_that_find_each_other_after_their_clients_signed_in(
    new_first: NewNode, new_second: NewNode, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_READY_SECONDS", 0.01)
    here = await new_first()
    alice, bob = await here.online("alice", "a"), await here.online("bob", "b")
    await befriend(alice, bob)
    await bob.close()
    await hub.cut()
    there = await new_second(here)
    bob = await there.online("bob", "b")
    chat(alice, "bob@chat.test", "one")
    chat(alice, bob.jid, "two")
    await alice.sync()
    await hub.heal()
    assert await told(bob, "one", "two", alice.jid) == ["one", "two"]
    await until(alice, "presence", sender=bob.jid, type=None)
    await reach_each_other(alice, bob)


async def test_who_comes_and_goes_before_a_node_has_heard_everything_of_the_other(pair: Pair) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await befriend(alice, bob)
    await alice.close()
    await bob.close()
    go_on = asyncio.Event()

    async def busy(_peer: str, _item: Any) -> None:
        await go_on.wait()

    there.service._cluster._handlers["busy"] = busy
    there.service._cluster._live["inside"].clear()
    here.service._cluster.tell("inside2", ["busy"])
    alice = await here.online("alice", "a")
    bob = await there.online("bob", "b")
    await until(alice, "presence", sender=bob.jid, type=None)
    bob.send("<presence type='unavailable'/>")
    await until(alice, "presence", sender=bob.jid, type="unavailable")
    go_on.set()


async def test_a_node_that_was_taken_for_dead_goes_on_with_its_clients(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await befriend(alice, bob)
    first = here.service._cluster
    first.membership._task.cancel()
    await hub.cut()
    chat(alice, bob.jid, "while the bus was away")
    await until(bob, "presence", sender=alice.jid, type="unavailable")
    await hub.heal()
    await first.membership.beat()  # it hears that it lost everything, and begins anew
    chat(alice, bob.jid, "at once")
    texts = ["while the bus was away", "at once"]
    assert await told(bob, *texts, alice.jid) == texts
    await reach_each_other(alice, bob)
    await alice.quiet()


async def test_what_a_dead_node_said_last_makes_nobody_live(pair: Pair, hub: Hub) -> None:
    """It is worked on after the node was found to be dead."""
    here, there = pair
    alice = await here.online("alice", "a")
    cluster = here.service._cluster
    go_on = asyncio.Event()

    async def busy(_peer: str, _item: Any) -> None:
        await go_on.wait()

    cluster._handlers["busy"] = busy
    there.service._cluster.tell("inside", ["busy"])
    bob = await there.online("bob", "b")
    await die(there, hub)
    await alone(here)
    go_on.set()
    chat(alice, "bob@chat.test", "for later")
    await alice.sync()
    assert here.service._parts.accounts.session(Jid.parse(bob.jid)) is None
    again = await here.client("bob", "again").connect()
    again.send("<presence/>")
    assert body(await until(again, "message")) == "for later"


async def test_a_contact_list_that_cannot_be_read_hides_nobody(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair
    alice = await here.online("alice", "a")

    async def away(_bare: str) -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(here.service._parts.rosters, "get", away)
    bob = await there.online("bob", "b")
    await reach_each_other(alice, bob)


# --- what was handed to a node that dies before it is on disk ---------------------------------------------------------


async def test_a_message_that_a_dead_node_was_about_to_keep(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    parts, send = there.service._parts, there.bus.send
    waiting = parts.offline._store = Waiting(there.store)
    there.bus.send = lambda _subject, _body: False
    bob.drop()
    while parts.accounts.session(Jid.parse(bob.jid)) is not None:
        await asyncio.sleep(0.01)
    chat(alice, bob.jid, "not on disk")
    await waiting.reached.wait()
    there.bus.send = send
    for node in (here, there):
        await arrived(node)
    await die(there, hub)
    await alone(here)
    again = await here.client("bob", "again").connect()
    again.send("<presence/>")
    assert body(await until(again, "message")) == "not on disk"
    assert await again.request(f"<ping xmlns='{ns.PING}'/>")
    assert again.inbox.qsize() <= 1, "its own presence alone"
    waiting.over.set()
