"""Contact lists over restarts and versions, and lists that several sessions change at once."""

from __future__ import annotations

import asyncio
from typing import Any

from moim.proto.xmpp import Element, ns

GET = f"<query xmlns='{ns.ROSTER}'/>"


def item(jid: str, **attrs: str) -> str:
    more = "".join(f" {key}='{value}'" for key, value in attrs.items())
    return f"<query xmlns='{ns.ROSTER}'><item jid='{jid}'{more}/></query>"


def contacts(answer: Element) -> dict[str, tuple[str | None, str | None]]:
    query = answer.find("query", ns.ROSTER)
    assert query is not None
    return {str(i.get("jid")): (i.get("name"), i.get("subscription")) for i in query.elements()}


async def test_versions_name_the_list_as_it_is(house: Any) -> None:
    alice = await house.client("alice").connect()
    empty = (await alice.request(f"<query xmlns='{ns.ROSTER}' ver=''/>")).find("query", ns.ROSTER).get("ver")
    assert (await alice.request(f"<query xmlns='{ns.ROSTER}' ver='{empty}'/>")).elements() == []
    await alice.request(item("x@y.test", name="X"), kind="set")
    push = await alice.receive()
    version = push.find("query", ns.ROSTER).get("ver")
    assert version != empty
    assert (await alice.request(f"<query xmlns='{ns.ROSTER}' ver='{version}'/>")).elements() == []
    full = await alice.request(f"<query xmlns='{ns.ROSTER}' ver='{empty}'/>")
    assert full.find("query", ns.ROSTER).get("ver") == version
    assert contacts(full) == {"x@y.test": ("X", "none")}
    await house.restart()
    alice = await house.client("alice").connect()
    assert (await alice.request(f"<query xmlns='{ns.ROSTER}' ver='{version}'/>")).elements() == []
    assert (await alice.request(GET)).find("query", ns.ROSTER).get("ver") is None


async def test_they_survive_a_restart(house: Any) -> None:
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    await alice.request(item("bob@chat.test", name="밥"), kind="set")
    alice.send("<presence to='bob@chat.test' type='subscribe'/>")
    await alice.sync()
    bob.send("<presence to='alice@chat.test' type='subscribed'/>")
    await bob.sync()
    await house.restart()
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    assert contacts(await alice.request(GET)) == {"bob@chat.test": ("밥", "to")}
    assert contacts(await bob.request(GET)) == {"alice@chat.test": (None, "from")}


async def test_every_session_that_asked_hears_of_changes(house: Any) -> None:
    one, two = await house.online("alice", "1"), await house.online("alice", "2")
    deaf = await house.client("alice", "3").connect()
    await one.receive()  # the presence of the second
    await one.request(item("x@y.test"), kind="set")
    for client in (one, two):
        push = await client.receive()
        assert push.get("to") == client.jid
        assert push.get("from") is None
    await deaf.quiet()


async def test_sessions_that_change_the_list_at_once_lose_nothing(house: Any) -> None:
    sessions = [await house.client("alice", str(number)).connect() for number in range(4)]

    async def add(session: Any, which: int) -> None:
        for number in range(15):
            await session.request(item(f"c{number}@x{which}.test"), kind="set")

    await asyncio.gather(*(add(session, which) for which, session in enumerate(sessions)))
    assert len(contacts(await sessions[0].request(GET))) == 60
    await house.restart()
    again = await house.client("alice").connect()
    assert len(contacts(await again.request(GET))) == 60


async def test_asking_each_other_at_the_same_moment(house: Any) -> None:
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    for one, other in ((alice, "bob"), (bob, "alice")):
        one.send(f"<presence to='{other}@chat.test' type='subscribe'/>")
    await asyncio.gather(alice.sync(), bob.sync())
    for one, other in ((alice, "bob"), (bob, "alice")):
        one.send(f"<presence to='{other}@chat.test' type='subscribed'/>")
    await asyncio.gather(alice.sync(), bob.sync())
    assert contacts(await alice.request(GET)) == {"bob@chat.test": (None, "both")}
    assert contacts(await bob.request(GET)) == {"alice@chat.test": (None, "both")}
