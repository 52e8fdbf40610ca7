"""Messages for those who are away: on disk before anything else, once and in order, whatever happens in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moim.chat.offline import worth_keeping
from moim.errors import Unavailable
from moim.proto.xmpp import Element
from stanza_parts import child


def message(number: int, to: str = "bob@chat.test") -> str:
    return f"<message to='{to}' type='chat' id='m{number}'><body>{number}</body></message>"


def numbers(stanzas: list[Element]) -> list[str]:
    return [stanza.find("body").text for stanza in stanzas if stanza.name == "message"]  # type: ignore[union-attr]


async def available(house: Any, name: str, resource: str = "") -> Any:
    client = await house.client(name, resource).connect()
    client.send("<presence/>")
    return client


async def received(client: Any) -> list[Element]:
    """Everything until the server answers a ping."""
    await client.sync()
    return [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]


@pytest.mark.engines
async def test_they_survive_a_restart(house: Any) -> None:
    alice = await house.client("alice").connect()
    for number in range(20):
        alice.send(message(number))
    await alice.sync()
    await house.restart()
    bob = await available(house, "bob")
    assert numbers(await received(bob)) == [str(number) for number in range(20)]
    await house.restart()
    assert numbers(await received(await available(house, "bob"))) == []


async def test_what_arrives_while_they_sign_in_is_not_lost(house: Any) -> None:
    alice = await house.client("alice").connect()
    got: list[str] = []
    sent = 0
    for session in range(8):
        for _ in range(5):
            alice.send(message(sent))
            sent += 1
        bob = await house.client("bob", f"r{session}").connect()
        bob.send("<presence/>")
        for _ in range(5):
            alice.send(message(sent))
            sent += 1
        await alice.sync()
        got += numbers(await received(bob))
        bob.send("<presence type='unavailable'/>")
        await bob.sync()
        got += numbers(await received(bob))
        await bob.close()
    got += numbers(await received(await available(house, "bob")))
    assert sorted(map(int, got)) == list(range(sent))


async def test_a_slow_disk_delays_nobody_else(house: Any, monkeypatch: Any) -> None:
    alice, carol = await house.online("alice", "a"), await house.online("carol", "c")
    gate = asyncio.Event()
    write = house.store.write

    async def slow(work: Any) -> Any:
        await gate.wait()
        return await write(work)

    monkeypatch.setattr(house.store, "write", slow)
    for number in range(3):
        alice.send(message(number))
    alice.send("<message to='carol@chat.test' type='chat'><body>live</body></message>")
    assert (await carol.receive()).get("from") == "alice@chat.test/a"
    await alice.sync()
    bob = await house.client("bob").connect()
    bob.send("<presence/>")
    await carol.sync()
    assert bob.inbox.empty()
    gate.set()
    assert numbers(await received(bob)) == ["0", "1", "2"]


async def test_a_full_disk_is_told_to_the_sender(house: Any, monkeypatch: Any) -> None:
    alice = await house.online("alice", "a")

    async def full(work: Any) -> Any:
        raise Unavailable("the database did not take it: disk full")

    monkeypatch.setattr(house.store, "write", full)
    alice.send(message(1))
    error = await alice.receive()
    assert (error.get("type"), error.get("id")) == ("error", "m1")
    assert child(error, "error").get("type") == "wait"


async def test_two_sessions_at_once_share_what_waited(house: Any) -> None:
    alice = await house.client("alice").connect()
    for number in range(450):
        alice.send(message(number))
    await alice.sync()
    one, two = await house.client("bob", "1").connect(), await house.client("bob", "2").connect()
    one.send("<presence/>")
    two.send("<presence/>")
    got = numbers(await received(one)) + numbers(await received(two))
    assert sorted(map(int, got)) == list(range(450))


async def test_a_session_that_is_gone_before_it_got_them_leaves_them(house: Any, monkeypatch: Any) -> None:
    alice = await house.client("alice").connect()
    alice.send(message(1))
    await alice.sync()
    gate, reading = asyncio.Event(), asyncio.Event()
    read = house.store.read

    async def slow(work: Any) -> Any:
        reading.set()
        await gate.wait()
        return await read(work)

    bob = await house.client("bob", "1").connect()
    monkeypatch.setattr(house.store, "read", slow)
    bob.send("<presence/>")
    await reading.wait()
    again = await house.client("bob", "1").connect()  # the older connection ends while it waits
    assert (await bob.ended()).condition == "conflict"
    gate.set()
    again.send("<presence/>")
    assert numbers(await received(again)) == ["1"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<message xmlns='jabber:client' type='chat'><body>x</body></message>", True),
        ("<message xmlns='jabber:client'><subject>x</subject></message>", True),
        ("<message xmlns='jabber:client'><received xmlns='urn:xmpp:receipts' id='1'/></message>", True),
        ("<message xmlns='jabber:client' type='chat'/>", False),
        ("<message xmlns='jabber:client'><active xmlns='http://jabber.org/protocol/chatstates'/></message>", False),
        (
            "<message xmlns='jabber:client'><composing xmlns='http://jabber.org/protocol/chatstates'/>"
            "<thread>1</thread></message>",
            False,
        ),
        ("<message xmlns='jabber:client'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>", False),
        ("<message xmlns='jabber:client'><body>x</body><no-permanent-store xmlns='urn:xmpp:hints'/></message>", True),
        ("<message xmlns='jabber:client'><store xmlns='urn:xmpp:hints'/></message>", True),
        ("<message xmlns='jabber:client' type='headline'><body>x</body></message>", False),
        ("<message xmlns='jabber:client' type='groupchat'><body>x</body></message>", False),
        ("<message xmlns='jabber:client' type='error'><body>x</body></message>", False),
    ],
)
def test_what_is_worth_keeping(text: str, kept: bool) -> None:
    assert worth_keeping(Element.parse(text)) is kept
