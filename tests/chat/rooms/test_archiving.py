"""The archives of rooms: what goes in, who may read, what is taken back, and when one ends."""

from __future__ import annotations

import pytest

from moim.proto.xmpp import Element, Jid, ns
from room_machine import codes, form
from room_service import FAR, FARTHER, HALL, OWNER, NewWorld, World, condition


async def test_what_is_said_in_a_persistent_room_is_archived(world: World) -> None:
    await world.open(OWNER, "O")
    own = world.enter(FAR, "Far")
    assert 170 in codes(next(stanza for stanza in own if 110 in codes(stanza)))
    world.put(FAR, f"<message type='groupchat' to='{HALL}'><body>hello</body></message>")
    world.put(FAR, f"<message type='groupchat' to='{HALL}'><body>off</body><no-store xmlns='{ns.HINTS}'/></message>")
    world.put(FAR, f"<message type='groupchat' to='{HALL}'><active xmlns='{ns.CHAT_STATES}'/></message>")
    (identifier,) = world.archive.kept[HALL]
    assert identifier in world.take(FAR)[0].to_xml()
    world.take(OWNER)
    assert (await world.ask(FAR, f"<query xmlns='{ns.ARCHIVE}'/>", kind="set")).get("type") == "result"
    await world.ask(OWNER, f"<query xmlns='{ns.ARCHIVE}'/>", kind="set")
    assert world.archive.asked == [(HALL, Jid.parse(FAR), False), (HALL, Jid.parse(OWNER), True)]
    assert (await world.ask(FAR, f"<metadata xmlns='{ns.ARCHIVE}'/>")).get("type") == "result"
    info = await world.ask(FAR, f"<query xmlns='{ns.DISCO_INFO}'/>")
    assert f"var='{ns.ARCHIVE}'" in info.to_xml()


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [({}, True), ({"membersonly": "1"}, False), ({"roomsecret": "s"}, False), ({"enablelogging": "0"}, False)],
)
async def test_an_archive_is_for_those_who_may_enter(world: World, fields: dict[str, str], allowed: bool) -> None:
    await world.open(OWNER, "O", **fields)
    answer = await world.ask(FAR, f"<query xmlns='{ns.ARCHIVE}'/>", kind="set")
    assert (answer.get("type") == "result") is allowed
    if allowed:
        ban = f"<query xmlns='{ns.MUC_ADMIN}'><item jid='far@y.test' affiliation='outcast'/></query>"
        await world.ask(OWNER, ban, kind="set")
        assert condition(await world.ask(FAR, f"<query xmlns='{ns.ARCHIVE}'/>", kind="set")) == "forbidden"


async def test_moderation_reaches_into_the_archive(new_world: NewWorld) -> None:
    world = new_world(history=0)
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    world.put(FAR, f"<message type='groupchat' to='{HALL}'><body>DM me</body></message>")
    (identifier,) = world.archive.kept[HALL]
    inner = f"<moderate xmlns='{ns.MODERATION}' id='{identifier}'><retract xmlns='{ns.RETRACTION}'/></moderate>"
    assert condition(await world.ask(FAR, inner, kind="set")) == "forbidden"
    world.sent.clear()
    assert (await world.ask(OWNER, inner, kind="set")).get("type") == "result"
    assert world.take(FAR)[0].find("retract", ns.RETRACTION) is not None
    assert "DM me" not in world.archive.kept[HALL][identifier].message.to_xml()
    assert condition(await world.ask(OWNER, inner, kind="set")) == "item-not-found"


async def test_authors_retract_in_the_archive_what_is_theirs(new_world: NewWorld) -> None:
    world = new_world(history=0)
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    world.enter(FARTHER, "Farther")
    world.put(FAR, f"<message type='groupchat' to='{HALL}'><body>oops</body></message>")
    (identifier,) = world.archive.kept[HALL]
    kept = world.archive.kept[HALL][identifier]
    for who in (FARTHER, FAR):
        retract = f"<retract xmlns='{ns.RETRACTION}' id='{identifier}'/>"
        world.put(who, f"<message type='groupchat' id='r' to='{HALL}'>{retract}</message>")
        await world.rooms._tasks.settled()
        assert ("oops" in kept.message.to_xml()) is (who == FARTHER)


async def test_the_archive_of_a_destroyed_room_goes(world: World) -> None:
    await world.open(OWNER, "O")
    world.put(OWNER, f"<message type='groupchat' to='{HALL}'><body>hello</body></message>")
    await world.ask(OWNER, f"<query xmlns='{ns.MUC_OWNER}'><destroy/></query>", kind="set")
    await world.rooms._tasks.settled()
    assert HALL not in world.archive.kept


async def test_the_archive_of_a_temporary_room_goes_with_its_occupants(world: World) -> None:
    world.archive.say(HALL, Element.parse(f"<message xmlns='{ns.CLIENT}'/>"), Jid.parse(FAR), "1")  # before a crash
    await world.open(OWNER, "O", persistentroom="0")
    await world.rooms._tasks.settled()
    assert HALL not in world.archive.kept
    world.put(OWNER, f"<message type='groupchat' to='{HALL}'><body>hello</body></message>")
    answer = await world.ask(FAR, f"<query xmlns='{ns.ARCHIVE}'/>", kind="set")
    assert answer.get("type") == "result"
    assert len(world.archive.kept[HALL]) == 1
    world.put(OWNER, f"<presence type='unavailable' to='{HALL}/O'/>")
    await world.rooms._tasks.settled()
    assert HALL not in world.archive.kept


async def test_a_room_that_becomes_temporary_keeps_its_archive_until_it_ends(world: World) -> None:
    await world.open(OWNER, "O")
    world.put(OWNER, f"<message type='groupchat' to='{HALL}'><body>hello</body></message>")
    submitted = form(ns.MUC_CONFIG, muc__roomconfig_persistentroom="0")
    await world.ask(OWNER, f"<query xmlns='{ns.MUC_OWNER}'>{submitted}</query>", kind="set")
    await world.rooms._tasks.settled()
    assert len(world.archive.kept[HALL]) == 1


# --- who is inside ------------------------------------------------------------------------------------------------
