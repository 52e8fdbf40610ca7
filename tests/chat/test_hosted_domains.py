"""One service with several domains: the people of each are people of their own, and neighbours of the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moim.chat.commands import COMMANDS
from moim.chat.hosts import Hosts, hosts
from moim.chat.settings import DomainSettings, Settings
from moim.errors import ConfigError
from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.dataform import read_form
from raw_xmpp import RawXmpp
from stanza_parts import child

PEOPLE = {"alice": "of chat", "bob": "of bob", "alice@two.test": "of two", "carol@two.test": "of carol"}
OPEN = {"default_contacts": False}
INFO, ITEMS = f"<query xmlns='{ns.DISCO_INFO}'/>", f"<query xmlns='{ns.DISCO_ITEMS}'/>"


@pytest.fixture
async def house(new_house: Any) -> Any:
    """A service for ``chat.test`` and ``two.test``."""
    return await new_house(people=PEOPLE, hosted=["two.test"], **OPEN)


@pytest.fixture
def expect(matches: Any, stanzas: Any) -> Any:
    """Waits for a stanza that has what a text lists."""

    async def wait(client: Any, text: str) -> None:
        wanted = stanzas(text)[0]
        seen: list[str] = []
        while problem := matches(wanted, got := await client.receive(f"{text}, but {seen}")):
            seen.append(problem + got.to_xml())

    return wait


async def items(client: Any, domain: str) -> dict[str, str]:
    """What discovery lists for a domain."""
    query = (await client.request(ITEMS, to=domain)).find("query", ns.DISCO_ITEMS)
    return {item.get("jid"): item.get("name") for item in query.elements()}


async def test_the_same_name_is_somebody_else(house: Any) -> None:
    here = await house.online("alice", "1")
    there = await house.online("alice@two.test", "1")
    assert (here.jid, there.jid) == ("alice@chat.test/1", "alice@two.test/1")
    for name, other in (("alice", "of two"), ("alice@two.test", "of chat")):
        with pytest.raises(AssertionError, match="not-authorized"):
            await house.client(name).connect(password=other)


async def test_nobody_signs_in_where_they_are_not_known(house: Any) -> None:
    for name in ("bob@two.test", "carol"):
        with pytest.raises(AssertionError, match="not-authorized"):
            await house.client(name).connect(password=PEOPLE.get("bob") if "bob" in name else "of carol")


@pytest.mark.parametrize("to", ["three.test", "rooms.two.test"])
async def test_a_stream_to_what_is_not_hosted_ends(house: Any, to: str) -> None:
    place = house.place("xmpp-client-tls")
    raw = RawXmpp(to, *await asyncio.open_connection(*place, ssl=house.tls, server_hostname="chat.test"))
    await raw.opens()
    assert raw.features.find("host-unknown", ns.STREAM_ERRORS) is not None
    await raw.close()


async def test_messages_go_by_table_and_wait_for_who_is_away(house: Any) -> None:
    alice, carol = await house.online("alice", "1"), await house.online("carol@two.test", "1")
    before = house.service.stats()["delivered"]
    alice.send("<message to='carol@two.test' type='chat'><body>hello there</body></message>")
    got = await carol.receive()
    assert (got.get("from"), got.find("body").text) == ("alice@chat.test/1", "hello there")
    await alice.sync()  # the plane counts once what it read at once is done
    assert house.service.stats()["delivered"] == before + 1
    alice.send("<message to='alice@two.test' type='chat'><body>for later</body></message>")
    await alice.sync()
    namesake = await house.client("alice@two.test", "1").connect()
    namesake.send("<presence/>")
    while (got := await namesake.receive()).find("body") is None:
        pass
    assert got.find("body").text == "for later"
    assert got.find("delay", ns.DELAY).get("from") == "two.test"


async def test_subscription_and_presence_between_two_domains(house: Any, expect: Any) -> None:
    alice, carol = await house.online("alice", "1"), await house.online("carol@two.test", "1")
    alice.send("<presence to='carol@two.test' type='subscribe'/>")
    await expect(carol, "<presence from='alice@chat.test' type='subscribe'/>")
    carol.send("<presence to='alice@chat.test' type='subscribed'/>")
    await expect(alice, "<presence from='carol@two.test' type='subscribed'/>")
    await expect(alice, "<presence from='carol@two.test/1'/>")
    carol.send("<presence type='unavailable'/>")
    await expect(alice, "<presence from='carol@two.test/1' type='unavailable'/>")


async def test_people_of_one_domain_are_contacts_of_each_other_alone(new_house: Any) -> None:
    house = await new_house(people=PEOPLE, hosted=["two.test"])
    for name, expected in (("alice", {"bob@chat.test"}), ("carol@two.test", {"alice@two.test"})):
        client = await house.client(name).connect()
        roster = (await client.request(f"<query xmlns='{ns.ROSTER}'/>")).elements()[0]
        assert {item.get("jid") for item in roster.elements()} == expected


async def test_each_domain_answers_for_itself(house: Any) -> None:
    alice = await house.online("alice", "1")
    for domain in ("chat.test", "two.test"):
        answer = await alice.request(f"<ping xmlns='{ns.PING}'/>", to=domain)
        assert (answer.get("type"), answer.get("from")) == ("result", domain)
        assert await items(alice, domain) == {f"rooms.{domain}": "Rooms", f"upload.{domain}": "File upload"}


async def test_rooms_of_both_domains(house: Any, expect: Any) -> None:
    alice, carol = await house.online("alice", "1"), await house.online("carol@two.test", "1")
    enter = f"<presence to='{{}}/{{}}'><x xmlns='{ns.MUC}'/></presence>"
    unlock = f"<query xmlns='{ns.MUC_OWNER}'><x xmlns='{ns.DATA_FORMS}' type='submit'/></query>"
    for owner, room in ((alice, "den@rooms.chat.test"), (carol, "den@rooms.two.test")):
        owner.send(enter.format(room, "own"))
        await owner.sync()
        assert (await owner.request(unlock, to=room, kind="set")).get("type") == "result"
    for client in (alice, carol):
        while not client.inbox.empty():
            client.inbox.get_nowait()
    alice.send(enter.format("den@rooms.two.test", "guest"))
    await alice.sync()
    while not alice.inbox.empty():
        alice.inbox.get_nowait()
    alice.send("<message to='den@rooms.two.test' type='groupchat'><body>good evening</body></message>")
    await expect(alice, "<message from='den@rooms.two.test/guest' type='groupchat'><body>good evening</body></message>")
    alice.send(enter.format("mine@rooms.two.test", "a"))
    error = await alice.receive()
    assert error.find("error").find("not-allowed", ns.STANZA_ERRORS) is not None


async def test_rooms_of_one_name_are_kept_apart(new_house: Any) -> None:
    house = await new_house(people=PEOPLE, hosted=["two.test"], rooms_persistent=True, **OPEN)
    alice, carol = await house.online("alice", "1"), await house.online("carol@two.test", "1")
    for owner, room in ((alice, "den@rooms.chat.test"), (carol, "den@rooms.two.test")):
        owner.send(f"<presence to='{room}/own'><x xmlns='{ns.MUC}'/></presence>")
        await owner.sync()
        form = (
            f"<query xmlns='{ns.MUC_OWNER}'><x xmlns='{ns.DATA_FORMS}' type='submit'>"
            f"<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>"
            f"<field var='muc#roomconfig_roomname'><value>{room}</value></field></x></query>"
        )
        assert (await owner.request(form, to=room, kind="set")).get("type") == "result"
    await house.restart()
    alice = await house.online("alice", "1")
    for room in ("den@rooms.chat.test", "den@rooms.two.test"):
        info = (await alice.request(INFO, to=room)).find("query", ns.DISCO_INFO)
        assert info.find("identity").get("name") == room
        assert list(await items(alice, room.partition("@")[2])) == [room]


async def test_uploads_are_for_the_domains_own_people(house: Any) -> None:
    carol = await house.online("carol@two.test", "1")
    ask = f"<request xmlns='{ns.HTTP_UPLOAD}' filename='a.txt' size='3'/>"
    assert (await carol.request(ask, to="upload.two.test")).find("slot", ns.HTTP_UPLOAD) is not None
    refused = await carol.request(ask, to="upload.chat.test")
    assert refused.find("error").find("forbidden", ns.STANZA_ERRORS) is not None


async def test_nobody_is_blocked_by_the_name_of_their_neighbours_domain_alone(house: Any) -> None:
    alice, carol = await house.online("alice", "1"), await house.online("carol@two.test", "1")
    for blocked in ("chat.test", "two.test"):
        block = f"<block xmlns='{ns.BLOCKING}'><item jid='{blocked}'/></block>"
        await alice.request(block, kind="set")
    carol.send("<message to='alice@chat.test' type='chat'><body>no</body></message>")
    error = await carol.receive()
    assert error.find("error").find("service-unavailable", ns.STANZA_ERRORS) is not None
    assert (await alice.request(f"<ping xmlns='{ns.PING}'/>", to="chat.test")).get("type") == "result"


async def test_limits_and_policies_of_one_domain(new_house: Any) -> None:
    own = {
        "rooms": False, "offline_messages": 0, "archive_default": "never", "max_roster_items": 1,
        "uploads_file_bytes": 10, "admin_addresses": ["mailto:a@two.test"], "admins": ["carol@two.test"],
        "max_sessions_per_user": 1,
    }  # fmt: skip
    house = await new_house(people=PEOPLE, hosted=["two.test"], domains={"two.test": own}, **OPEN)
    alice, carol = await house.online("alice", "1"), await house.online("carol@two.test", "1")
    assert await items(alice, "two.test") == {"upload.two.test": "File upload"}
    assert "rooms.chat.test" in await items(alice, "chat.test")
    features = {}
    for domain in ("chat.test", "two.test"):
        info = (await alice.request(INFO, to=domain)).find("query", ns.DISCO_INFO)
        features[domain] = {child.get("var") for child in info.elements() if child.name == "feature"}
        forms = [read_form(child)[1] for child in info.elements() if child.name == "x"]
        shown = {"admin-addresses": ("mailto:a@two.test",)}
        assert any(shown.items() <= form.items() for form in forms) == (domain == "two.test")
    assert "msgoffline" in features["chat.test"] - features["two.test"]
    assert "http://jabber.org/protocol/commands" in features["two.test"] - features["chat.test"]
    for client, limit in ((alice, "104857600"), (carol, "10")):
        domain = client.jid.partition("@")[2].partition("/")[0]
        info = (await client.request(INFO, to=f"upload.{domain}")).find("query", ns.DISCO_INFO)
        assert read_form(info.find("x", ns.DATA_FORMS))[1]["max-file-size"] == (limit,)
    prefs = await carol.request(f"<prefs xmlns='{ns.ARCHIVE}'/>")
    assert prefs.find("prefs", ns.ARCHIVE).get("default") == "never"
    add = "<query xmlns='{}'><item jid='{}@elsewhere.test'/></query>"
    answers = [(await carol.request(add.format(ns.ROSTER, name), kind="set")).get("type") for name in ("a", "b")]
    assert answers == ["result", "error"]
    alice.send("<message to='alice@two.test' type='chat'><body>nobody keeps this</body></message>")
    assert (await alice.receive()).find("error").find("service-unavailable", ns.STANZA_ERRORS) is not None
    with pytest.raises(AssertionError, match="resource-constraint"):
        await house.client("carol@two.test", "2").connect()


async def test_a_domain_keeps_its_archives_as_long_as_it_wants(new_house: Any) -> None:
    own = {"archive_messages": 100}
    house = await new_house(people=PEOPLE, hosted=["two.test"], domains={"two.test": own}, **OPEN)
    alice, carol = await house.online("alice", "1"), await house.online("carol@two.test", "1")
    for number in range(103):
        alice.send(f"<message to='carol@two.test' type='chat'><body>{number}</body></message>")
        await carol.receive()
    archive = house.service._parts.archive
    await archive.settled()
    carol.send(f"<presence to='den@rooms.two.test/c'><x xmlns='{ns.MUC}'/></presence>")
    await carol.sync()
    assert {*archive.retention._others()} == {"alice@two.test", "carol@two.test", "den@rooms.two.test"}
    assert await archive.retention.sweep() == 3
    for client, oldest in ((alice, "0"), (carol, "3")):
        first = f"<query xmlns='{ns.ARCHIVE}'><set xmlns='{ns.RSM}'><max>1</max></set></query>"
        client.send(f"<iq type='set' id='first'>{first}</iq>")
        while (got := await client.receive()).find("result", ns.ARCHIVE) is None:
            pass
        assert f"<body>{oldest}</body>" in got.to_xml()


async def test_administrators_see_the_domain_that_they_ask(new_house: Any) -> None:
    house = await new_house(people=PEOPLE, hosted=["two.test"], admins=["alice@chat.test"], **OPEN)
    alice = await house.online("alice", "1")
    node = "http://jabber.org/protocol/admin#get-registered-users-list"
    for domain, expected in (
        ("chat.test", ("alice@chat.test", "bob@chat.test")),
        ("two.test", ("alice@two.test", "carol@two.test")),
    ):
        run = f"<command xmlns='{COMMANDS}' node='{node}' action='execute'/>"
        begun: Element = (await alice.request(run, to=domain, kind="set")).elements()[0]
        form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'><field var='max_items'><value>25</value></field></x>"
        run = f"<command xmlns='{COMMANDS}' node='{node}' sessionid='{begun.get('sessionid')}'>{form}</command>"
        done: Element = (await alice.request(run, to=domain, kind="set")).elements()[0]
        assert read_form(child(done, ("x", ns.DATA_FORMS)))[1]["registereduserjids"] == expected


def test_what_counts_in_a_domain() -> None:
    settings = Settings(
        rooms_host="talk.chat.test",
        offline_messages=7,
        domains={"two.test": DomainSettings(offline_bytes=9)},
    )
    found = Hosts(["chat.test", "two.test"], settings)
    assert found.primary == "chat.test"
    assert found["chat.test"].rooms == "talk.chat.test"
    assert found["two.test"].rooms == "rooms.two.test"
    two = found.settings("carol@two.test")
    assert (two.offline_messages, two.offline_bytes) == (7, 9)
    assert found.settings("chat.test").offline_bytes == 4_194_304
    assert hosts(["chat.test", "two.test"], settings) == (
        "chat.test", "two.test", "talk.chat.test", "upload.chat.test", "rooms.two.test", "upload.two.test",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("domains", "settings", "said"),
    [
        (["chat.test"], {"domains": {"two.test": {}}}, "not a domain of this site"),
        (["chat.test", "rooms.chat.test"], {}, "the same domain"),
        (["chat.test", "two.test"], {"domains": {"two.test": {"rooms_host": "rooms.chat.test"}}}, "the same domain"),
        (["chat.test"], {"rooms_host": "chat.test"}, "the same domain"),
    ],
)
def test_settings_that_cannot_be(domains: list[str], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Hosts(domains, Settings.model_validate(settings))
