"""Stream management, carbons and client state with slixmpp against the running service, connections cut mid-flow."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from slixmpp import JID, ClientXMPP

from moim.proto.xmpp import Element, ns
from raw_xmpp import RawXmpp
from stanza_parts import body, child

pytestmark = pytest.mark.interop

WAIT = 20.0


class Person(ClientXMPP):
    """A slixmpp client with the three extensions, whose messages wait in a queue."""

    def __init__(self, house: Any, name: str, resource: str) -> None:
        super().__init__(f"{name}@chat.test/{resource}", house.users.passwords[name])
        self.house = house
        self.ssl_context = ssl.create_default_context(cafile=str(house.files.chain))
        self.ca_certs = house.files.chain
        for plugin in ("xep_0030", "xep_0198", "xep_0199", "xep_0280", "xep_0352"):
            self.register_plugin(plugin)
        self.enable_direct_tls, self.enable_starttls = True, False
        self.bodies: asyncio.Queue[str] = asyncio.Queue()
        self.copies: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.moments = {
            name: asyncio.Event()
            for name in ("session_start", "sm_enabled", "session_resumed", "disconnected", "sm_failed")
        }
        for name, moment in self.moments.items():
            self.add_event_handler(name, lambda _, moment=moment: moment.set())
        self.add_event_handler("message", self._message)
        self.add_event_handler("carbon_received", lambda m: self._copy("received", m["carbon_received"]))
        self.add_event_handler("carbon_sent", lambda m: self._copy("sent", m["carbon_sent"]))

    def _message(self, message: Any) -> None:
        if message["body"]:
            self.bodies.put_nowait(message["body"])

    def _copy(self, kind: str, message: Any) -> None:
        self.copies.put_nowait((kind, message["body"]))

    async def wait(self, moment: str) -> None:
        await asyncio.wait_for(self.moments[moment].wait(), WAIT)
        self.moments[moment].clear()

    def dial(self) -> None:
        self.connect(*self.house.place("xmpp-client-tls"))

    async def sign_in(self) -> Person:
        self.dial()
        await self.wait("session_start")
        await self.wait("sm_enabled")
        self.send_presence()
        await self.sync()
        return self

    async def sync(self) -> None:
        await self.plugin["xep_0199"].ping(JID("chat.test"), timeout=WAIT)

    async def cut(self) -> None:
        """The network goes away, and neither side says a word."""
        transport = self.transport
        assert transport is not None
        transport.abort()
        await self.wait("disconnected")

    async def back(self) -> None:
        self.dial()
        await self.wait("session_resumed")

    async def texts(self, count: int) -> list[str]:
        return [await asyncio.wait_for(self.bodies.get(), WAIT) for _ in range(count)]


MakePerson = Callable[..., Person]


@pytest.fixture
async def person(house: Any) -> AsyncIterator[MakePerson]:
    made: list[Person] = []

    def make(name: str, resource: str) -> Person:
        made.append(Person(house, name, resource))
        return made[-1]

    yield make
    for one in made:
        one.abort()
        await asyncio.sleep(0)


async def test_nothing_is_lost_or_doubled_while_connections_break(person: MakePerson) -> None:
    alice, bob = await person("alice", "phone").sign_in(), await person("bob", "desk").sign_in()
    expected: dict[Person, list[str]] = {alice: [], bob: []}
    got: dict[Person, list[str]] = {alice: [], bob: []}

    def talk(rounds: int, tag: str) -> None:
        for number in range(rounds):
            for sender, recipient in ((alice, bob), (bob, alice)):
                text = f"{tag} {number}"
                sender.send_message(recipient.boundjid, text)
                expected[recipient].append(text)

    for attempt, victim in enumerate((alice, bob, alice)):
        talk(20, f"before {attempt}")
        await victim.cut()
        other = bob if victim is alice else alice
        for number in range(20):
            other.send_message(victim.boundjid, f"meanwhile {attempt} {number}")
            expected[victim].append(f"meanwhile {attempt} {number}")
        await other.sync()
        await victim.back()
    talk(20, "after")
    for one in (alice, bob):
        got[one] = await one.texts(len(expected[one]))
        await one.sync()
        assert one.bodies.empty()
        assert sorted(got[one]) == sorted(expected[one])


async def test_a_session_that_waits_stays_where_it_was(person: MakePerson, house: Any) -> None:
    alice = await person("alice", "phone").sign_in()
    watcher = await house.online("alice", "watcher")
    await alice.cut()
    await watcher.quiet()
    await alice.back()
    await alice.sync()
    await watcher.quiet()


async def test_carbons_of_both_directions(person: MakePerson) -> None:
    phone, laptop = await person("alice", "phone").sign_in(), await person("alice", "laptop").sign_in()
    bob = await person("bob", "desk").sign_in()
    await laptop.plugin["xep_0280"].enable(timeout=WAIT)
    await laptop.plugin["xep_0280"].enable(timeout=WAIT)
    phone.send_message(JID("bob@chat.test/desk"), "to bob", mtype="chat")
    assert await bob.texts(1) == ["to bob"]
    assert await asyncio.wait_for(laptop.copies.get(), WAIT) == ("sent", "to bob")
    bob.send_message(JID("alice@chat.test/phone"), "to the phone", mtype="chat")
    assert await phone.texts(1) == ["to the phone"]
    assert await asyncio.wait_for(laptop.copies.get(), WAIT) == ("received", "to the phone")
    await laptop.plugin["xep_0280"].disable(timeout=WAIT)
    bob.send_message(JID("alice@chat.test/phone"), "alone", mtype="chat")
    assert await phone.texts(1) == ["alone"]
    await laptop.sync()
    assert laptop.copies.empty()


async def test_inactive_clients_are_told_late(person: MakePerson, house: Any) -> None:
    alice = await person("alice", "phone").sign_in()
    shown: asyncio.Queue[str] = asyncio.Queue()
    alice.add_event_handler("presence_available", lambda p: shown.put_nowait(p["status"]))
    alice.send_raw(f"<inactive xmlns='{ns.CSI}'/>")
    await alice.sync()
    other = await house.online("alice", "other")
    for number in range(3):
        other.send(f"<presence><status>{number}</status></presence>")
    await other.sync()
    await alice.sync()
    alice.send_raw(f"<active xmlns='{ns.CSI}'/>")
    await alice.sync()
    while not shown.empty():
        last = shown.get_nowait()
    assert last == "2"


# --- what clients must not get away with, with a client of our own --------------------------------------------------


async def enable(client: Any, **attrs: str) -> Element:
    client.send(Element("enable", ns.SM, attrs))
    answer: Element = await client.receive()
    return answer


async def lost(house: Any, name: str, resource: str, **options: Any) -> tuple[Any, str]:
    """A client whose connection is gone, and its token."""
    client = await house.online(name, resource)
    enabled = await enable(client, resume="true")
    token = enabled.get("id")
    assert token
    client.drop()
    await asyncio.wait_for(gone(house), WAIT)
    return client, token


async def gone(house: Any) -> None:
    while not house.service.stats()["detached"]:
        await asyncio.sleep(0.01)


async def test_what_is_agreed(new_house: Any) -> None:
    house = await new_house(default_contacts=False, resume_seconds=50)
    client = await house.online("alice", "phone")
    enabled = await enable(client, resume="1", max="20")
    assert (enabled.name, enabled.get("resume"), enabled.get("max")) == ("enabled", "true", "20")
    again = await enable(client)
    assert again.find("unexpected-request", ns.STANZA_ERRORS) is not None
    other = await house.online("alice", "laptop")
    assert (await enable(other)).attrs == {}
    third = await house.online("alice", "tablet")
    assert (await enable(third, resume="true", max="999999")).get("max") == "50"
    off = await new_house(default_contacts=False, resume_seconds=0)
    assert (await enable(await off.online("alice", "phone"), resume="true")).attrs == {}


async def test_what_nobody_came_back_for_is_kept_or_goes_elsewhere(new_house: Any) -> None:
    house = await new_house(default_contacts=False, resume_seconds=1)
    bob = await house.online("bob", "desk")
    await lost(house, "alice", "phone")
    bob.send("<message to='alice@chat.test/phone' type='chat'><body>waits</body></message>")
    bob.send("<iq to='alice@chat.test/phone' type='get' id='asked'><ping xmlns='urn:xmpp:ping'/></iq>")
    answer = await bob.receive()
    assert (answer.get("id"), answer.get("type")) == ("asked", "error")
    alice = await house.client("alice", "tablet").connect()
    alice.send("<presence/>")
    while (stanza := await alice.receive()).name != "message":
        pass
    assert stanza.find("body").text == "waits"
    await alice.sync()
    assert not [e for e in list(alice.inbox._queue) if e.name == "message"]


async def test_it_goes_to_another_resource_once(new_house: Any) -> None:
    house = await new_house(default_contacts=False, resume_seconds=1)
    bob = await house.online("bob", "desk")
    await lost(house, "alice", "phone")
    bob.send("<message to='alice@chat.test' type='chat'><body>one</body></message>")
    await bob.sync()
    tablet = await house.online("alice", "tablet")
    bob.send("<message to='alice@chat.test' type='chat'><body>two</body></message>")
    texts: list[str] = []
    while len(texts) < 2:
        stanza = await tablet.receive()
        if stanza.name == "message":
            texts.append(stanza.find("body").text)
    assert sorted(texts) == ["one", "two"], "the second went to both, so it is not given again"
    while house.service.stats()["detached"]:
        await asyncio.sleep(0.01)
    await tablet.sync()
    assert not [e for e in list(tablet.inbox._queue) if e.name == "message"]


@pytest.mark.parametrize("thief", ["bob", "alice"])
async def test_resumption_belongs_to_the_account(person: MakePerson, house: Any, thief: str) -> None:
    _, token = await lost(house, "alice", "phone")
    other = person(thief, "x")
    other.plugin["xep_0198"].sm_id = token
    other.dial()
    if thief == "bob":
        await other.wait("sm_failed")
        await other.wait("session_start")
        assert house.service.stats()["detached"] == 1
    else:
        await other.wait("session_resumed")
        assert house.service.stats()["detached"] == 0
        await other.sync()


async def test_a_living_session_is_taken_over(person: MakePerson, house: Any) -> None:
    client = await house.online("alice", "phone")
    token = (await enable(client, resume="true")).get("id")
    other = person("alice", "x")
    other.plugin["xep_0198"].sm_id = token
    other.dial()
    await other.wait("session_resumed")
    failure = await client.ended()
    assert failure is not None
    assert failure.condition == "conflict"
    bob = await house.online("bob", "desk")
    bob.send("<message to='alice@chat.test/phone' type='chat'><body>still there</body></message>")
    assert await other.texts(1) == ["still there"]


async def test_a_count_that_cannot_be_ends_the_attempt_alone(person: MakePerson, house: Any) -> None:
    _, token = await lost(house, "alice", "phone")
    other = person("alice", "x")
    management = other.plugin["xep_0198"]
    management.sm_id, management.handled = token, 77
    other.dial()
    await other.wait("disconnected")
    assert house.service.stats()["detached"] == 1


@pytest.mark.parametrize(("who", "told"), [("alice", "1"), ("bob", None)])
async def test_a_session_that_is_over_still_says_what_it_took(new_house: Any, who: str, told: str | None) -> None:
    """To its own account; to others a token of somebody else's is one that never was."""
    house = await new_house(default_contacts=False, resume_seconds=1)
    client = await house.online("alice", "phone")
    token = (await enable(client, resume="true")).get("id")
    await client.sync()
    client.drop()
    await gone(house)
    while house.service.stats()["detached"]:
        await asyncio.sleep(0.01)
    other = Person(house, who, "x")
    failures: asyncio.Queue[Any] = asyncio.Queue()
    other.add_event_handler("sm_failed", failures.put_nowait)
    other.plugin["xep_0198"].sm_id = token
    other.dial()
    failure = await asyncio.wait_for(failures.get(), WAIT)
    assert failure.xml.get("h") == told
    other.abort()


async def test_requests_of_strangers_to_stream_management(house: Any) -> None:
    client = await house.online("alice", "phone")
    client.send(Element("r", ns.SM))
    assert (await client.receive()).name == "failed"
    client.send(Element("resume", ns.SM, {"previd": "x", "h": "0"}))
    assert (await client.receive()).name == "failed"
    await client.sync()


# --- inside the sign-in (XEP-0388, XEP-0386) -------------------------------------------------------------------------

PASSWORD = "wonder land"
INSIDE = (
    f"<bind xmlns='{ns.BIND2}'><tag>Raw</tag><enable xmlns='{ns.SM}' resume='true'/>"
    f"<enable xmlns='{ns.CARBONS}'/><inactive xmlns='{ns.CSI}'/></bind>"
)


async def raw(house: Any) -> RawXmpp:
    return await RawXmpp.open(house.place("xmpp-client-tls"), "chat.test", house.tls)


async def test_everything_at_once_and_back_at_once(house: Any) -> None:
    phone = await raw(house)
    inline = child(phone.features, ("authentication", ns.SASL2), "inline")
    assert inline is not None
    assert inline.find("sm", ns.SM) is not None
    offered = child(inline, ("bind", ns.BIND2), "inline")
    assert {f.get("var") for f in offered.elements()} >= {ns.SM, ns.CARBONS, ns.CSI}
    success = await phone.scram("alice", PASSWORD, INSIDE)
    enabled = child(success, ("bound", ns.BIND2)).find("enabled", ns.SM)
    assert enabled is not None
    full = child(success, "authorization-identifier").text
    # Counting began at once: what the client says right after its success is the first.
    assert (await phone.request(f"<iq type='get' id='p'><ping xmlns='{ns.PING}'/></iq>")).get("id") == "p"
    answer = await phone.request(f"<r xmlns='{ns.SM}'/>")
    assert (answer.name, answer.get("h")) == ("a", "1")
    # It is inactive and has carbons: a copy of what another device says, but no presence.
    other = await house.online("alice", "other")
    other.send("<message to='bob@chat.test' type='chat'><body>said elsewhere</body></message>")
    while (copy := await phone.element()).ns == ns.SM:
        pass  # it may be asked for its count
    assert copy.find("sent", ns.CARBONS) is not None
    await phone.close()
    await asyncio.wait_for(gone(house), WAIT)
    bob = await house.online("bob", "desk")
    bob.send(f"<message to='{full}' type='chat'><body>meanwhile</body></message>")
    await bob.sync()
    again = await raw(house)
    token = enabled.get("id")
    success = await again.scram("alice", PASSWORD, f"<resume xmlns='{ns.SM}' previd='{token}' h='2'/>" + INSIDE)
    assert child(success, "authorization-identifier").text == full
    resumed = success.find("resumed", ns.SM)
    assert resumed is not None
    assert resumed.get("h") == "1"
    assert success.find("bound", ns.BIND2) is None
    message = await again.element()
    assert body(message) == "meanwhile"
    assert (await again.request(f"<iq type='get' id='q'><ping xmlns='{ns.PING}'/></iq>")).get("to") == full
    await again.close()


async def test_a_resumption_that_fails_inside_a_sign_in_binds_instead(house: Any) -> None:
    phone = await raw(house)
    success = await phone.scram("alice", PASSWORD, f"<resume xmlns='{ns.SM}' previd='nothing' h='0'/>" + INSIDE)
    refused = success.find("failed", ns.SM)
    assert refused is not None
    assert refused.find("item-not-found", ns.STANZA_ERRORS) is not None
    bound = success.find("bound", ns.BIND2)
    assert bound is not None
    assert bound.find("enabled", ns.SM) is not None
    await phone.close()


async def test_sessions_that_wait_make_room_for_new_ones(new_house: Any) -> None:
    house = await new_house(default_contacts=False, max_sessions_per_user=2)
    for resource in ("one", "two", "three", "four"):
        client = await house.online("alice", resource)
        await enable(client, resume="true")
        client.drop()
        while house.service.stats()["sessions"]:
            await asyncio.sleep(0.01)
    assert house.service.stats()["detached"] == 2


async def test_a_restart_loses_nothing_that_was_not_acknowledged(new_house: Any) -> None:
    house = await new_house(default_contacts=False)
    bob = await house.online("bob", "desk")
    await lost(house, "alice", "phone")
    bob.send("<message to='alice@chat.test/phone' type='chat'><body>over the restart</body></message>")
    await bob.sync()
    await house.restart()
    alice = await house.client("alice", "tablet").connect()
    alice.send("<presence/>")
    while (stanza := await alice.receive()).name != "message":
        pass
    assert stanza.find("body").text == "over the restart"
