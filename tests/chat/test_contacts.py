"""Default contacts while the directory changes: who comes, who goes, who is renamed, and when there are too many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from moim.chat.contacts import Changes, People
from moim.chat.hosts import Hosts
from moim.chat.settings import Settings
from moim.model import Address, UserChanged, UserRemoved
from moim.proto.xmpp import Element, Jid, ns
from moim.proto.xmpp.scram import ScramHash

GET = f"<query xmlns='{ns.ROSTER}'/>"


def names(answer: Element) -> dict[str, str | None]:
    query = answer.find("query", ns.ROSTER)
    assert query is not None
    assert all(i.get("subscription") == "both" for i in query.elements())
    return {str(i.get("jid")): i.get("name") for i in query.elements()}


@pytest.fixture
async def small(new_house: Any) -> Any:
    return await new_house(default_contacts=True, default_contacts_limit=4, default_contacts_group="우리")


async def test_everybody_is_there_without_being_stored(small: Any) -> None:
    alice = await small.client("alice").connect()
    answer = await alice.request(GET)
    assert names(answer) == {"bob@chat.test": "Bob", "carol@chat.test": "Carol"}
    groups = {g.text for i in answer.find("query", ns.ROSTER).elements() for g in i.elements()}
    assert groups == {"우리"}
    with small.store.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM chat_roster").scalar() == 0


async def test_a_new_user_appears_and_is_seen(small: Any) -> None:
    alice = await small.online("alice", "a")
    small.users.passwords["dave"] = "x"
    await small.bus.publish(UserChanged(Address("dave", "chat.test")))
    push = await alice.receive()
    assert names(push) == {"dave@chat.test": "Dave"}
    dave = await small.client("dave", "d").connect()
    dave.send("<presence/>")
    assert (await alice.receive()).get("from") == "dave@chat.test/d"
    assert {(await dave.receive()).get("from") for _ in range(2)} == {"dave@chat.test/d", "alice@chat.test/a"}


async def test_a_new_name_is_pushed_once(small: Any) -> None:
    alice = await small.online("alice", "a")
    small.users.names["bob"] = "밥"
    for _ in range(2):
        await small.bus.publish(UserChanged(Address("bob", "chat.test")))
    assert names(await alice.receive()) == {"bob@chat.test": "밥"}
    await alice.quiet()


async def test_a_removed_user_disappears(small: Any) -> None:
    alice, bob = await small.online("alice", "a"), await small.online("bob", "b")
    await alice.receive()
    del small.users.passwords["bob"]
    await small.bus.publish(UserRemoved(Address("bob", "chat.test")))
    assert (await bob.ended()).condition == "not-authorized"
    gone = await alice.receive()
    assert (gone.name, gone.get("type")) == ("presence", "unavailable")
    push = await alice.receive()
    assert push.find("query", ns.ROSTER).elements()[0].get("subscription") == "remove"
    await alice.quiet()
    assert set(names(await alice.request(GET))) == {"carol@chat.test"}


async def test_what_the_directory_did_not_tell_is_found_at_sign_in(new_house: Any) -> None:
    house = await new_house(default_contacts=True, directory_refresh_seconds=1)
    alice = await house.online("alice", "a")
    house.users.passwords["dave"] = "x"
    del house.users.passwords["carol"]
    house.service._parts.people._looked_at = None
    await house.client("bob").connect()
    kinds = {}
    for _ in range(2):
        item = (await alice.receive()).find("query", ns.ROSTER).elements()[0]
        kinds[item.get("jid")] = item.get("subscription")
    assert kinds == {"dave@chat.test": "both", "carol@chat.test": "remove"}


async def test_somebody_the_room_never_heard_of_signs_in(small: Any) -> None:
    alice = await small.online("alice", "a")
    small.users.passwords["dave"] = "x"
    dave = await small.client("dave", "d").connect()
    assert set(names(await dave.request(GET))) == {f"{name}@chat.test" for name in ("alice", "bob", "carol")}
    assert names(await alice.receive()) == {"dave@chat.test": "Dave"}


async def test_too_many_end_it_with_a_word_in_the_log(small: Any, caplog: Any) -> None:
    for name in ("dave", "erin"):
        small.users.passwords[name] = "x"
        await small.bus.publish(UserChanged(Address(name, "chat.test")))
    assert caplog.text.count("has more than 4 users, so it has no default contacts") == 1
    alice = await small.client("alice", "a").connect()
    assert names(await alice.request(GET)) == {}
    bob = await small.online("bob", "b")
    await alice.quiet()
    await bob.quiet()
    small.users.passwords.pop("erin")
    await small.bus.publish(UserRemoved(Address("erin", "chat.test")))
    assert "dave@chat.test" in names(await alice.request(GET))


class Directory:
    """A directory that counts what it is asked."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.asked = 0

    async def scram(self, address: str, mechanism: str) -> None:
        return None

    def scram_hashes(self) -> tuple[ScramHash, ...]:
        return ()

    def known_scram(self, address: str, mechanism: str) -> None:
        return None

    def nobody(self, address: str) -> bool:
        return False

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        return False

    async def profile(self, address: str) -> Any:
        self.asked += 1
        local, _, domain = address.partition("@")
        assert domain == "chat.test"
        return (
            type("Profile", (), {"display_name": local.upper(), "policy": "", "department": ""})()
            if local in self.names
            else None
        )

    async def addresses(self) -> list[Address]:
        return [Address(name, "chat.test") for name in self.names]

    async def policies(self, *, departments: bool) -> list[tuple[Address, str, str]]:
        return []

    async def update(self, address: Address | str, changes: Mapping[str, object]) -> object:
        raise AssertionError("nothing is changed here")

    async def add(self, address: Address | str, password: str | None = None) -> object:
        raise AssertionError("nothing is changed here")

    async def set_password(self, address: Address | str, password: str) -> None:
        raise AssertionError("nothing is changed here")

    async def remove(self, address: Address | str) -> None:
        raise AssertionError("nothing is changed here")


def people(directory: Directory, *, limit: int = 10, wanted: bool = True) -> People:
    settings = Settings(default_contacts=wanted, default_contacts_limit=limit)
    return People(directory, Hosts(["chat.test"], settings), max_age=30.0)


async def test_a_large_directory_is_not_asked_for_every_name() -> None:
    directory = Directory(*(f"u{number}" for number in range(100)))
    known = people(directory, limit=10)
    await known.refresh(0.0)
    assert directory.asked == 0
    assert known.default_contacts("u1@chat.test") == {}
    assert await known.exists(Jid.parse("u99@chat.test"))
    assert not await known.exists(Jid.parse("nobody@chat.test"))
    assert not await known.exists(Jid.parse("u1@other.test"))


async def test_a_look_is_good_for_a_while() -> None:
    directory = Directory("a")
    known = people(directory)
    assert (await known.refresh(0.0)).shown == {"a@chat.test"}
    directory.names.append("b")
    assert await known.refresh(29.0) == Changes()
    assert (await known.refresh(31.0)).shown == {"b@chat.test"}
    directory.names.remove("a")
    assert (await known.refresh(70.0)).gone == {"a@chat.test"}


async def test_generation_rises_only_with_changes() -> None:
    directory = Directory("a", "b")
    known = people(directory)
    await known.refresh(0.0)
    before = known.generation
    await known.refresh(100.0)
    await known.changed("a@chat.test")
    assert known.generation == before
    known.removed("a@chat.test")
    assert known.generation > before


async def test_names_that_are_no_addresses_are_left_out(caplog: Any) -> None:
    directory = Directory("a")

    async def addresses() -> list[Address]:
        return [Address("a", "chat.test"), Address("b\u202e", "chat.test")]

    directory.addresses = addresses  # type: ignore[method-assign]
    known = people(directory)
    await known.refresh(0.0)
    assert list(known) == ["a@chat.test"]
    assert "cannot use chat" in caplog.text
