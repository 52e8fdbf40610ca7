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
        for plugin in (
            "xep_0030", "xep_0045", "xep_0050", "xep_0054", "xep_0059", "xep_0077", "xep_0199", "xep_0249", "xep_0313",
            "xep_0317", "xep_0359", "xep_0421", "xep_0424", "xep_0425",
        ):  # fmt: skip
            self.register_plugin(plugin)
        self.online = asyncio.Event()
        self.add_event_handler("session_start", lambda _: self.online.set())
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        for event in ("groupchat_message", "groupchat_subject", "groupchat_invite", "groupchat_direct_invite",
                      "muc::salon@rooms.chat.test::got_online", "muc::salon@rooms.chat.test::got_offline",
                      "muc::salon@rooms.chat.test::self-presence", "message", "moderated_message",
                      "message_retract", "groupchat_config_status", "groupchat_presence"):  # fmt: skip
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


async def said(alice: Guest, bob: Guest, words: str) -> str:
    """Alice says something; gives the stanza-id that Bob sees."""
    alice.send_message(ROOM, words, mtype="groupchat")
    while (got := await bob.next("groupchat_message"))["body"] != words:
        pass
    identifier: str = got["stanza_id"]["id"]
    return identifier


async def test_moderated_and_own_retraction(guest: MakeGuest) -> None:
    alice, bob = await guest("alice").sign_in(), await guest("bob").sign_in()
    await open_room(alice, persistentroom=True)
    await bob.muc.join_muc_wait(ROOM, "Bob", timeout=WAIT)
    spam = await said(bob, alice, "DM me")
    with pytest.raises(IqError) as refused:
        await bob.plugin["xep_0425"].moderate(ROOM, spam, timeout=WAIT)
    assert refused.value.condition == "forbidden"
    await alice.plugin["xep_0425"].moderate(ROOM, spam, reason="spam", timeout=WAIT)
    notice = await bob.next("moderated_message")
    assert notice["from"] == ROOM
    assert notice["retract"]["id"] == spam
    assert notice["retract"]["moderated"]["by"] == JID(f"{ROOM}/앨리스")
    assert notice["retract"]["reason"] == "spam"

    oops = await said(bob, alice, "oops")
    bob.plugin["xep_0424"].send_retraction(ROOM, oops, mtype="groupchat", include_fallback=True)
    while (await alice.next("message_retract"))["retract"]["id"] != oops:
        pass
    carol = await guest("carol").sign_in()
    _, _, _, history = await carol.muc.join_muc_wait(ROOM, "Carol", maxstanzas=20, timeout=WAIT)
    assert not {"DM me", "oops"} & {message["body"] for message in history}


async def test_hats_by_command_in_presence(guest: MakeGuest) -> None:
    alice, bob = await guest("alice").sign_in(), await guest("bob").sign_in()
    await open_room(alice)
    await bob.muc.join_muc_wait(ROOM, "Bob", timeout=WAIT)
    found = await alice.plugin["xep_0050"].get_commands(ROOM, timeout=WAIT)
    node = "urn:xmpp:hats:commands"
    assert f"{node}:assign" in {item[1] for item in found["disco_items"]["items"]}
    for verb, fields in (
        ("create", {"hats#title": "Teacher", "hats#uri": "http://example.edu/hats#T", "hats#hue": "327.2"}),
        ("assign", {"hats#jid": "bob@chat.test", "hats#uri": "http://example.edu/hats#T"}),
    ):
        filled = alice.plugin["xep_0004"].make_form(ftype="submit")
        filled.add_field("FORM_TYPE", ftype="hidden", value=node)
        for var, value in fields.items():
            filled.add_field(var, value=value)
        done = await alice.plugin["xep_0050"].send_command(
            ROOM, f"{node}:{verb}", action="execute", payload=[filled], flow=False, timeout=WAIT
        )
        assert done["command"]["status"] == "completed"
    while not (shown := await bob.next("groupchat_presence"))["hats"]["hats"]:
        pass
    assert [(hat["title"], hat["hue"]) for hat in shown["hats"]["hats"]] == [("Teacher", 327.2)]
    info = await bob.plugin["xep_0030"].get_info(ROOM, timeout=WAIT)
    assert "urn:xmpp:hats:0" in info["disco_info"]["features"]


async def test_registration_and_pages_of_rooms(guest: MakeGuest) -> None:
    alice, bob = await guest("alice").sign_in(), await guest("bob").sign_in()
    await open_room(alice)
    asked = await bob.plugin["xep_0077"].get_registration(ROOM, timeout=WAIT)
    filled = asked["register"]["form"]
    filled["type"] = "submit"
    filled["values"] = {"FORM_TYPE": "http://jabber.org/protocol/muc#register", "muc#register_roomnick": "Robert"}
    request = bob.make_iq_set(ito=ROOM)
    request["register"].append(filled)
    await request.send(timeout=WAIT)
    own = await bob.plugin["xep_0030"].get_info(ROOM, node="x-roomuser-item", timeout=WAIT)
    assert ("conference", "text", None, "Robert") in own["disco_info"]["identities"]
    with pytest.raises(PresenceError) as taken:
        await (await guest("carol").sign_in()).muc.join_muc_wait(ROOM, "Robert", timeout=WAIT)
    assert taken.value.condition == "conflict"
    pages = await bob.plugin["xep_0030"].get_items("rooms.chat.test", iterator=True, timeout=WAIT)
    found = [page async for page in pages]
    assert str(ROOM) in found[0].xml.find(".//{http://jabber.org/protocol/disco#items}item").get("jid")


async def test_an_avatar_for_a_room(guest: MakeGuest) -> None:
    alice, bob = await guest("alice").sign_in(), await guest("bob").sign_in()
    await open_room(alice)
    await bob.muc.join_muc_wait(ROOM, "Bob", timeout=WAIT)
    card = alice.plugin["xep_0054"].make_vcard()
    card["PHOTO"]["TYPE"] = "image/png"
    card["PHOTO"]["BINVAL"] = b"picture"
    await alice.plugin["xep_0054"].publish_vcard(jid=ROOM, vcard=card, timeout=WAIT)
    told = await bob.next("groupchat_config_status")
    assert 104 in told["muc"]["status_codes"]
    got = await bob.plugin["xep_0054"].get_vcard(ROOM, cached=False, timeout=WAIT)
    assert got["vcard_temp"]["PHOTO"]["BINVAL"] == b"picture"
