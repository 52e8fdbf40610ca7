"""Since when somebody is away is on disk: whoever left before a restart, or by it, left then."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from moim.chat import tables
from moim.model import Address, UserRemoved
from moim.proto.xmpp import ns
from stanza_parts import child


@pytest.fixture
async def house(new_house: Any) -> Any:
    return await new_house(default_contacts=True)


async def last(client: Any, name: str) -> tuple[str | None, str]:
    """Seconds and words, or the condition of a refusal."""
    answer = await client.request(f"<query xmlns='{ns.LAST}'/>", to=f"{name}@chat.test")
    if answer.get("type") == "error":
        return child(answer, "error").elements()[0].name, ""
    query = child(answer, ("query", ns.LAST))
    return query.get("seconds"), query.text


async def test_it_outlives_the_service(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    bob.send("<presence type='unavailable'><status>끝</status></presence>")
    await bob.close()
    await alice.close()
    await house.online("carol")
    await house.restart()
    alice = await house.online("alice")
    seconds, words = await last(alice, "bob")
    assert (str(seconds).isdigit(), words) == (True, "끝")
    assert str((await last(alice, "carol"))[0]).isdigit(), "the end of the service is the end of being there"


async def test_many_leave_at_once_and_one_comes_back(house: Any) -> None:
    for _ in range(3):
        alice = await house.online("alice")
        bob = await house.online("bob")
        assert await last(alice, "bob") == ("0", "")
        bob.send("<presence type='unavailable'/>")
        await bob.close()
        await alice.close()
    alice = await house.online("alice")
    assert str((await last(alice, "bob"))[0]).isdigit()


async def test_a_removed_account_leaves_nothing(house: Any) -> None:
    bob = await house.online("bob")
    await bob.close()
    await house.restart()
    assert await house.store.read(lambda c: c.scalars(sa.select(tables.last_activity.c.owner)).all())
    house.users.passwords.pop("bob")
    await house.bus.publish(UserRemoved(Address("bob", "chat.test")))
    assert not await house.store.read(lambda c: c.scalars(sa.select(tables.last_activity.c.owner)).all())
