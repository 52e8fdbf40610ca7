"""The service with stanzas put in by hand, also those of other domains: what it answers, and whom it lets go."""

from __future__ import annotations

import pytest

from moim.chat.rooms import Share
from moim.chat.rooms.ranks import Role
from moim.proto.xmpp import Element, Jid, ns
from room_machine import codes, form, item
from room_service import FAR, FARTHER, HALL, HOST, MUC, OWNER, NewWorld, World, condition


async def test_who_believes_to_be_inside_hears_that_it_is_not(world: World) -> None:
    for room, affiliation in (("nowhere", "none"), ("hall", "none")):
        world.put(FAR, f"<presence to='{room}@{HOST}/Far'><show>away</show></presence>")
        (told,) = world.take(FAR)
        assert (told.get("type"), told.get("from"), codes(told)) == (
            "unavailable", f"{room}@{HOST}/Far", [110, 307, 333],
        )  # fmt: skip
        assert (item(told).get("role"), item(told).get("affiliation")) == ("none", affiliation)
        await world.open(OWNER, "O")
    assert [told.get("from") for told in world.enter(FAR, "Far")][:2] == [f"{HALL}/O", f"{HALL}/Far"]


async def test_a_self_ping_tells_whether_one_is_inside(world: World) -> None:
    ping = f"<ping xmlns='{ns.PING}'/>"
    assert condition(await world.ask(FAR, ping, to=f"{HALL}/Far")) == "not-acceptable", "there is no such room"
    world.enter(OWNER, "O")
    assert condition(await world.ask(FAR, ping, to=f"{HALL}/Far")) == "not-acceptable", "it is not open yet"
    await world.open(OWNER, "O")
    assert condition(await world.ask(FAR, ping, to=f"{HALL}/Far")) == "not-acceptable"
    assert condition(await world.ask(OWNER, ping, to=f"{HALL}/Other")) == "item-not-found"
    assert (await world.ask(OWNER, ping, to=f"{HALL}/O")).get("type") == "result"


async def test_a_room_that_is_not_open_yet_is_not_there(world: World) -> None:
    world.enter(OWNER, "O")
    assert condition(await world.ask(FAR, f"<query xmlns='{ns.DISCO_INFO}'/>")) == "item-not-found"
    world.put(FAR, f"<message type='groupchat' to='{HALL}'><body>hello</body></message>")
    assert condition(world.take(FAR)[-1]) == "item-not-found"
    assert condition(world.enter(FAR, "Far")[-1]) == "item-not-found"


async def test_what_may_be_said_is_everything(world: World) -> None:
    await world.open(OWNER, "O")
    traffic = f"<query xmlns='{ns.DISCO_INFO}' node='{ns.MUC}#traffic'/>"
    assert condition(await world.ask(FAR, traffic)) == "service-unavailable"


async def test_two_devices_of_one_person_agree_on_a_nickname(world: World) -> None:
    phone = "owner@x.test/phone"
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    world.enter(phone, "Phone")
    world.sent.clear()
    world.put(phone, f"<presence to='{HALL}/O'/>")
    left, shown = world.take(FAR)
    assert (left.get("type"), codes(left), item(left).get("nick")) == ("unavailable", [303], "O")
    assert (shown.get("from"), shown.get("type")) == (f"{HALL}/O", None)
    assert codes(world.take(phone)[-1]) == [110]
    world.put(FAR, f"<presence to='{HALL}/O'/>")
    assert condition(world.take(FAR)[-1]) == "conflict"
    world.put(FAR, f"<message type='chat' to='{HALL}/O'><body>psst</body></message>")
    assert len(world.take(phone)) == len(world.take(OWNER)) - 2 == 1


# --- other domains ------------------------------------------------------------------------------------------------


async def test_people_of_other_domains_are_occupants_like_any(world: World) -> None:
    await world.open(OWNER, "O")
    *_, subject = world.enter(FAR, "Far")
    assert subject.find("subject") is not None
    world.put(FAR, f"<message type='groupchat' id='m' to='{HALL}'><body>hello</body></message>")
    for who in (OWNER, FAR):
        assert world.take(who)[-1].get("from") == f"{HALL}/Far"
    world.put(OWNER, f"<message type='chat' id='p' to='{HALL}/Far'><body>psst</body></message>")
    (whisper,) = world.take(FAR)
    assert (whisper.get("to"), whisper.get("from")) == (FAR, f"{HALL}/O")


@pytest.mark.parametrize("name", ["message", "presence"])
async def test_who_cannot_be_reached_is_taken_out(world: World, name: str) -> None:
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    world.sent.clear()
    missing = f"<error type='wait'><remote-server-timeout xmlns='{ns.STANZA_ERRORS}'/></error>"
    world.put(FAR, f"<{name} type='error' to='{HALL}'>{missing}</{name}>")
    (gone,) = world.take(OWNER)
    assert (gone.get("type"), codes(gone)) == ("unavailable", [333])
    world.put(FAR, f"<{name} type='error' to='{HALL}'>{missing}</{name}>")
    assert not world.take(OWNER)


async def test_an_error_of_a_private_message_goes_to_who_wrote_it(world: World) -> None:
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    world.put(OWNER, f"<message type='chat' id='p' to='{HALL}/Far'><body>psst</body></message>")
    world.sent.clear()
    refused = f"<error type='cancel'><service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error>"
    world.put(FAR, f"<message type='error' id='p' to='{HALL}/O'>{refused}</message>")
    (passed,) = world.take(OWNER)
    assert (passed.get("type"), passed.get("id"), passed.get("from")) == ("error", "p", f"{HALL}/Far")
    world.put(FAR, f"<message type='error' id='other' to='{HALL}/O'>{refused}</message>")
    assert codes(world.take(OWNER)[0]) == [333]


async def test_a_client_that_dislikes_something_stays(world: World) -> None:
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    world.sent.clear()
    dislike = f"<error type='modify'><policy-violation xmlns='{ns.STANZA_ERRORS}'/></error>"
    for name in ("message", "presence"):
        world.put(FAR, f"<{name} type='error' to='{HALL}'>{dislike}</{name}>")
    assert not world.take(OWNER)


async def test_a_lost_domain_takes_all_its_people_out_at_once(world: World) -> None:
    await world.open(OWNER, "O")
    for number in range(300):
        world.put(f"p{number}@y.test/1", f"<presence to='{HALL}/p{number}'>{MUC}</presence>")
    world.enter(FARTHER, "Farther")
    world.sent.clear()
    world.lost = {"y.test", "z.test"}
    world.put(OWNER, f"<message type='groupchat' to='{HALL}'><body>anybody there?</body></message>")
    gone = [stanza for stanza in world.take(OWNER) if stanza.get("type") == "unavailable"]
    assert len(gone) == 301
    items = await world.ask(OWNER, f"<query xmlns='{ns.DISCO_ITEMS}'/>")
    assert [entry.get("jid") for entry in items.elements()[0].elements()] == [f"{HALL}/O"]


async def test_errors_are_never_answered(world: World) -> None:
    await world.open(OWNER, "O")
    for name in ("message", "presence", "iq"):
        for to in (HOST, HALL, f"{HALL}/O", f"nothing@{HOST}", f"{HALL}/nobody"):
            world.put(FAR, f"<{name} type='error' id='e' to='{to}'><error type='cancel'/></{name}>")
            world.put(f"other@{HOST}", f"<{name} id='e' type='get' to='{to}'/>")
    assert not world.sent


# --- the archive --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "seen"),
    [({}, 1), ({"publicroom": "0"}, 0), ({"membersonly": "1"}, 0), ({"roomsecret": "s"}, 0)],
)
async def test_occupants_are_listed_for_those_who_could_walk_in(
    world: World, fields: dict[str, str], seen: int
) -> None:
    await world.open(OWNER, "O", **fields)
    items = await world.ask(FAR, f"<query xmlns='{ns.DISCO_ITEMS}'/>")
    assert [entry.get("jid") for entry in items.elements()[0].elements()] == [f"{HALL}/O"] * seen


@pytest.mark.parametrize("namespace", [ns.DISCO_INFO, ns.DISCO_ITEMS])
async def test_only_occupants_discover_each_other(world: World, namespace: str) -> None:
    await world.open(OWNER, "O")
    for nick in ("O", "nobody"):
        assert condition(await world.ask(FAR, f"<query xmlns='{namespace}'/>", to=f"{HALL}/{nick}")) == "bad-request"
    assert condition(await world.ask(FAR, f"<ping xmlns='{ns.PING}'/>", to=f"{HALL}/O")) == "not-acceptable"


# --- floods and tricks --------------------------------------------------------------------------------------------


async def test_one_stanza_is_one_fan_out_whatever_the_room_holds(world: World) -> None:
    await world.open(OWNER, "O", whois="anyone")
    for number in range(200):
        world.enter(f"p{number}@y.test/1", f"p{number}")
    world.fans = 0
    world.put(OWNER, f"<message type='groupchat' to='{HALL}'><body>hello</body></message>")
    assert world.fans == 2


async def test_who_is_too_fast_is_refused_but_may_leave(new_world: NewWorld) -> None:
    world = new_world(share=Share(50, 0.001, 10))
    await world.open(OWNER, "O")
    for _ in range(20):
        world.put(OWNER, f"<presence to='{HALL}/O'><show>away</show></presence>")
    assert condition(world.take(OWNER)[-1]) == "policy-violation"
    search = await world.ask(OWNER, f"<search xmlns='{ns.CHANNEL_SEARCH}'/>", to=HOST)
    error = search.find("error")
    assert error is not None
    assert (condition(search), error.get("type")) == ("resource-constraint", "wait")
    assert error.find("rate-limit", ns.CHANNEL_SEARCH_ERRORS) is not None
    world.put(OWNER, f"<presence type='unavailable' to='{HALL}/O'/>")
    assert world.take(OWNER)[-1].get("type") == "unavailable"


async def test_invitations_cost(new_world: NewWorld) -> None:
    world = new_world(share=Share(50, 0.001, 30))
    await world.open(OWNER, "O")
    invites = "".join(f"<invite to='p{number}@y.test'/>" for number in range(3))
    for _ in range(5):
        world.put(OWNER, f"<message to='{HALL}'><x xmlns='{ns.MUC_USER}'>{invites}</x></message>")
    assert sum(who.startswith("p") for who, _ in world.sent) == 3


@pytest.mark.parametrize("nick", ["", " ", "\u00a0", "x" * 200, "\u200b\u200d"])
async def test_nicknames_are_names(world: World, nick: str) -> None:
    await world.open(OWNER, "O")
    world.put(FAR, f"<presence to='{HALL}/{nick}'>{MUC}</presence>")
    assert all(condition(refused) in ("not-acceptable", "jid-malformed") for refused in world.take(FAR))
    world.put(FAR, f"<presence to='{HALL}/\u2126'>{MUC}</presence>")  # the ohm sign is a Greek letter
    assert world.take(FAR)[-1].find("subject") is not None
    world.put(FARTHER, f"<presence to='{HALL}/\u03a9'>{MUC}</presence>")
    assert condition(world.take(FARTHER)[-1]) == "conflict"


async def test_one_account_does_not_fill_a_room(world: World) -> None:
    await world.open(OWNER, "O")
    for number in range(15):
        world.put(f"far@y.test/{number}", f"<presence to='{HALL}/far{number}'>{MUC}</presence>")
    items = await world.ask(OWNER, f"<query xmlns='{ns.DISCO_ITEMS}'/>")
    assert len(items.elements()[0].elements()) == 11


async def test_a_history_is_no_bomb(new_world: NewWorld) -> None:
    world = new_world(history=1000, history_bytes=100_000)
    await world.open(OWNER, "O")
    for number in range(30):
        world.put(OWNER, f"<message type='groupchat' id='{number}' to='{HALL}'><body>{'x' * 30_000}</body></message>")
    world.sent.clear()
    said = [stanza for stanza in world.enter(FAR, "Far") if stanza.find("body") is not None]
    assert [stanza.get("id") for stanza in said] == ["27", "28", "29"]


async def test_forged_words_of_the_room_do_not_get_through(world: World) -> None:
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    forged = (
        f"<x xmlns='{ns.MUC_USER}'><item affiliation='owner'/><status code='110'/></x>"
        f"<occupant-id xmlns='{ns.OCCUPANT_ID}' id='me'/><stanza-id xmlns='{ns.STANZA_IDS}' by='{HALL}' id='mine'/>"
        f"<delay xmlns='{ns.DELAY}' from='{HALL}' stamp='2001-01-01T00:00:00Z'/><result xmlns='{ns.ARCHIVE}' id='1'/>"
        f"<received xmlns='urn:xmpp:carbons:2'/><hats xmlns='{ns.HATS}'/>"
    )
    world.sent.clear()
    world.put(FAR, f"<message type='groupchat' to='{HALL}'><body>x</body>{forged}</message>")
    world.put(FAR, f"<message type='chat' to='{HALL}/O'><body>x</body>{forged}</message>")
    world.put(FAR, f"<presence to='{HALL}/Far'>{forged}</presence>")
    for stanza in world.take(OWNER):
        text = stanza.to_xml()
        assert not any(word in text for word in ("'me'", "'mine'", "2001", "carbons", "hats", ns.ARCHIVE)), text
        assert "affiliation='owner'" not in text


# --- the service itself -------------------------------------------------------------------------------------------


async def test_rooms_are_listed_in_pages_and_found_by_words(world: World) -> None:
    for number in range(12):
        world.enter(OWNER, "O", f"r{number:02}@{HOST}")
        name = form(ns.MUC_CONFIG, muc__roomconfig_roomname=f"Tea {number}", muc__roomconfig_roomdesc="차 이야기")
        await world.ask(OWNER, f"<query xmlns='{ns.MUC_OWNER}'>{name}</query>", kind="set", to=f"r{number:02}@{HOST}")
    page = f"<set xmlns='{ns.RSM}'><max>5</max><after>r04@{HOST}</after></set>"
    answer = await world.ask(FAR, f"<query xmlns='{ns.DISCO_ITEMS}'>{page}</query>", to=HOST)
    assert [e.get("jid") for e in answer.elements()[0].elements()][:5] == [f"r{n:02}@{HOST}" for n in range(5, 10)]
    empty = await world.ask(FAR, f"<search xmlns='{ns.CHANNEL_SEARCH}'/>", to=HOST)
    assert "nusers" in empty.to_xml()

    async def search(*more: str, **fields: str) -> Element:
        filled = form(ns.CHANNEL_SEARCH_PARAMS, **fields)
        inner = f"<search xmlns='{ns.CHANNEL_SEARCH}'>{''.join(more)}{filled}</search>"
        return await world.ask(FAR, inner, to=HOST)

    found = (await search(q="tea 11")).elements()[0].elements()
    assert [entry.get("address") for entry in found] == [f"r11@{HOST}", None]
    limit = f"<set xmlns='{ns.RSM}'><max>2</max></set>"
    assert len((await search(limit, all="1")).elements()[0].elements()) == 3
    assert len((await search(q="이야기", sindescription="0")).elements()[0].elements()) == 1
    for fields, detail in (
        ({"q": "x", "all": "1"}, "conflicting-fields"),
        ({"min_users": "1"}, "no-search-conditions"),
        ({"q": "a"}, "invalid-search-terms"),
        ({"q": "tea", "key": "size"}, "invalid-sort-key"),
    ):
        refused = await search(**fields)
        assert detail in refused.to_xml(), refused.to_xml()
    name = (await world.ask(FAR, f"<unique xmlns='{ns.MUC_UNIQUE}'/>", to=HOST)).elements()[0].text
    assert len(name) == 16


async def test_a_room_has_an_avatar(new_world: NewWorld) -> None:
    world = new_world()
    await world.open(OWNER, "O")
    world.enter(FAR, "Far")
    world.take(OWNER)
    photo = "<PHOTO><TYPE>image/png</TYPE><BINVAL>aGFsbG8=</BINVAL></PHOTO>"
    vcard = f"<vCard xmlns='vcard-temp'>{photo}</vCard>"
    assert condition(await world.ask(FAR, vcard, kind="set")) == "forbidden"
    assert (await world.ask(OWNER, vcard, kind="set")).get("type") == "result"
    notice, shown = world.take(FAR)
    assert codes(notice) == [104]
    digest = "fd4cef7a4e607f1fcc920ad6329a6df2df99a4e8"
    assert digest in shown.to_xml()
    assert shown.get("from") == HALL
    info = (await world.ask(FAR, f"<query xmlns='{ns.DISCO_INFO}'/>")).to_xml()
    assert digest in info
    assert "vcard-temp" in info
    assert (await world.ask(FARTHER, "<vCard xmlns='vcard-temp'/>")).elements()[0] == Element.parse(vcard)
    for wrong in (
        photo.replace("aGFsbG8=", "§"),
        photo.replace("image/png", "text/html"),
        f"<NOTE>{'x' * 140_000}</NOTE>",
        photo * 6,
    ):
        refused = await world.ask(OWNER, f"<vCard xmlns='vcard-temp'>{wrong}</vCard>", kind="set")
        assert condition(refused) == "not-acceptable"
    again = new_world()
    await again.rooms.start()
    got = again.enter(FAR, "Far")
    assert got[-1].find("x", ns.VCARD_UPDATE) is not None
    await world.ask(OWNER, "<vCard xmlns='vcard-temp'/>", kind="set")
    assert digest not in (await world.ask(FAR, f"<query xmlns='{ns.DISCO_INFO}'/>")).to_xml()


async def test_settings_of_a_room_outlive_the_service(new_world: NewWorld) -> None:
    world = new_world()
    await world.open(OWNER, "O", pubsub="xmpp:pubsub.x.test?;node=hall", presencebroadcast="moderator")
    world.enter(FAR, "Far")
    filled = form(ns.MUC_REGISTER, muc__register_roomnick="멀리")
    await world.ask(FAR, f"<query xmlns='{ns.REGISTER}'>{filled}</query>", kind="set")
    node = "urn:xmpp:hats:commands"
    for verb, fields in (
        ("create", {"hats__title": "손님", "hats__uri": "u:guest"}),
        ("assign", {"hats__uri": "u:guest", "hats__jid": "far@y.test"}),
    ):
        command = f"<command xmlns='{ns.COMMANDS}' node='{node}:{verb}'>{form(node, **fields)}</command>"
        assert (await world.ask(OWNER, command, kind="set")).get("type") == "result"
    world.put(FAR, f"<message type='groupchat' id='m' to='{HALL}'><body>oops</body></message>")
    (identifier,) = world.archive.kept[HALL]
    retract = f"<retract xmlns='{ns.RETRACTION}' id='{identifier}'/>"
    world.put(FAR, f"<message type='groupchat' id='r' to='{HALL}'>{retract}</message>")
    world.put(OWNER, f"<message type='groupchat' id='s' to='{HALL}'><subject>차</subject></message>")
    mute = f"<query xmlns='{ns.MUC_ADMIN}'><item nick='Far' role='visitor'/></query>"
    assert (await world.ask(OWNER, mute, kind="set")).get("type") == "result"
    await world.rooms.stop()
    assert 332 in codes(world.take(FAR)[-1])
    again = new_world()
    await again.rooms.start()
    before, after = (w.rooms._rooms["hall"] for w in (world, again))
    assert after.config == before.config
    assert after.affiliations == before.affiliations
    assert after.nicks == {"far@y.test": "멀리"}
    assert after.hats.to_json() == before.hats.to_json()
    assert after.voices == {"far@y.test": Role.VISITOR}
    assert after.subject == before.subject
    *_, subject = again.enter(FAR, "Far")
    mark = subject.find("occupant-id", ns.OCCUPANT_ID)
    assert mark is not None
    assert mark.get("id") == before.identifier(Jid.parse("owner@x.test"))
    assert [entry.message for entry in after.history.entries()] == [entry.message for entry in before.history.entries()]
    assert "oops" not in "".join(entry.message.to_xml() for entry in after.history.entries())
