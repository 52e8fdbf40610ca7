"""slixmpp's group chat plugin, unmodified, against the rooms of the real service."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import IqError, PresenceError

pytestmark = pytest.mark.interop

ROOM = JID("salon@rooms.chat.test")
WAIT = 20


class Guest(ClientXMPP):
    """A slixmpp client that is in rooms; its events wait in queues."""

    def __init__(self, house: Any, name: str) -> None:
        super().__init__(f"{name}@chat.test", house.users.passwords[name])
        self.house = house
        self.ssl_context = ssl.create_default_context(cafile=str(house.files.chain))
        self.ca_certs = str(house.files.chain)
        for plugin in ("xep_0030", "xep_0045", "xep_0199", "xep_0249", "xep_0359", "xep_0421"):
            self.register_plugin(plugin)
        self.online = asyncio.Event()
        self.add_event_handler("session_start", lambda _: self.online.set())
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        for event in ("groupchat_message", "groupchat_subject", "groupchat_invite", "groupchat_direct_invite",
                      "muc::salon@rooms.chat.test::got_online", "muc::salon@rooms.chat.test::got_offline",
                      "muc::salon@rooms.chat.test::self-presence", "message"):  # fmt: skip
            self.queues[event] = asyncio.Queue()
            self.add_event_handler(event, self.queues[event].put_nowait)

    @property
    def muc(self) -> Any:
        return self.plugin["xep_0045"]

    async def sign_in(self) -> Guest:
        self.enable_direct_tls, self.enable_starttls = False, True
        self.connect(*self.house.place("xmpp-client"))
        await asyncio.wait_for(self.online.wait(), WAIT)
        self.send_presence()
        return self

    async def next(self, event: str) -> Any:
        return await asyncio.wait_for(self.queues[event].get(), WAIT)


MakeGuest = Callable[[str], Guest]


@pytest.fixture
async def guest(house: Any) -> AsyncIterator[MakeGuest]:
    made: list[Guest] = []

    def make(name: str) -> Guest:
        made.append(Guest(house, name))
        return made[-1]

    yield make
    for one in made:
        one.abort()
        await asyncio.sleep(0)


async def open_room(alice: Guest, **options: Any) -> None:
    shown, _, _, _ = await alice.muc.join_muc_wait(ROOM, "앨리스", timeout=WAIT)
    assert 201 in shown["muc"]["status_codes"]
    form = await alice.muc.get_room_config(ROOM, timeout=WAIT)
    for key, value in options.items():
        form.get_fields()[f"muc#roomconfig_{key}"].set_value(value)
    form["type"] = "submit"
    await alice.muc.set_room_config(ROOM, form, timeout=WAIT)


async def test_a_room_from_its_making_to_its_end(guest: MakeGuest) -> None:
    alice, bob = await guest("alice").sign_in(), await guest("bob").sign_in()
    await open_room(alice, roomname="Salon", persistentroom=True)
    info = await bob.plugin["xep_0030"].get_info(ROOM, timeout=WAIT)
    assert {"muc_persistent", "muc_open", "muc_semianonymous"} <= info["disco_info"]["features"]
    assert ("conference", "text", None, "Salon") in info["disco_info"]["identities"]
    rooms = await bob.plugin["xep_0030"].get_items("rooms.chat.test", timeout=WAIT)
    assert (str(ROOM), None, "Salon") in rooms["disco_items"]["items"]

    alice.send_message(ROOM, "먼저", mtype="groupchat")
    assert (await alice.next("groupchat_message"))["body"] == "먼저"
    _, _, occupants, history = await bob.muc.join_muc_wait(ROOM, "Bob", maxstanzas=10, timeout=WAIT)
    assert [presence["from"].resource for presence in occupants] == ["앨리스", "Bob"]
    assert [message["body"] for message in history] == ["먼저"]
    assert history[0]["delay"]["stamp"] is not None
    await alice.next("muc::salon@rooms.chat.test::got_online")

    bob.send_message(ROOM, "hi 👋", mtype="groupchat")
    got = await alice.next("groupchat_message")
    assert (got["from"], got["body"]) == (JID(f"{ROOM}/Bob"), "hi 👋")
    assert got["occupant-id"]["id"]
    assert got["stanza_id"]["by"] == ROOM
    alice.muc.set_subject(ROOM, "오늘")
    while (subject := await bob.next("groupchat_subject"))["subject"] != "오늘":
        pass

    bob.send_message(f"{ROOM}/앨리스", "psst", mtype="chat")
    while (whisper := await alice.next("message"))["type"] != "chat":
        pass
    assert (whisper["from"].resource, whisper["body"], subject["from"].resource) == ("Bob", "psst", "앨리스")
    assert await bob.plugin["xep_0199"].ping(f"{ROOM}/앨리스", timeout=WAIT) >= 0
    with pytest.raises(IqError):
        await bob.muc.destroy(ROOM, timeout=WAIT)
    await alice.muc.destroy(ROOM, reason="over", timeout=WAIT)
    with pytest.raises(IqError) as gone:
        await bob.plugin["xep_0030"].get_info(ROOM, timeout=WAIT)
    assert gone.value.condition == "item-not-found"


async def test_lists_roles_and_bans(guest: MakeGuest) -> None:
    alice, bob = await guest("alice").sign_in(), await guest("bob").sign_in()
    await open_room(alice, moderatedroom=True)
    shown, _, _, _ = await bob.muc.join_muc_wait(ROOM, "Bob", timeout=WAIT)
    assert shown["muc"]["role"] == "visitor"
    await alice.muc.set_role(ROOM, "Bob", "participant", timeout=WAIT)
    assert await alice.muc.get_roles_list(ROOM, "participant", timeout=WAIT) == ["Bob"]
    await alice.muc.set_affiliation(ROOM, "admin", jid="bob@chat.test", timeout=WAIT)
    assert await bob.muc.get_affiliation_list(ROOM, "owner", timeout=WAIT) == [JID("alice@chat.test")]
    with pytest.raises(IqError) as refused:
        await bob.muc.set_affiliation(ROOM, "none", jid="alice@chat.test", timeout=WAIT)
    assert refused.value.condition == "not-allowed"
    await alice.muc.set_affiliation(ROOM, "outcast", jid="bob@chat.test", reason="no", timeout=WAIT)
    away = await bob.next("muc::salon@rooms.chat.test::got_offline")
    assert 301 in away["muc"]["status_codes"]
    with pytest.raises(PresenceError) as banned:
        await bob.muc.join_muc_wait(ROOM, "Bob", timeout=WAIT)
    assert banned.value.condition == "forbidden"


async def test_invitations_both_ways(guest: MakeGuest) -> None:
    alice, bob = await guest("alice").sign_in(), await guest("bob").sign_in()
    await open_room(alice, membersonly=True)
    await bob.plugin["xep_0199"].ping("chat.test", timeout=WAIT)
    alice.muc.invite(ROOM, "bob@chat.test", reason="오세요")
    invitation = await bob.next("groupchat_invite")
    assert invitation["muc"]["invite"]["reason"] == "오세요"
    alice.plugin["xep_0249"].send_invitation(bob.boundjid.full, ROOM, reason="direct")
    await bob.next("groupchat_direct_invite")
    shown, _, _, _ = await bob.muc.join_muc_wait(ROOM, "Bob", timeout=WAIT)
    assert shown["muc"]["affiliation"] == "member"
