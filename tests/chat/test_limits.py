"""Clients that send more than they should, or stanzas that are not what they seem."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moim.proto.xmpp import ns


async def test_stanzas_keep_their_order_while_earlier_ones_wait(house: Any) -> None:
    alice = await house.client("alice").connect()
    for number in range(200):
        if number % 3:
            alice.send(f"<iq type='get' id='{number}'><ping xmlns='{ns.PING}'/></iq>")
        else:
            alice.send(f"<iq type='get' id='{number}'><vCard xmlns='{ns.VCARD}'/></iq>")
    assert [(await alice.receive()).get("id") for _ in range(200)] == [str(number) for number in range(200)]


async def test_a_flood_behind_a_slow_database_is_cut_off(new_house: Any, monkeypatch: Any) -> None:
    house = await new_house(default_contacts=False, max_pending_stanzas=50)
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    gate = asyncio.Event()

    async def slow(work: Any) -> Any:
        await gate.wait()

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "read", slow)
        for number in range(100):
            alice.send(f"<iq type='get' id='{number}'><query xmlns='{ns.ROSTER}'/></iq>")
        assert (await alice.ended()).condition == "policy-violation"
        await bob.sync()
        gate.set()
    await house.client("alice").connect()


async def test_directed_presence_is_bounded(new_house: Any) -> None:
    house = await new_house(default_contacts=False, max_directed_presence=2)
    alice = await house.client("alice").connect()
    for number in range(3):
        alice.send(f"<presence id='{number}' to='x{number}@chat.test'/>")
    error = await alice.receive()
    assert (error.get("type"), error.get("id")) == ("error", "2")
    alice.send(["<presence to='x0@chat.test' type='unavailable'/>", ""][0])
    alice.send("<presence to='x2@chat.test'/>")
    await alice.quiet()


async def test_a_large_vcard_is_refused(new_house: Any) -> None:
    house = await new_house(default_contacts=False, vcard_bytes=2000)
    alice = await house.client("alice").connect()
    answer = await alice.request(f"<vCard xmlns='{ns.VCARD}'><DESC>{'x' * 3000}</DESC></vCard>", kind="set")
    assert answer.find("error").find("not-acceptable", ns.STANZA_ERRORS) is not None


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (b"<message><body>x</message>", "not-well-formed"),
        (b"<message xmlns='jabber:server' to='bob@chat.test'/>", "invalid-namespace"),
        (b"<strange/>", "unsupported-stanza-type"),
        (b"<!-- x -->", "restricted-xml"),
        (b"<message to='bob@chat.test'><body>" + b"x" * 300_000 + b"</body></message>", "policy-violation"),
        (b"<message>\xff</message>", "unsupported-encoding"),
    ],
)
async def test_what_ends_a_stream(house: Any, data: bytes, condition: str) -> None:
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    alice.send_raw(data)
    assert (await alice.ended()).condition == condition
    await bob.sync()


async def test_a_presence_flood_reaches_nobody_who_did_not_ask(house: Any) -> None:
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    for _ in range(300):
        alice.send("<presence><show>away</show></presence>")
    await alice.sync()
    await bob.quiet()


async def test_a_polite_goodbye_after_work_loses_nothing(house: Any) -> None:
    alice = await house.client("alice").connect()
    for number in range(10):
        alice.send(f"<message to='bob@chat.test' type='chat'><body>{number}</body></message>")
    await alice.close()
    bob = await house.client("bob").connect()
    bob.send("<presence/>")
    got = [await bob.receive() for _ in range(10)]
    assert [m.find("body").text for m in got] == [str(number) for number in range(10)]
