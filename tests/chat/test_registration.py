"""In-band registration (XEP-0077) at the running service: passwords, accounts of strangers, and what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moim.bus import Bus
from moim.errors import Conflict, UsageError
from moim.model import Address, UserChanged, UserRemoved
from moim.proto.xmpp import Element, ns
from raw_xmpp import RawXmpp

NewHouse = Callable[..., Awaitable[Any]]
QUERY = f"<query xmlns='{ns.REGISTER}'>"


class Registrar:
    """Keeps accounts in the dictionary of the fake directory, and tells the bus as the real one does."""

    def __init__(self, users: Any, bus: Bus) -> None:
        self.users, self.bus = users, bus

    async def set_password(self, address: str, password: str) -> None:
        if len(password) < 8:
            raise UsageError("the password has fewer than 8 characters")
        await self.users.set_password(address, password)
        await self.bus.publish(UserChanged(Address.parse(address), password_changed=True))

    async def add(self, address: str, password: str) -> object:
        if await self.users.profile(address) is not None:
            raise Conflict("exists")
        await self.set_password(address, password)
        return None

    async def remove(self, address: str) -> None:
        await self.users.remove(address)
        await self.bus.publish(UserRemoved(Address.parse(address)))


@pytest.fixture
def registering(new_house: NewHouse) -> NewHouse:
    """Makes a house whose accounts can be changed by their owners."""

    async def make(**options: Any) -> Any:
        house = await new_house(default_contacts=False, **options)
        plain = house._service

        def service() -> Any:
            made = plain()
            made._registrar = Registrar(house.users, house.bus)
            return made

        house._service = service
        await house.restart()
        return house

    return make


def credentials(name: str, password: str) -> str:
    return f"{QUERY}<username>{name}</username><password>{password}</password></query>"


def refusal(answer: Element) -> str:
    error = answer.find("error")
    assert error is not None, answer
    return error.elements()[0].name


async def test_a_changed_password_ends_the_other_sessions(registering: NewHouse) -> None:
    house = await registering()
    phone, desk = await house.online("alice", "phone"), await house.online("alice", "desk")
    shown = (await phone.request(QUERY + "</query>", to="chat.test")).find("query", ns.REGISTER)
    assert shown.find("registered") is not None
    assert shown.find("username").text == "alice"
    answer = await phone.request(credentials("alice", "another password"), kind="set", to="chat.test")
    assert answer.get("type") == "result"
    assert (await desk.ended()).condition == "not-authorized"
    await phone.sync()
    with pytest.raises(AssertionError, match="not-authorized"):
        await house.client("alice").connect(password="wonder land")
    await house.client("alice").connect(password="another password")


async def test_what_a_password_may_not_be(registering: NewHouse) -> None:
    house = await registering()
    alice = await house.online("alice", "phone")
    for payload, expected in [
        (credentials("alice", "short"), "not-acceptable"),
        (credentials("bob", "another password"), "forbidden"),
        (credentials("", "another password"), "bad-request"),
        (f"{QUERY}<username>alice</username></query>", "bad-request"),
        (f"{QUERY}<remove/></query>", "not-allowed"),
    ]:
        assert refusal(await alice.request(payload, kind="set")) == expected
    assert refusal(await alice.request(QUERY + "</query>", to="bob@chat.test")) == "forbidden"
    assert house.users.passwords["alice"] == "wonder land"


async def test_passwords_are_not_changed_all_the_time(registering: NewHouse) -> None:
    house = await registering()
    alice = await house.online("alice", "phone")
    answers = [await alice.request(credentials("alice", f"password {n}"), kind="set") for n in range(6)]
    assert [answer.get("type") for answer in answers] == ["result"] * 5 + ["error"]
    assert refusal(answers[5]) == "resource-constraint"


async def stranger(house: Any) -> RawXmpp:
    return await RawXmpp.open(house.place("xmpp-client-tls"), "chat.test", house.tls)


async def test_strangers_are_turned_away_unless_the_settings_say_otherwise(registering: NewHouse) -> None:
    house = await registering()
    raw = await stranger(house)
    assert raw.features.find("register", ns.REGISTER_FEATURE) is None
    raw.say(f"<iq type='get' id='1'>{QUERY}</query></iq>")
    await raw.ends_with("not-authorized")


async def test_an_account_is_made_and_removed(registering: NewHouse) -> None:
    house = await registering(registration=True)
    raw = await stranger(house)
    assert raw.features.find("register", ns.REGISTER_FEATURE) is not None
    form = await raw.request(f"<iq type='get' id='1' to='chat.test'>{QUERY}</query></iq>")
    query = form.find("query", ns.REGISTER)
    assert query is not None
    names = {child.name for child in query.elements()}
    assert names == {"instructions", "username", "password"}
    made = await raw.request(f"<iq type='set' id='2'>{credentials('Dave', 'long enough')}</iq>")
    assert (made.get("type"), made.get("id")) == ("result", "2")
    assert (await raw.scram("dave", "long enough")).name == "success"
    dave = await house.client("dave", "phone").connect(password="long enough")
    answer = await dave.request(f"{QUERY}<remove/></query>", kind="set")
    assert answer.get("type") == "result"
    assert (await dave.ended()).condition == "not-authorized"
    assert "dave" not in house.users.passwords


async def test_what_strangers_are_refused(registering: NewHouse, caplog: Any) -> None:
    house = await registering(registration=True, registrations_per_hour=2)
    raw = await stranger(house)
    for number, (payload, expected) in enumerate(
        [
            (credentials("alice", "long enough"), "conflict"),
            (credentials("erin", "short"), "not-acceptable"),
            (credentials("frank", "long enough"), "resource-constraint"),
            (credentials("a@b", "long enough"), "not-acceptable"),
            (f"{QUERY}<username>x</username></query>", "not-acceptable"),
        ]
    ):
        answer = await raw.request(f"<iq type='set' id='{number}'>{payload}</iq>")
        assert refusal(answer) == expected
    assert sorted(house.users.passwords) == ["alice", "bob", "carol"]
    assert "a registration from 127.0.0.1 was refused: too many accounts" in caplog.text


async def test_it_can_be_off(registering: NewHouse) -> None:
    house = await registering(password_changes=False)
    alice = await house.online("alice", "phone")
    assert refusal(await alice.request(credentials("alice", "another password"), kind="set")) == "service-unavailable"


async def test_one_domain_may_be_open_to_strangers(registering: NewHouse) -> None:
    house = await registering(hosted=["two.test"], domains={"two.test": {"registration": True}})
    assert (await stranger(house)).features.find("register", ns.REGISTER_FEATURE) is None
    raw = await RawXmpp.open(house.place("xmpp-client-tls"), "two.test", house.tls)
    made = await raw.request(f"<iq type='set' id='1'>{credentials('alice', 'long enough')}</iq>")
    assert made.get("type") == "result"
    assert house.users.passwords["alice@two.test"] == "long enough"
    assert (await raw.scram("alice", "long enough")).name == "success"
