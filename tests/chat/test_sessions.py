"""The order in which what one session says is worked on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moim.proto.xmpp import ns


async def test_what_waits_for_the_database_is_not_overtaken_on_the_short_way(
    new_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await new_house(default_contacts=False)
    alice, bob = await house.online("alice", "desk"), await house.online("bob", "desk")
    write, free = house.store.write, asyncio.Event()

    async def held(work: Any) -> Any:
        await free.wait()
        return await write(work)

    monkeypatch.setattr(house.store, "write", held)
    (session,) = (found for found in house.service._parts.sessions.here() if str(found.full) == bob.jid)
    bob.send(f"<iq type='set' id='note'><query xmlns='{ns.PRIVATE}'><a xmlns='b'/></query></iq>")
    bob.send("<iq type='get' id='first' to='alice@chat.test/desk'><ping xmlns='urn:xmpp:ping'/></iq>")
    async with asyncio.timeout(20):
        while not session.inbox:
            await asyncio.sleep(0.001)
        bob.send("<message type='chat' id='second' to='alice@chat.test/desk'><body>x</body></message>")
        while len(session.inbox) < 2:
            assert alice.inbox.empty(), "what came later is there first"
            await asyncio.sleep(0.001)
    free.set()
    assert [(await alice.receive()).get("id") for _ in range(2)] == ["first", "second"]
    bob.send("<message type='chat' id='third' to='alice@chat.test/desk'><body>x</body></message>")
    assert (await alice.receive()).get("id") == "third"
