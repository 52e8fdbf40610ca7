"""Rooms in a subcluster: joined from both nodes, and gone on with when the node that ran them leaves or dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chat.cluster.conftest import Pair, Waiting, arrived, die, leave
from moim.bus import Hub
from moim.proto.xmpp import Element, ns

ROOM = "tea@rooms.chat.test"


async def until(client: Any, name: str, matches: Callable[[Element], bool]) -> Element:
    """The next stanza that fits; others are passed over."""
    while True:
        stanza: Element = await client.receive(f"waiting for <{name}>")
        if stanza.name == name and matches(stanza):
            return stanza


async def enter(client: Any, nick: str) -> None:
    """Joins the room; returns when the subject came."""
    client.send(f"<presence to='{ROOM}/{nick}'><x xmlns='{ns.MUC}'/></presence>")
    await until(client, "message", lambda stanza: stanza.find("subject") is not None)


async def open_room(client: Any, *, persistent: bool = False) -> None:
    """Lets others into a room that was made by entering."""
    fields = "".join(
        f"<field var='{var}'><value>{value}</value></field>"
        for var, value in (
            ("FORM_TYPE", "http://jabber.org/protocol/muc#roomconfig"),
            ("muc#roomconfig_persistentroom", int(persistent)),
        )
    )
    form = f"<x xmlns='jabber:x:data' type='submit'>{fields}</x>"
    answer = await client.request(f"<query xmlns='{ns.MUC_OWNER}'>{form}</query>", kind="set", to=ROOM)
    assert answer.get("type") == "result", answer.to_xml()


def says(text: str) -> Callable[[Element], bool]:
    """Whether a message says this."""
    return lambda stanza: (body := stanza.find("body")) is not None and body.text == text


def say(client: Any, text: str) -> None:
    """Says something in the room."""
    client.send(f"<message to='{ROOM}' type='groupchat'><body>{text}</body></message>")


def leaves(nick: str) -> Callable[[Element], bool]:
    """Whether a presence says that somebody left the room."""
    return lambda stanza: stanza.get("from") == f"{ROOM}/{nick}" and stanza.get("type") == "unavailable"


async def test_people_of_both_nodes_meet(pair: Pair) -> None:
    here, there = pair
    bob, alice = await there.online("bob", "b"), await here.online("alice", "a")
    await enter(bob, "Bob")  # the rooms are on the other node
    await open_room(bob)
    await enter(alice, "Alice")
    await until(bob, "presence", lambda stanza: stanza.get("from") == f"{ROOM}/Alice")
    for speaker in (alice, bob):
        say(speaker, f"from {speaker.jid}")
        for listener in (alice, bob):
            got = await until(listener, "message", says(f"from {speaker.jid}"))
            assert got.get("to") == listener.jid
    listed = [await c.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="rooms.chat.test") for c in (alice, bob)]
    assert all(ROOM in answer.to_xml() for answer in listed)
    bob.drop()
    await until(alice, "presence", leaves("Bob"))


@pytest.mark.parametrize("end", [die, leave])
@pytest.mark.parametrize("persistent", [True, False])
async def test_rooms_go_on_without_the_node_that_ran_them(
    pair: Pair, hub: Hub, end: Callable[[Any, Hub], Awaitable[None]], persistent: bool
) -> None:
    here, there = pair
    alice, bob, carol = await here.online("alice", "a"), await there.online("bob", "b"), await there.online("carol")
    await enter(alice, "Alice")
    await open_room(alice, persistent=persistent)
    await enter(bob, "Bob")
    await enter(carol, "Carol")
    say(alice, "before")
    await until(bob, "message", says("before"))
    seats = here.service._parts.rooms._seats
    await seats.drain()
    await end(here, hub)
    await until(bob, "presence", leaves("Alice"))
    say(bob, "after")
    for client in (bob, carol):
        assert (await until(client, "message", says("after"))).get("from") == f"{ROOM}/Bob"
    back = await there.online("alice", "again")
    back.send(f"<presence to='{ROOM}/Alice'><x xmlns='{ns.MUC}'/></presence>")
    own = await until(back, "presence", lambda stanza: "code='110'" in stanza.to_xml())
    assert "affiliation='owner'" in own.to_xml()
    if persistent:
        await until(back, "message", says("before"))
    assert (await until(back, "message", says("after"))).get("from") == f"{ROOM}/Bob"
    for client in (bob, carol, back):
        client.send(f"<presence to='{ROOM}/x' type='unavailable'/>")
        await client.sync()
    items = await back.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="rooms.chat.test")
    assert (ROOM in items.to_xml()) is persistent


async def test_people_of_a_dead_node_leave_their_rooms(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await enter(alice, "Alice")
    await open_room(alice)
    await enter(bob, "Bob")
    await die(there, hub)
    await until(alice, "presence", leaves("Bob"))
    say(alice, "alone")
    await until(alice, "message", says("alone"))


async def test_a_node_that_was_taken_for_dead_gives_the_rooms_up(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await enter(alice, "Alice")
    await open_room(alice)
    await enter(bob, "Bob")
    first, second = here.service._cluster, there.service._cluster
    first.membership._task.cancel()
    await hub.cut()
    await until(bob, "presence", leaves("Alice"))
    await hub.heal()
    await first.membership.beat()  # it hears that it lost everything, and begins anew
    assert here.service._parts.rooms._rooms is None
    assert first.membership.epoch > second.membership.epoch
    await first._live["inside2"].wait()
    await enter(alice, "Alice")
    await until(bob, "presence", lambda stanza: stanza.get("from") == f"{ROOM}/Alice" and stanza.get("type") is None)
    say(bob, "together")
    for client in (alice, bob):
        await until(client, "message", says("together"))


async def test_what_was_said_in_a_room_of_a_dead_node(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await enter(alice, "Alice")
    await open_room(alice, persistent=True)
    await enter(bob, "Bob")
    await here.service._parts.rooms._seats.drain()
    say(bob, "before")
    await until(bob, "message", says("before"))
    waiting = here.service._parts.archive.intake._store = Waiting(here.store)
    say(bob, "not on disk")
    await waiting.reached.wait()
    await bob.sync()
    await arrived(there)
    await die(here, hub)
    await until(bob, "message", says("not on disk"))
    say(bob, "after")
    await until(bob, "message", says("after"))
    waiting.over.set()
