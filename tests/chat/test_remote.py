"""What other domains may ask of this one: the same as people here where it should be, and nothing beyond it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from moim.proto.xmpp import Element, ns
from stanza_parts import child

ALICE, ROMEO = "alice@example.com", "romeo@else.example/garden"


class Outside:
    """The federation room of a test: what goes out is kept in a queue."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Element] = asyncio.Queue()

    def send(self, stanza: Element) -> None:
        self.sent.put_nowait(stanza)

    async def next(self) -> Element:
        return await asyncio.wait_for(self.sent.get(), 10)


@pytest.fixture
async def two(house_class: Any, tmp_path: Path) -> AsyncIterator[tuple[Any, Outside]]:
    outside = Outside()

    class Federated(house_class):
        def _service(self) -> Any:
            service = super()._service()
            service._federation = outside
            return service

    people = {"alice": "wonder land", "bob": "b"}
    house = Federated(tmp_path / "house", people=people, domain="example.com", default_contacts=False)
    await house.service.start()
    yield house, outside
    await house.stop()


def stanza(text: str) -> Element:
    return Element.parse(text.replace(" ", f" xmlns='{ns.CLIENT}' ", 1))


async def befriended(house: Any, outside: Outside) -> Any:
    """Alice, online, who shows Romeo her presence and sees his."""
    alice = await house.online("alice")
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}' type='subscribe'/>"))
    request = await alice.receive()
    assert (request.get("type"), request.get("from")) == ("subscribe", "romeo@else.example")
    for kind in ("subscribed", "subscribe"):
        alice.send(f"<presence to='romeo@else.example' type='{kind}'/>")
    seen = [await outside.next() for _ in range(3)]
    assert {one.get("type") for one in seen} == {"subscribed", "subscribe", None}
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}' type='subscribed'/>"))
    await settled(house, outside)
    await alice.sync()
    while not alice.inbox.empty():
        alice.inbox.get_nowait()
    return alice


async def settled(house: Any, outside: Outside) -> list[Element]:
    """Returns when everything for Alice was worked off, with what went out meanwhile."""
    ping = f"<iq from='{ROMEO}' to='{ALICE}' type='get' id='settled'><ping xmlns='{ns.PING}'/></iq>"
    house.service.remote_stanza(stanza(ping))
    before: list[Element] = []
    while (one := await outside.next()).get("id") != "settled":
        before.append(one)
    return before


async def test_messages_come_in_and_wait_for_those_who_are_away(two: tuple[Any, Outside]) -> None:
    house, outside = two
    for number in range(5):
        message = f"<message from='{ROMEO}' to='{ALICE}' type='chat'><body>{number}</body></message>"
        house.service.remote_stanza(stanza(message))
    house.service.remote_stanza(
        stanza(f"<message from='{ROMEO}' to='nobody@example.com' id='x'><body>?</body></message>")
    )
    error = await outside.next()
    assert (error.get("type"), error.get("to"), error.get("id")) == ("error", ROMEO, "x")
    alice = await house.client("alice").connect()
    alice.send("<presence/>")
    found: list[str] = []
    while len(found) < 5:
        one = await alice.receive()
        if one.name == "message":
            found.append(one.find("body").text)
    assert found == ["0", "1", "2", "3", "4"]


async def test_what_only_our_own_server_says_is_taken_out(two: tuple[Any, Outside]) -> None:
    house, outside = two
    alice = await house.online("alice", "phone")
    forged = (
        "<received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></received>"
        "<private xmlns='urn:xmpp:carbons:2'/>"
        "<stanza-id xmlns='urn:xmpp:sid:0' by='alice@example.com' id='1'/>"
        "<stanza-id xmlns='urn:xmpp:sid:0' by='room@else.example' id='2'/>"
    )
    house.service.remote_stanza(
        stanza(f"<message from='{ROMEO}' to='{ALICE}/phone' type='chat'><body>hi</body>{forged}</message>")
    )
    message = await alice.receive()
    assert message.find("received", "urn:xmpp:carbons:2") is None
    assert message.find("private", "urn:xmpp:carbons:2") is not None, "that is the sender's to say"
    ids = {child.get("by"): child.get("id") for child in message.elements() if child.name == "stanza-id"}
    assert ids.get("room@else.example") == "2"
    assert ids.get(ALICE) != "1"
    push = f"<iq from='{ROMEO}' to='{ALICE}/phone' type='set' id='p'><query xmlns='jabber:iq:roster'/></iq>"
    house.service.remote_stanza(stanza(push))
    answer = await outside.next()
    assert (answer.get("type"), child(answer, "error").find("service-unavailable", ns.STANZA_ERRORS) is not None) == (
        "error",
        True,
    )
    await alice.quiet()


@pytest.mark.parametrize(
    "payload",
    [
        "<query xmlns='jabber:iq:roster'/>",
        "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>",
        "<blocklist xmlns='urn:xmpp:blocking'/>",
        "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        "<services xmlns='urn:xmpp:extdisco:2'/>",
        "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'/></pubsub>",
        "<query xmlns='urn:xmpp:mam:2'/>",
        "<prefs xmlns='urn:xmpp:mam:2'/>",
    ],
)
async def test_private_things_stay_private(two: tuple[Any, Outside], payload: str) -> None:
    house, outside = two
    await house.online("alice")
    for to in (ALICE, "nobody@example.com"):
        kind = "set" if "mam:2'/>" in payload and "query" in payload else "get"
        house.service.remote_stanza(stanza(f"<iq from='{ROMEO}' to='{to}' type='{kind}' id='1'>{payload}</iq>"))
        answer = await outside.next()
        assert (answer.get("type"), answer.get("to")) == ("error", ROMEO), answer.to_xml()


async def test_the_server_and_its_people_answer_requests(two: tuple[Any, Outside]) -> None:
    house, outside = two
    ask = "<iq from='{}' to='{}' type='get' id='1'>{}</iq>"
    for to, payload in (
        ("example.com", "<query xmlns='http://jabber.org/protocol/disco#info'/>"),
        ("example.com", "<ping xmlns='urn:xmpp:ping'/>"),
        ("rooms.example.com", "<query xmlns='http://jabber.org/protocol/disco#items'/>"),
    ):
        house.service.remote_stanza(stanza(ask.format(ROMEO, to, payload)))
        answer = await outside.next()
        assert (answer.get("type"), answer.get("from"), answer.get("to")) == ("result", to, ROMEO)


async def test_subscriptions_probes_and_presence(two: tuple[Any, Outside]) -> None:
    house, outside = two
    alice = await befriended(house, outside)
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}'><show>away</show></presence>"))
    assert (await alice.receive()).find("show").text == "away"
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}' type='probe'/>"))
    shown = await outside.next()
    assert (shown.get("type"), shown.get("to")) == (None, "romeo@else.example")
    assert (shown.get("from") or "").startswith(f"{ALICE}/")
    alice.drop()
    gone = await outside.next()
    assert gone.get("type") == "unavailable"
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}' type='probe'/>"))
    assert (await outside.next()).get("type") == "unavailable"


async def test_strangers_do_not_learn_who_is_here(two: tuple[Any, Outside]) -> None:
    house, outside = two
    await house.online("alice")
    answers = []
    for name in ("alice", "nobody"):
        house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{name}@example.com' type='probe'/>"))
        answer = await outside.next()
        answers.append((answer.get("type"), [c.to_xml() for c in answer.elements()]))
    assert answers[0] == answers[1] == ("unsubscribed", [])


async def test_block_lists_hold_for_other_domains(two: tuple[Any, Outside]) -> None:
    house, outside = two
    alice = await befriended(house, outside)
    await alice.request("<block xmlns='urn:xmpp:blocking'><item jid='else.example'/></block>", kind="set")
    while not outside.sent.empty():
        outside.sent.get_nowait()
    house.service.remote_stanza(stanza(f"<message from='{ROMEO}' to='{ALICE}' id='m'><body>psst</body></message>"))
    assert (await outside.next()).get("type") == "error"
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}'/>"))
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}' type='probe'/>"))
    assert (await outside.next()).get("type") == "unavailable"
    await alice.sync()
    assert all(one.name != "presence" for one in list(alice.inbox._queue))


async def test_a_room_with_somebody_from_elsewhere(two: tuple[Any, Outside]) -> None:
    house, outside = two
    alice = await house.online("alice")
    muc = "<x xmlns='http://jabber.org/protocol/muc'/>"
    alice.send(f"<presence to='hall@rooms.example.com/alice'>{muc}</presence>")
    await alice.sync()
    submit = "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>"
    await alice.request(submit, kind="set", to="hall@rooms.example.com")
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='hall@rooms.example.com/romeo'>{muc}</presence>"))
    seen = [await outside.next() for _ in range(2)]
    assert {one.get("from") for one in seen} == {"hall@rooms.example.com/alice", "hall@rooms.example.com/romeo"}
    assert all(one.get("to") == ROMEO for one in seen)
    house.service.remote_stanza(
        stanza(f"<presence from='{ROMEO}' to='own@rooms.example.com/romeo' id='new'>{muc}</presence>")
    )
    async with asyncio.timeout(10):
        while (one := await outside.next()).get("id") != "new":
            pass
    assert one.get("type") == "error", "only people of the domain make rooms here"
    # Their server is gone: what the room sends comes back, and the room lets the ghost go.
    error = "<error type='wait'><remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    house.service.remote_stanza(
        stanza(f"<message from='{ROMEO}' to='hall@rooms.example.com/romeo' type='error'>{error}</message>")
    )
    await alice.sync()


async def test_events_of_people_here_reach_clients_elsewhere_that_want_them(two: tuple[Any, Outside]) -> None:
    house, outside = two
    alice = await befriended(house, outside)
    caps = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='made-up'/>"
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}'>{caps}</presence>"))
    question = await outside.next()
    assert (question.get("from"), question.get("to"), question.name) == (ALICE, ROMEO, "iq")
    info = "<query xmlns='http://jabber.org/protocol/disco#info'><feature var='urn:tune+notify'/></query>"
    house.service.remote_stanza(
        stanza(f"<iq from='{ROMEO}' to='{ALICE}' type='result' id='{question.get('id')}'>{info}</iq>")
    )
    publish = "<publish node='urn:tune'><item id='1'><tune xmlns='urn:tune'>la la</tune></item></publish>"
    await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'>{publish}</pubsub>", kind="set")
    event = await outside.next()
    assert (event.get("from"), event.get("to"), event.get("type")) == (ALICE, ROMEO, "headline")
    assert "la la" in event.to_xml()
    # Another client program, which has to be asked anew, wants it as well, and is told what is there.
    newer = caps.replace("made-up", "newer")
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}'>{newer}</presence>"))
    question = await outside.next()
    house.service.remote_stanza(
        stanza(f"<iq from='{ROMEO}' to='{ALICE}' type='result' id='{question.get('id')}'>{info}</iq>")
    )
    assert "la la" in (await outside.next()).to_xml()
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}' type='unavailable'/>"))
    await settled(house, outside)
    await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'>{publish}</pubsub>", kind="set")
    assert not await settled(house, outside)


async def test_somebody_elsewhere_subscribes_to_personal_events(two: tuple[Any, Outside]) -> None:
    house, outside = two
    alice = await house.online("alice")
    configure = (
        "<configure><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>"
        f"<value>{ns.PUBSUB}#node_config</value></field><field var='pubsub#access_model'><value>open</value></field>"
        "</x></configure>"
    )
    made = await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'><create node='urn:tune'/>{configure}</pubsub>", kind="set")
    assert made.get("type") == "result"
    inner = f"<pubsub xmlns='{ns.PUBSUB}'><subscribe node='urn:tune' jid='{ROMEO}'/></pubsub>"
    house.service.remote_stanza(stanza(f"<iq from='{ROMEO}' to='{ALICE}' type='set' id='s'>{inner}</iq>"))
    answer = await outside.next()
    assert (answer.get("type"), answer.get("id")) == ("result", "s")
    publish = "<publish node='urn:tune'><item id='1'><tune xmlns='urn:tune'>la la</tune></item></publish>"
    await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'>{publish}</pubsub>", kind="set")
    event = await outside.next()
    assert (event.get("from"), event.get("to"), event.get("type")) == (ALICE, ROMEO, "headline")
    assert "la la" in event.to_xml()


async def test_addresses_that_are_none_change_nothing(two: tuple[Any, Outside]) -> None:
    house, outside = two
    for sender, to in (("", ALICE), (ROMEO, ""), ("@x", ALICE), (ROMEO, "alice@elsewhere.example")):
        attrs = {"from": sender, "to": to} if sender and to else {"from": sender} if sender else {"to": to}
        house.service.remote_stanza(Element("message", ns.CLIENT, attrs))
    house.service.remote_stanza(stanza(f"<presence from='{ROMEO}' to='{ALICE}' type='nonsense' id='n'/>"))
    assert (await outside.next()).get("id") == "n"
    assert outside.sent.empty()
