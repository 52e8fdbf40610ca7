"""Two inside nodes as real programs: chat across them, and what happens when a node, the bus or the database dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from slixmpp.exceptions import IqError

from two_nodes import Person, TwoNodes

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

ROOM = "tea@rooms.moim.test"
OTHER_ROOM = "coffee@rooms.moim.test"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    nodes = TwoNodes(tmp_path_factory.mktemp("subcluster"))
    yield nodes
    nodes.remove()


@pytest.fixture
async def people(nodes: TwoNodes) -> AsyncIterator[Any]:
    made: list[Person] = []

    async def sign_in(name: str, node: str, *, room: str = "", managed: bool = False) -> Person:
        person = Person(nodes, name, room=room, managed=managed)
        made.append(person)
        await person.reach(prefer=node)
        return person

    yield sign_in
    for person in made:
        await person.leave()


def says(text: str) -> Any:
    return lambda message: message[1] == text


async def written(person: Person) -> None:
    """Changes the contact list; while the database is on its way back, this is refused and tried again."""
    while True:
        try:
            await person.update_roster("dave@moim.test", name="Dave")
        except IqError as error:
            if error.condition != "internal-server-error":
                raise
        else:
            return


async def archived(person: Person, other: str) -> set[str]:
    """What the person's archive has of one conversation."""
    answer = await person.plugin["xep_0313"].retrieve(with_jid=other)
    return {str(message["mam_result"]["forwarded"]["stanza"]["body"]) for message in answer["mam"]["results"]}


async def open_room(person: Person) -> None:
    """Lets everybody into the room that the person made."""
    muc: Any = person.plugin["xep_0045"]
    form = await muc.get_room_config(person.room)
    form["type"] = "submit"
    form.set_values({"muc#roomconfig_persistentroom": True})
    await muc.set_room_config(person.room, form)


async def test_chat_across_the_nodes(nodes: TwoNodes, people: Any) -> None:
    alice = await people("alice", "inside")
    bob = await people("bob", "inside2")
    await alice.until_seen(bob.boundjid.full, "available")
    alice.send_message("bob@moim.test", "hello", mtype="chat")
    assert await bob.message() == ("alice@moim.test", "hello")
    bob.send_message(alice.boundjid.full, "hi", mtype="chat")
    assert await alice.message() == ("bob@moim.test", "hi")


async def test_other_domains_are_every_nodes_affair(nodes: TwoNodes, people: Any) -> None:
    """A policy that is set on one node counts on the other at once, and the status is that of both."""
    first = nodes.sites["inside"]
    bob = await people("bob", "inside2")
    await asyncio.to_thread(first.moim, "federation", "policy", "set", "nobody.example", "--access", "deny")
    bob.send_message("somebody@nobody.example", "hello", mtype="chat")
    error = await asyncio.wait_for(bob.refusals.get(), 30)
    assert (error["condition"], error["type"]) == ("not-allowed", "cancel")
    shown = await asyncio.to_thread(first.moim, "federation", "status", "--json")
    assert json.loads(shown.stdout)["missing"] == []


async def test_a_policy_counts_on_every_node_at_once(nodes: TwoNodes, people: Any) -> None:
    alice, bob = await people("alice", "inside"), await people("bob", "inside2")
    await alice.until_seen(bob.boundjid.full, "available")
    for policy in ("inner", "--clear"):
        for name, node in (("alice", "inside2"), ("bob", "inside")):
            await asyncio.to_thread(nodes.sites[node].moim, "user", "policy", f"{name}@moim.test", policy)
        for person, other in ((alice, bob), (bob, alice)):
            person.send_message("somebody@nobody.example", "out", mtype="chat")
            closed = policy == "inner"
            error = await asyncio.wait_for(person.refusals.get(), 30)
            assert (error["condition"] == "forbidden") is closed
            person.send_message(other.boundjid.bare, f"{policy} of {person.boundjid.user}", mtype="chat")
            await other.until_message(says(f"{policy} of {person.boundjid.user}"))
            if closed:
                with pytest.raises(IqError, match="service-unavailable"):
                    await archived(person, other.boundjid.bare)
    for person, other in ((alice, bob), (bob, alice)):
        found = await archived(person, other.boundjid.bare)
        assert {"--clear of alice", "--clear of bob"} <= found
        assert not {text for text in found if text.startswith("inner")}


async def test_a_session_goes_on_at_the_other_node_and_outlives_the_first(nodes: TwoNodes, people: Any) -> None:
    bob = await people("bob", "inside2", room=OTHER_ROOM)
    await open_room(bob)
    carol = await people("carol", "inside")
    alice = await people("alice", "inside", room=OTHER_ROOM, managed=True)
    await bob.until_seen(alice.boundjid.full, "available")
    full = str(alice.boundjid)
    started: list[object] = []
    alice.add_event_handler("session_start", started.append)
    await alice.cut()
    for n in range(20):
        carol.send_message(full, f"near {n}", mtype="chat")
        bob.send_message(full, f"far {n}", mtype="chat")
        bob.send_message(OTHER_ROOM, f"room {n}", mtype="groupchat")
    for sender in (bob, carol):
        await sender.plugin["xep_0199"].ping("moim.test", timeout=20)
    await alice.resume("inside2")
    nodes.kill("inside")
    for n in range(20, 40):
        bob.send_message(full, f"far {n}", mtype="chat")
        bob.send_message(OTHER_ROOM, f"room {n}", mtype="groupchat")
    heard = [text for _, text in [await alice.message() for _ in range(100)] if text]
    for tag, count in (("near", 20), ("far", 40), ("room", 40)):
        assert [text for text in heard if text.startswith(tag)] == [f"{tag} {n}" for n in range(count)]
    assert (str(alice.boundjid), started) == (full, [])
    alice.send_message(OTHER_ROOM, "still here", mtype="groupchat")
    await bob.until_message(says("still here"))
    nodes.start("inside")


async def test_a_node_is_killed(nodes: TwoNodes, people: Any) -> None:
    alice = await people("alice", "inside", room=ROOM)
    await open_room(alice)
    bob = await people("bob", "inside2", room=ROOM)
    carol = await people("carol", "inside2", room=ROOM)
    bob.send_message(ROOM, "before", mtype="groupchat")
    await alice.until_message(says("before"))
    await bob.leave()  # what is said to him now waits for him
    await carol.until_seen(bob.boundjid.full, "unavailable")
    nodes.kill("inside")
    # In order: on the dead node's link, to the dead node's user, and after her program found the other node.
    carol.send_message("alice@moim.test", "are you there?", mtype="chat")
    carol.send_message("bob@moim.test", "for later", mtype="chat")
    await asyncio.wait_for(alice.joined.wait(), 60)
    while alice.at != nodes.addresses["inside2"]:
        await alice.joined.wait()
        await asyncio.sleep(0)
    await alice.until_message(says("are you there?"))
    alice.send_message(ROOM, "after", mtype="groupchat")
    await carol.until_message(says("after"))
    carol.send_message("alice@moim.test", "again", mtype="chat")
    await alice.until_message(says("again"))
    bob = await people("bob", "inside2")
    await bob.until_message(says("for later"))
    assert {"are you there?", "again"} <= await archived(alice, "carol@moim.test")
    nodes.start("inside")
    dave = await people("carol", "inside")
    dave.send_message("bob@moim.test", "from the new life", mtype="chat")
    await bob.until_message(says("from the new life"))


async def test_the_bus_is_killed(nodes: TwoNodes, people: Any) -> None:
    alice, carol = await people("alice", "inside"), await people("carol", "inside")
    bob = await people("bob", "inside2")
    await alice.until_seen(bob.boundjid.full, "available")
    nodes.nats.kill()
    alice.send_message(bob.boundjid.full, "over a dead bus", mtype="chat")
    alice.send_message(carol.boundjid.full, "local", mtype="chat")
    await carol.until_message(says("local"))
    nodes.nats.start()
    await bob.until_message(says("over a dead bus"))
    bob.send_message(alice.boundjid.full, "back", mtype="chat")
    await alice.until_message(says("back"))


async def test_the_database_is_stopped(nodes: TwoNodes, people: Any) -> None:
    alice, bob = await people("alice", "inside"), await people("bob", "inside2")
    await alice.until_seen(bob.boundjid.full, "available")
    nodes.postgres.stop()
    # What is to be kept is refused in plain words; what need not be goes on.
    alice.send_message(bob.boundjid.full, "for the archive", mtype="chat")
    error = await asyncio.wait_for(alice.refusals.get(), 60)
    assert (error["condition"], error["type"]) == ("internal-server-error", "wait")
    passing = alice.make_message(bob.boundjid.full, "without a database", mtype="chat")
    passing.enable("no-store")
    passing.send()
    await bob.until_message(says("without a database"))
    with pytest.raises(IqError) as refused:
        await alice.update_roster("dave@moim.test", name="Dave")
    assert refused.value.condition == "internal-server-error"
    nodes.postgres.start()
    for person in (alice, bob):  # each node finds the database again by itself
        await written(person)
    bob.send_message(alice.boundjid.full, "still here", mtype="chat")
    await alice.until_message(says("still here"))


async def test_a_node_is_stopped(nodes: TwoNodes, people: Any) -> None:
    room = "coffee@rooms.moim.test"
    bob = await people("bob", "inside", room=room)
    await open_room(bob)
    alice = await people("alice", "inside2", room=room)
    alice.online.clear()
    alice.joined.clear()
    await asyncio.to_thread(nodes.sites["inside2"].stop)
    await asyncio.wait_for(alice.joined.wait(), 60)
    assert alice.at == nodes.addresses["inside"]
    bob.send_message(room, "still here", mtype="groupchat")
    await alice.until_message(says("still here"))
    assert "did not stop in time" not in nodes.sites["inside2"].logs()
    shown = await asyncio.to_thread(nodes.sites["inside"].moim, "federation", "status", "--json")
    assert json.loads(shown.stdout)["missing"] == ["inside2"]
    await asyncio.to_thread(nodes.start, "inside2")
    carol = await people("carol", "inside2")
    for sender, recipient in ((carol, bob), (bob, carol)):
        sender.send_message(recipient.boundjid.bare, "back again", mtype="chat")
        await recipient.until_message(says("back again"))
