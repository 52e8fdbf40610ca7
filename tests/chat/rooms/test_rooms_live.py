"""Rooms over the real plane and store: what survives a restart, limits, forged words, several devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from moim.chat import rooms
from moim.chat.rooms import tables
from moim.errors import Unavailable
from moim.model import Address, UserRemoved
from moim.proto.xmpp import Element, ns
from moim.store import migrate
from moim.store.engine import make_engine
from stanza_parts import body, child

ROOM = "den@rooms.chat.test"
MUC = "<x xmlns='http://jabber.org/protocol/muc'/>"
Matches = Callable[[Element, Element], str]


async def enter(client: Any, nick: str, room: str = ROOM, more: str = MUC) -> list[Element]:
    """Enters, and gives everything up to the subject; or the error."""
    client.send(f"<presence to='{room}/{nick}'>{more}</presence>")
    got = []
    while True:
        got.append(await client.receive())
        last = got[-1]
        if last.get("type") == "error" or (last.name == "message" and last.find("subject") is not None):
            return got


async def configure(client: Any, room: str = ROOM, **fields: str) -> Element:
    inner = "".join(
        f"<field var='muc#roomconfig_{key}'><value>{value}</value></field>" for key, value in fields.items()
    )
    head = f"<field var='FORM_TYPE'><value>{ns.MUC_CONFIG}</value></field>"
    filled = f"<x xmlns='jabber:x:data' type='submit'>{head if fields else ''}{inner}</x>"
    form = f"<query xmlns='{ns.MUC_OWNER}'>{filled}</query>"
    answer: Element = await client.request(form, kind="set", to=room)
    return answer


async def admin(client: Any, item: str, kind: str = "set") -> Element:
    answer: Element = await client.request(f"<query xmlns='{ns.MUC_ADMIN}'>{item}</query>", kind=kind, to=ROOM)
    return answer


def condition(stanza: Element) -> str:
    error = stanza.find("error")
    assert error is not None, stanza.to_xml()
    return error.elements()[0].name


async def drain(client: Any) -> list[Element]:
    await client.sync()
    return [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]


def occupant_id(stanza: Element) -> str | None:
    mark = stanza.find("occupant-id", ns.OCCUPANT_ID)
    return mark.get("id") if mark is not None else None


async def test_a_persistent_room_survives_a_restart(house: Any) -> None:
    alice = await house.online("alice")
    await enter(alice, "A")
    assert (await configure(alice, persistentroom="1", roomname="굴", membersonly="1")).get("type") == "result"
    assert (await admin(alice, "<item jid='bob@chat.test' affiliation='member'/>")).get("type") == "result"
    alice.send(f"<message type='groupchat' to='{ROOM}'><body>하나</body></message>")
    alice.send(f"<message type='groupchat' to='{ROOM}'><body>not kept</body><no-store xmlns='{ns.HINTS}'/></message>")
    alice.send(f"<message type='groupchat' to='{ROOM}'><subject>봄</subject></message>")
    before = [stanza for stanza in await drain(alice) if stanza.find("body") is not None]
    await house.restart()
    bob, carol = await house.online("bob"), await house.online("carol")
    info = await bob.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to=ROOM)
    assert info.elements()[0].find("identity").get("name") == "굴"
    own, said, subject = await enter(bob, "B")
    assert child(own, ("x", ns.MUC_USER), "item").get("affiliation") == "member"
    assert body(said) == "하나"
    assert said.find("stanza-id", ns.STANZA_IDS) == before[0].find("stanza-id", ns.STANZA_IDS)
    assert occupant_id(said) == occupant_id(before[0])
    assert (child(subject, "subject").text, subject.get("from")) == ("봄", f"{ROOM}/A")
    assert condition((await enter(carol, "C"))[-1]) == "registration-required"
    alice = await house.online("alice")
    await enter(alice, "A")
    gone = await alice.request(f"<query xmlns='{ns.MUC_OWNER}'><destroy/></query>", kind="set", to=ROOM)
    assert gone.get("type") == "result"
    await house.restart()
    alice = await house.online("alice")
    assert condition(await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to=ROOM)) == "item-not-found"


async def test_a_change_that_the_disk_refuses_is_refused_and_tried_again(house: Any, monkeypatch: Any) -> None:
    alice = await house.online("alice")
    await enter(alice, "A")
    assert (await configure(alice, persistentroom="1")).get("type") == "result"

    async def full(_work: object) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(house.store, "write", full)
        refused = await admin(alice, "<item jid='bob@chat.test' affiliation='member'/>")
        assert condition(refused) == "internal-server-error"
        alice.send(f"<message type='groupchat' to='{ROOM}'><body>heard all the same</body></message>")
        heard = [body.text for s in await drain(alice) if (body := s.find("body")) is not None]
        assert heard == ["heard all the same"]
    assert (await admin(alice, "<item jid='carol@chat.test' affiliation='member'/>")).get("type") == "result"
    await house.restart()
    alice = await house.online("alice")
    listed = await admin(alice, "<item affiliation='member'/>", "get")
    assert [item.get("jid") for item in listed.elements()[0].elements()] == ["bob@chat.test", "carol@chat.test"]


async def test_a_temporary_room_does_not(house: Any) -> None:
    alice = await house.online("alice")
    await enter(alice, "A")
    assert (await configure(alice)).get("type") == "result"
    await house.restart()
    alice = await house.online("alice")
    assert condition(await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to=ROOM)) == "item-not-found"


async def test_two_devices_share_a_nickname(house: Any) -> None:
    alice, phone, bob = await house.online("alice"), await house.online("alice", "phone"), await house.online("bob")
    await enter(alice, "A")
    await configure(alice)
    await enter(bob, "B")
    await drain(alice)
    await enter(phone, "A")
    assert condition((await enter(bob, "A"))[-1]) == "conflict"
    await drain(bob)
    bob.send(f"<message type='groupchat' to='{ROOM}'><body>to both</body></message>")
    assert [body(s) for s in await drain(phone)][-1:] == ["to both"]
    phone.send(f"<presence type='unavailable' to='{ROOM}/A'/>")
    (left,) = await drain(phone)
    assert left.get("type") == "unavailable"
    seen = await drain(bob)
    assert not [stanza for stanza in seen if stanza.get("type") == "unavailable"]
    alice.drop()
    assert (await bob.receive()).get("type") == "unavailable"


async def test_nobody_can_write_what_only_the_room_says(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    await enter(alice, "A")
    await configure(alice)
    forged = (
        f"<occupant-id xmlns='{ns.OCCUPANT_ID}' id='forged'/><x xmlns='{ns.MUC_USER}'><item affiliation='owner'/></x>"
        f"<delay xmlns='{ns.DELAY}' from='{ROOM}' stamp='2001-01-01T00:00:00Z'/>"
        f"<stanza-id xmlns='{ns.STANZA_IDS}' by='{ROOM}' id='forged'/>"
    )
    await enter(bob, "B", more=MUC + forged)
    bob.send(f"<message type='groupchat' to='{ROOM}'><body>1</body>{forged}</message>")
    bob.send(f"<message type='chat' to='{ROOM}/A'><body>2</body>{forged}</message>")
    bob.send(f"<message to='{ROOM}'><x xmlns='{ns.MUC_USER}'><decline to='alice@chat.test'/></x></message>")
    await bob.settle()
    seen = await drain(alice)
    texts = [stanza.to_xml() for stanza in seen]
    assert not [text for text in texts if "forged" in text or "2001" in text or "decline" in text]
    assert not [stanza for stanza in seen if stanza.name == "presence" and "owner" in stanza.to_xml() and
                stanza.get("from") == f"{ROOM}/B"]  # fmt: skip
    assert {occupant_id(s) for s in seen if (s.get("from") or "").endswith("/B")} == {
        occupant_id(next(s for s in seen if s.name == "presence" and s.get("from") == f"{ROOM}/B"))
    }


async def test_an_invitation_waits_for_whoever_is_away_and_can_be_declined(house: Any) -> None:
    alice = await house.online("alice")
    await enter(alice, "A")
    await configure(alice)
    alice.send(f"<message to='{ROOM}'><x xmlns='{ns.MUC_USER}'><invite to='bob@chat.test'/></x></message>")
    await alice.sync()
    bob = await house.client("bob").connect()
    bob.send("<presence/>")
    received = [await bob.receive(), await bob.receive()]
    (invitation,) = [stanza for stanza in received if stanza.name == "message"]
    assert invitation.find("x", ns.MUC_USER).find("invite").get("from") == "alice@chat.test"
    decline = f"<x xmlns='{ns.MUC_USER}'><decline to='alice@chat.test'><reason>busy</reason></decline></x>"
    bob.send(f"<message to='{ROOM}' id='1'>{decline}</message>")
    answer = await alice.receive()
    assert answer.find("x", ns.MUC_USER).find("decline").get("from") == "bob@chat.test"
    bob.send(f"<message to='{ROOM}' id='2'>{decline}</message>")
    assert condition(await bob.receive()) == "forbidden"


async def test_history_as_wanted(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    await enter(alice, "A")
    await configure(alice)
    for number in range(5):
        alice.send(f"<message type='groupchat' to='{ROOM}'><body>{number}</body></message>")
    await alice.sync()
    for limits, expected in (
        ("maxstanzas='2'", ["3", "4"]),
        ("maxchars='0'", []),
        ("since='2999-01-01T00:00:00Z'", []),
        ("seconds='1000'", ["0", "1", "2", "3", "4"]),
    ):
        more = f"<x xmlns='{ns.MUC}'><history {limits}/></x>"
        got = await enter(bob, "B", more=more)
        assert [body(s) for s in got if s.find("body") is not None] == expected, limits
        bob.send(f"<presence type='unavailable' to='{ROOM}/B'/>")
        await drain(bob)
    assert (
        condition((await enter(bob, "B", more=f"<x xmlns='{ns.MUC}'><history since='soon'/></x>"))[-1]) == "bad-request"
    )


async def test_a_removed_account_leaves_no_rights_behind(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    await enter(alice, "A")
    await configure(alice, persistentroom="1")
    await enter(bob, "B")
    await admin(alice, "<item jid='bob@chat.test' affiliation='admin'/>")
    await drain(bob)
    del house.users.passwords["alice"]
    await house.bus.publish(UserRemoved(Address("alice", "chat.test")))
    await alice.ended()
    while (shown := await bob.receive()).get("from") != f"{ROOM}/B":
        pass
    assert child(shown, ("x", ns.MUC_USER), "item").get("affiliation") == "owner"
    house.users.passwords["alice"] = "another"
    again = await house.online("alice")
    await enter(again, "A2")
    assert condition(await admin(again, "<item affiliation='owner'/>", "get")) == "forbidden"


async def test_an_occupant_who_is_blocked_is_not_heard(house: Any) -> None:
    alice, bob, carol = await house.online("alice"), await house.online("bob"), await house.online("carol")
    await enter(alice, "A")
    await configure(alice)
    await enter(bob, "B")
    await enter(carol, "C")
    block = f"<block xmlns='urn:xmpp:blocking'><item jid='{ROOM}/B'/></block>"
    assert (await alice.request(block, kind="set")).get("type") == "result"
    await drain(alice)
    for client, words in ((bob, "unheard"), (carol, "heard")):
        client.send(f"<message type='groupchat' to='{ROOM}'><body>{words}</body></message>")
        await client.sync()
    assert [body.text for stanza in await drain(alice) if (body := stanza.find("body")) is not None] == ["heard"]


async def test_limits(new_house: Any) -> None:
    house = await new_house(default_contacts=False, rooms_per_user=2, rooms_occupants=2, rooms_stanzas_burst=20,
                            rooms_stanzas_per_second=0.001)  # fmt: skip
    alice, bob, carol = await house.online("alice"), await house.online("bob"), await house.online("carol")
    for name in ("one", "two"):
        await enter(alice, "A", f"{name}@rooms.chat.test")
        await configure(alice, f"{name}@rooms.chat.test")
    assert condition((await enter(alice, "A", "three@rooms.chat.test"))[-1]) == "resource-constraint"
    await enter(bob, "B", "one@rooms.chat.test")
    assert condition((await enter(carol, "C", "one@rooms.chat.test"))[-1]) == "service-unavailable"
    await drain(bob)
    for _ in range(25):
        bob.send("<message type='groupchat' to='one@rooms.chat.test'><body>!</body></message>")
    refused = [stanza for stanza in await drain(bob) if stanza.get("type") == "error"]
    assert {condition(stanza) for stanza in refused} == {"policy-violation"}
    assert len(refused) == 6
    bob.send("<presence type='unavailable' to='one@rooms.chat.test/B'/>")
    assert (await bob.receive()).get("type") == "unavailable", "leaving is always possible"


async def test_a_room_is_not_a_contact(house: Any) -> None:
    alice = await house.online("alice")
    alice.send(f"<presence type='subscribe' to='{ROOM}'/>")
    assert condition(await alice.receive()) == "not-allowed"
    roster = await alice.request(f"<query xmlns='{ns.ROSTER}'/>")
    assert not roster.elements()[0].elements()


async def test_without_rooms_there_is_no_such_domain(new_house: Any) -> None:
    house = await new_house(default_contacts=False, rooms=False)
    alice = await house.online("alice")
    items = await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="chat.test")
    assert "rooms.chat.test" not in [item.get("jid") for item in items.elements()[0].elements()]
    refused = await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="rooms.chat.test")
    assert condition(refused) == "remote-server-not-found"


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    line = Path(rooms.__file__).parent / "migrations"
    migrate(path, [line.parents[1] / "migrations"])
    migrate(path, [line.parents[1] / "migrations", line])
    engine = make_engine(path)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: name != "alembic_version"}
        )
        found = sa.MetaData()
        found.reflect(connection, only=list(tables.metadata.tables))
        others = [change for change in compare_metadata(context, tables.metadata) if "remove" not in str(change[0])]
        assert others == []
        assert set(found.tables) == set(tables.metadata.tables)
    engine.dispose()


async def test_the_archive_of_a_room_tells_what_was_taken_back(new_house: Any) -> None:
    house = await new_house(default_contacts=False, rooms_history=0)
    alice, bob = await house.online("alice"), await house.online("bob")
    await enter(alice, "A")
    assert (await configure(alice, persistentroom="1")).get("type") == "result"
    await enter(bob, "B")
    for words in ("DM me", "fine"):
        bob.send(f"<message type='groupchat' id='{words[:2]}' to='{ROOM}'><body>{words}</body></message>")
    said = [stanza for stanza in await drain(bob) if stanza.find("body") is not None]
    mark = said[0].find("stanza-id", ns.STANZA_IDS)
    assert mark is not None
    order = f"<moderate xmlns='{ns.MODERATION}' id='{mark.get('id')}'><retract xmlns='{ns.RETRACTION}'/></moderate>"
    assert (await alice.request(order, kind="set", to=ROOM)).get("type") == "result"
    assert condition(await alice.request(order, kind="set", to=ROOM)) == "item-not-found"
    await drain(bob)
    bob.send(f"<iq type='set' id='mam' to='{ROOM}'><query xmlns='{ns.ARCHIVE}'/></iq>")
    found = []
    while (stanza := await bob.receive()).name != "iq":
        forwarded = stanza.elements()[0].find("forwarded", ns.FORWARD)
        assert forwarded is not None
        found.append(forwarded.find("message", ns.CLIENT))
    bodies = [message.find("body").text if message.find("body") is not None else "" for message in found]
    assert bodies == ["", "fine", ""]
    stone = found[0].find("retracted", ns.RETRACTION)
    assert stone is not None
    assert stone.find("moderated", ns.MODERATION).get("by") == f"{ROOM}/A"
    assert found[0].get("from") == f"{ROOM}/B"
    assert found[2].find("retract", ns.RETRACTION).get("id") == mark.get("id")


async def test_who_may_resume_stays_in_the_room(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    await enter(alice, "A")
    await configure(alice)
    await enter(bob, "B")
    bob.send(Element("enable", "urn:xmpp:sm:3", {"resume": "true"}))
    while (await bob.receive()).name != "enabled":
        pass
    await drain(alice)
    bob.drop()
    async with asyncio.timeout(20):
        while not house.service.stats()["detached"]:
            await asyncio.sleep(0.01)
    alice.send(f"<message type='groupchat' id='there' to='{ROOM}'><body>still there?</body></message>")
    assert (await alice.receive()).get("id") == "there"
    items = await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to=ROOM)
    assert len(items.elements()[0].elements()) == 2
    await alice.quiet()
