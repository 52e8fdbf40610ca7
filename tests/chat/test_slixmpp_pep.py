"""slixmpp's plugins for blocking, private storage and personal events, unmodified, against the service."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError
from slixmpp.plugins.xep_0048.stanza import Bookmarks
from slixmpp.xmlstream import ET, ElementBase

pytestmark = pytest.mark.interop

WAIT = 20.0
PLUGINS = (
    "xep_0004", "xep_0030", "xep_0048", "xep_0049", "xep_0054", "xep_0060", "xep_0084", "xep_0085", "xep_0115",
    "xep_0118", "xep_0153", "xep_0163", "xep_0172", "xep_0184", "xep_0191", "xep_0199", "xep_0222", "xep_0223",
    "xep_0308", "xep_0333",
)  # fmt: skip


class Person(ClientXMPP):
    """A slixmpp client with the plugins; what it hears waits in queues."""

    def __init__(self, house: Any, name: str) -> None:
        super().__init__(f"{name}@chat.test", house.users.passwords[name])
        self.house = house
        self.ssl_context = ssl.create_default_context(cafile=str(house.files.chain))
        self.ca_certs = str(house.files.chain)
        for plugin in PLUGINS:
            self.register_plugin(plugin)
        self.ready = asyncio.Event()
        self.add_event_handler("session_start", lambda _: self.ready.set())
        self.heard: dict[str, asyncio.Queue[Any]] = {}

    def listen(self, event: str) -> asyncio.Queue[Any]:
        queue = self.heard[event] = asyncio.Queue()
        self.add_event_handler(event, queue.put_nowait)
        return queue

    async def next(self, event: str) -> Any:
        return await asyncio.wait_for(self.heard[event].get(), WAIT)

    async def sign_in(self) -> Person:
        self.connect(*self.house.place("xmpp-client"))
        await asyncio.wait_for(self.ready.wait(), WAIT)
        await self.get_roster()
        return self

    async def show(self) -> None:
        await self.plugin["xep_0115"].update_caps()
        self.send_presence()
        for _ in range(2):  # the server asks for capabilities in between
            await self.plugin["xep_0199"].ping("chat.test", timeout=WAIT)


class Secret(ElementBase):
    name, namespace = "s", "urn:example:s"


Meet = Callable[..., Awaitable[list[Person]]]


@pytest.fixture
async def meet(new_house: Any) -> AsyncIterator[Meet]:
    """People of one house who are contacts of each other, signed in, not yet available."""
    made: list[Person] = []

    async def make(*names: str, **options: Any) -> list[Person]:
        house = await new_house(**options)
        for name in names:
            made.append(Person(house, name))
            await made[-1].sign_in()
        return made

    yield make
    for one in made:
        one.abort()
        await asyncio.sleep(0)


async def test_blocking(meet: Meet) -> None:
    alice, bob = await meet("alice", "bob")
    block = alice.plugin["xep_0191"]
    assert set((await block.get_blocked(timeout=WAIT))["blocklist"]["items"]) == set()
    await block.block("bob@chat.test", timeout=WAIT)
    items = (await block.get_blocked(timeout=WAIT))["blocklist"]["items"]
    assert [str(item["jid"]) for item in items] == ["bob@chat.test"]
    await block.unblock("bob@chat.test", timeout=WAIT)
    assert set((await block.get_blocked(timeout=WAIT))["blocklist"]["items"]) == set()
    info = await bob.plugin["xep_0030"].get_info("chat.test", timeout=WAIT)
    assert {"urn:xmpp:blocking", "jabber:iq:private"} <= info["disco_info"]["features"]


async def test_events_reach_those_who_want_them(meet: Meet) -> None:
    alice, bob = await meet("alice", "bob")
    bob.listen("user_tune_publish")
    bob.plugin["xep_0163"].add_interest("http://jabber.org/protocol/tune")
    await alice.show()
    await alice.plugin["xep_0118"].publish_tune(artist="조용필", title="단발머리", timeout=WAIT)
    await bob.show()
    last = await bob.next("user_tune_publish")
    assert last["from"].full == "alice@chat.test"
    assert last["type"] == "headline"
    assert last["pubsub_event"]["items"]["item"]["tune"]["title"] == "단발머리"
    await alice.plugin["xep_0118"].publish_tune(artist="x", title="y", timeout=WAIT)
    assert (await bob.next("user_tune_publish"))["pubsub_event"]["items"]["item"]["tune"]["title"] == "y"


async def test_avatars_by_pep(meet: Meet) -> None:
    alice, bob = await meet("alice", "bob")
    bob.listen("avatar_metadata_publish")
    await alice.show()
    await bob.show()
    picture = b"\x89PNG" + b"x" * 5000
    await alice.plugin["xep_0084"].publish_avatar(picture, timeout=WAIT)
    number = alice.plugin["xep_0084"].generate_id(picture)
    await alice.plugin["xep_0084"].publish_avatar_metadata(
        [{"id": number, "type": "image/png", "bytes": len(picture)}], timeout=WAIT
    )
    told = await bob.next("avatar_metadata_publish")
    assert told["pubsub_event"]["items"]["item"]["id"] == number
    got = await bob.plugin["xep_0084"].retrieve_avatar("alice@chat.test", number, timeout=WAIT)
    assert got["pubsub"]["items"]["item"]["avatar_data"]["value"] == picture


async def test_nodes_are_made_configured_and_deleted(meet: Meet) -> None:
    alice, bob = await meet("alice", "bob")
    service = alice.plugin["xep_0060"]
    await service.create_node("alice@chat.test", "urn:example:n", timeout=WAIT)
    with pytest.raises(IqError) as refused:
        await service.create_node("alice@chat.test", "urn:example:n", timeout=WAIT)
    assert refused.value.condition == "conflict"
    got = await service.get_node_config("alice@chat.test", "urn:example:n", timeout=WAIT)
    form = got["pubsub_owner"]["configure"]["form"]
    assert form.get_values()["pubsub#access_model"] == "presence"
    form.reply()
    form["type"] = "submit"
    form.set_values({"pubsub#access_model": "whitelist", "pubsub#max_items": "3"})
    await service.set_node_config("alice@chat.test", "urn:example:n", form, timeout=WAIT)
    for number in range(5):
        payload = ET.fromstring(f"<x xmlns='urn:example:x'>{number}</x>")
        await service.publish("alice@chat.test", "urn:example:n", id=str(number), payload=payload, timeout=WAIT)
    items = await service.get_items("alice@chat.test", "urn:example:n", timeout=WAIT)
    assert [item["id"] for item in items["pubsub"]["items"]] == ["2", "3", "4"]
    items = await service.get_items("alice@chat.test", "urn:example:n", max_items=1, timeout=WAIT)
    assert [item["id"] for item in items["pubsub"]["items"]] == ["4"]
    nodes = await alice.plugin["xep_0030"].get_items("alice@chat.test", timeout=WAIT)
    assert ("alice@chat.test", "urn:example:n", None) in nodes["disco_items"]["items"]
    with pytest.raises(IqError) as refused:
        await bob.plugin["xep_0060"].get_items("alice@chat.test", "urn:example:n", timeout=WAIT)
    assert refused.value.condition == "not-allowed"
    await service.modify_affiliations("alice@chat.test", "urn:example:n", [("bob@chat.test", "member")], timeout=WAIT)
    await bob.plugin["xep_0060"].get_items("alice@chat.test", "urn:example:n", timeout=WAIT)
    await service.retract("alice@chat.test", "urn:example:n", "4", notify=True, timeout=WAIT)
    await service.purge("alice@chat.test", "urn:example:n", timeout=WAIT)
    await service.delete_node("alice@chat.test", "urn:example:n", timeout=WAIT)
    with pytest.raises(IqError) as refused:
        await service.get_items("alice@chat.test", "urn:example:n", timeout=WAIT)
    assert refused.value.condition == "item-not-found"


async def test_private_data_in_pep(meet: Meet) -> None:
    alice, bob = await meet("alice", "bob")
    store = alice.plugin["xep_0223"]
    await store.store(Secret(ET.fromstring("<s xmlns='urn:example:s'>secret</s>")), node="urn:example:s", timeout=WAIT)
    got = await store.retrieve("urn:example:s", timeout=WAIT)
    assert got["pubsub"]["items"]["item"]["payload"].text == "secret"
    with pytest.raises(IqError):
        await bob.plugin["xep_0060"].get_items("alice@chat.test", "urn:example:s", timeout=WAIT)


async def test_avatars_by_vcard(meet: Meet) -> None:
    alice, bob = await meet("alice", "bob")
    bob.listen("vcard_avatar_update")
    await bob.show()
    await alice.show()
    picture = b"\x89PNG" + b"y" * 3000
    await alice.plugin["xep_0153"].set_avatar(avatar=picture, mtype="image/png", timeout=WAIT)
    number = alice.plugin["xep_0084"].generate_id(picture)
    while (await bob.next("vcard_avatar_update"))["vcard_temp_update"]["photo"] != number:
        pass
    got = await bob.plugin["xep_0084"].retrieve_avatar("alice@chat.test", number, timeout=WAIT)
    assert got["pubsub"]["items"]["item"]["avatar_data"]["value"] == picture


async def test_bookmarks_of_an_older_client(meet: Meet) -> None:
    (alice,) = await meet("alice")
    plugin = alice.plugin["xep_0048"]
    bookmarks = Bookmarks()
    bookmarks.add_conference("room@rooms.test", "앨리스", autojoin=True, name="방")
    await plugin.set_bookmarks(bookmarks, method="xep_0049", timeout=WAIT)
    got = await plugin.get_bookmarks(method="xep_0049", timeout=WAIT)
    (found,) = got["private"]["bookmarks"]["conferences"]
    assert (str(found["jid"]), found["name"], found["nick"], found["autojoin"]) == (
        "room@rooms.test", "방", "앨리스", True
    )  # fmt: skip
    items = await alice.plugin["xep_0060"].get_items("alice@chat.test", "urn:xmpp:bookmarks:1", timeout=WAIT)
    assert [item["id"] for item in items["pubsub"]["items"]] == ["room@rooms.test"]


async def test_what_needs_nothing_of_the_server_passes_through_it(meet: Meet) -> None:
    alice, bob = await meet("alice", "bob")
    bob.listen("message")
    for event in ("receipt_received", "marker_displayed"):
        alice.listen(event)
    bob.listen("message_correction")
    bob.listen("chatstate_composing")
    await alice.show()
    await bob.show()
    message = alice.make_message(bob.boundjid.full, "안녕", mtype="chat")
    message["id"], message["request_receipt"] = "m1", True
    message.enable("markable")
    message.send()
    got = await bob.next("message")
    assert got["body"] == "안녕"
    assert (await alice.next("receipt_received"))["receipt"] == "m1"
    bob.plugin["xep_0333"].send_marker(alice.boundjid, "m1", "displayed")
    assert (await alice.next("marker_displayed"))["displayed"]["id"] == "m1"
    alice.plugin["xep_0308"].correct_message(message, "안녕!").send()
    assert (await bob.next("message_correction"))["body"] == "안녕!"
    typing = alice.make_message(bob.boundjid.full, mtype="chat")
    typing["chat_state"] = "composing"
    typing.send()
    await bob.next("chatstate_composing")
