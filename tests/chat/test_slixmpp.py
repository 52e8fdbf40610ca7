"""slixmpp, unmodified: sign-in both ways, contacts, presence, messages, what waits while away, discovery."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError

pytestmark = pytest.mark.interop

WAIT = 20.0


class Person(ClientXMPP):
    """A slixmpp client whose events wait in queues."""

    def __init__(self, house: Any, name: str, *, password: str | None = None, resource: str = "") -> None:
        address = f"{name}@chat.test" + (f"/{resource}" if resource else "")
        super().__init__(address, house.users.passwords.get(name, "none") if password is None else password)
        self.house = house
        self.ssl_context = ssl.create_default_context(cafile=str(house.files.chain))
        self.ca_certs = str(house.files.chain)
        for plugin in ("xep_0030", "xep_0054", "xep_0092", "xep_0199", "xep_0202", "xep_0203"):
            self.register_plugin(plugin)
        self.auto_authorize = None
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        self.online = asyncio.Event()
        self.refused = asyncio.Event()
        self.gone = asyncio.Event()
        self.add_event_handler("session_start", self._started)
        self.add_event_handler("failed_all_auth", lambda _: self.refused.set())
        self.add_event_handler("disconnected", lambda _: self.gone.set())
        for event in (
            "message",
            "presence_subscribe",
            "presence_subscribed",
            "got_online",
            "got_offline",
            "stream_error",
        ):
            self.queues[event] = asyncio.Queue()
            self.add_event_handler(event, self.queues[event].put_nowait)

    def _started(self, _event: object) -> None:
        self.online.set()

    def dial(self, *, direct: bool = False) -> None:
        address, port = self.house.place("xmpp-client-tls" if direct else "xmpp-client")
        self.enable_direct_tls, self.enable_starttls = direct, not direct
        self.connect(address, port)

    async def sign_in(self, *, direct: bool = False, available: bool = True) -> Person:
        self.dial(direct=direct)
        await asyncio.wait_for(self.online.wait(), WAIT)
        if available:
            await self.get_roster()
            self.send_presence()
        return self

    async def next(self, event: str, which: Callable[[Any], bool] = lambda _: True) -> Any:
        while True:
            item = await asyncio.wait_for(self.queues[event].get(), WAIT)
            if which(item):
                return item

    async def sync(self) -> None:
        await self.plugin["xep_0199"].ping("chat.test", timeout=WAIT)


MakePerson = Callable[..., Person]


@pytest.fixture
async def person(house: Any) -> AsyncIterator[MakePerson]:
    made: list[Person] = []

    def make(name: str, **options: Any) -> Person:
        made.append(Person(house, name, **options))
        return made[-1]

    yield make
    for one in made:
        one.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("direct", [False, True], ids=["starttls", "direct"])
async def test_messages_both_ways(person: MakePerson, direct: bool) -> None:
    alice = await person("alice", resource="집").sign_in(direct=direct)
    bob = await person("bob").sign_in(direct=direct)
    assert alice.boundjid.full == "alice@chat.test/집"
    alice.send_message("bob@chat.test", "안녕 👋🏽 <b>&amp;</b>\nzweite Zeile")
    got = await bob.next("message")
    assert (got["from"].full, got["body"]) == ("alice@chat.test/집", "안녕 👋🏽 <b>&amp;</b>\nzweite Zeile")
    got.reply("응 🎉").send()
    assert (await alice.next("message"))["body"] == "응 🎉"


async def test_contacts_see_each_other(person: MakePerson) -> None:
    alice, bob = await person("alice").sign_in(), await person("bob").sign_in()
    alice.update_roster("bob@chat.test", name="밥", groups=["친구", "Work"])
    alice.send_presence_subscription("bob@chat.test")
    asked = await bob.next("presence_subscribe")
    assert asked["from"].bare == "alice@chat.test"
    bob.send_presence(pto="alice@chat.test", ptype="subscribed")
    bob.send_presence_subscription("alice@chat.test")
    await alice.next("presence_subscribe")
    alice.send_presence(pto="bob@chat.test", ptype="subscribed")
    await alice.next("got_online", lambda p: p["from"].bare == "bob@chat.test")
    await bob.next("got_online", lambda p: p["from"].bare == "alice@chat.test")
    await alice.sync()
    assert alice.client_roster["bob@chat.test"]["subscription"] == "both"
    assert alice.client_roster["bob@chat.test"]["name"] == "밥"
    assert set(alice.client_roster["bob@chat.test"]["groups"]) == {"친구", "Work"}
    await bob.sync()
    assert bob.client_roster["alice@chat.test"]["subscription"] == "both"
    bob.send_presence(pshow="away", pstatus="점심")
    await bob.sync()
    await alice.sync()
    shown = alice.client_roster.presence("bob@chat.test")[bob.boundjid.resource]
    assert (shown["show"], shown["status"]) == ("away", "점심")
    bob.abort()
    left = await alice.next("got_offline", lambda p: p["from"].bare == "bob@chat.test")
    assert left["from"].full == bob.boundjid.full


async def test_messages_wait_for_those_who_are_away(person: MakePerson) -> None:
    alice = await person("alice").sign_in()
    for number in range(5):
        alice.send_message("bob@chat.test", f"나중에 {number}")
    await alice.sync()
    bob = await person("bob").sign_in()
    got = [await bob.next("message") for _ in range(5)]
    assert [message["body"] for message in got] == [f"나중에 {number}" for number in range(5)]
    assert all(message["delay"]["from"] == "chat.test" for message in got)
    assert all(message["delay"]["stamp"] is not None for message in got)


async def test_discovery_ping_version_time_and_vcard(person: MakePerson) -> None:
    alice, bob = await person("alice").sign_in(), await person("bob").sign_in()
    info = await alice.plugin["xep_0030"].get_info("chat.test", timeout=WAIT)
    assert ("server", "im", None, "Moim") in info["disco_info"]["identities"]
    assert {"urn:xmpp:ping", "jabber:iq:version", "urn:xmpp:time", "vcard-temp", "msgoffline"} <= info["disco_info"][
        "features"
    ]
    for feature in info["disco_info"]["features"]:
        assert not feature.startswith("urn:xmpp:mam"), "only what exists is announced"
    items = await alice.plugin["xep_0030"].get_items("chat.test", timeout=WAIT)
    assert items["disco_items"]["items"] == {
        ("rooms.chat.test", None, "Rooms"),
        ("upload.chat.test", None, "File upload"),
    }
    assert await alice.plugin["xep_0199"].ping("chat.test", timeout=WAIT) >= 0
    assert await alice.plugin["xep_0199"].ping(bob.boundjid.full, timeout=WAIT) >= 0
    version = await alice.plugin["xep_0092"].get_version("chat.test", timeout=WAIT)
    assert version["software_version"]["name"] == "Moim"
    await alice.plugin["xep_0202"].get_entity_time("chat.test", timeout=WAIT)
    card = await alice.plugin["xep_0054"].get_vcard("bob@chat.test", timeout=WAIT)
    assert card["vcard_temp"]["FN"] == "Bob"
    own = alice.plugin["xep_0054"].make_vcard()
    own["FN"] = "앨리스"
    await alice.plugin["xep_0054"].publish_vcard(own, timeout=WAIT)
    card = await bob.plugin["xep_0054"].get_vcard("alice@chat.test", cached=False, timeout=WAIT)
    assert card["vcard_temp"]["FN"] == "앨리스"


async def test_an_unknown_request_is_answered(person: MakePerson) -> None:
    alice = await person("alice").sign_in()
    iq = alice.make_iq_get(queryxmlns="urn:example:nothing", ito="chat.test")
    with pytest.raises(IqError) as refused:
        await iq.send(timeout=WAIT)
    assert refused.value.condition == "service-unavailable"


@pytest.mark.parametrize("name", ["alice", "nobody"])
async def test_a_wrong_password_and_an_unknown_name_are_refused_alike(person: MakePerson, name: str) -> None:
    mallory = person(name, password="guess")
    mallory.dial()
    await asyncio.wait_for(mallory.refused.wait(), WAIT)


async def test_the_newer_connection_wins(person: MakePerson) -> None:
    first = await person("alice", resource="phone").sign_in()
    second = await person("alice", resource="phone").sign_in()
    error = await first.next("stream_error")
    assert error["condition"] == "conflict"
    await asyncio.wait_for(first.gone.wait(), WAIT)
    await second.sync()
