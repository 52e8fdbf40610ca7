"""XEP-0357: programs that are not connected are woken through their app servers, and what those learn."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from moim.chat.push.notifying import wakes
from moim.model import Address, UserRemoved
from moim.proto.xmpp import Element, Jid, ns
from moim.proto.xmpp.dataform import read_form

APP = "push.example"
OPTIONS = (
    f"<x xmlns='{ns.DATA_FORMS}' type='submit'><field var='FORM_TYPE'>"
    f"<value>{ns.PUBSUB}#publish-options</value></field><field var='secret'><value>s3cret</value></field></x>"
)
HELLO = "<message to='alice@chat.test' type='chat'><body>안녕</body></message>"


class AppServer:
    """Another domain, as the federation sees it: what is sent there waits in ``sent``."""

    def __init__(self, house: Any) -> None:
        self.house = house
        self.sent: asyncio.Queue[Element] = asyncio.Queue()
        house.service._parts.router._federation = self

    def send(self, stanza: Element) -> None:
        self.sent.put_nowait(stanza)

    async def woken(self) -> Element:
        """The next publication."""
        return await asyncio.wait_for(self.sent.get(), 20)

    async def answer(self, iq: Element, error: str = "") -> None:
        """Answers a publication, and returns when that is worked off."""
        attrs = (
            f"from='{iq.get('to')}' to='{iq.get('from')}' id='{iq.get('id')}' type='{'error' if error else 'result'}'"
        )
        inner = f"<error type='cancel'><{error} xmlns='{ns.STANZA_ERRORS}'/></error>" if error else ""
        self.house.service._parts.remote_stanzas.take(Element.parse(f"<iq xmlns='jabber:client' {attrs}>{inner}</iq>"))
        parts = self.house.service._parts
        while parts.remote_stanzas._tasks:
            await asyncio.wait(tuple(parts.remote_stanzas._tasks))
        while parts.push._tasks:
            await asyncio.wait(tuple(parts.push._tasks))


async def enable(client: Any, node: str = "device", options: str = "", jid: str = APP) -> Element:
    answer: Element = await client.request(
        f"<enable xmlns='{ns.PUSH}' jid='{jid}' node='{node}'>{options}</enable>", kind="set"
    )
    return answer


def summary(iq: Element) -> dict[str, tuple[str, ...]]:
    pubsub = iq.find("pubsub", ns.PUBSUB)
    assert pubsub is not None
    note = pubsub.elements()[0].elements()[0].find("notification", ns.PUSH)
    assert note is not None
    forms = note.elements()
    if not forms:
        return {}
    kind, fields = read_form(forms[0])
    assert kind == ns.PUSH_SUMMARY
    return dict(fields)


def condition(answer: Element) -> str:
    error = answer.find("error")
    assert error is not None, answer.to_xml()
    return error.elements()[0].name


async def settled(house: Any) -> None:
    """Returns when nobody is about to be woken any more."""
    while tasks := tuple(house.service._parts.push._tasks):
        await asyncio.wait(tasks)


async def test_it_is_announced_for_accounts(house: Any) -> None:
    alice = await house.online("alice")
    info = (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="alice@chat.test")).elements()[0]
    assert ns.PUSH in [child.get("var") for child in info.elements()]


async def test_who_is_away_is_woken_and_little_is_told(house: Any) -> None:
    app = AppServer(house)
    alice, bob = await house.online("alice", "phone"), await house.online("bob")
    assert (await enable(alice, options=OPTIONS)).get("type") == "result"
    bob.send(HELLO)
    assert (await alice.receive()).name == "message"
    await settled(house)
    assert app.sent.empty()  # it is connected
    await alice.close()
    bob.send(HELLO)
    iq = await app.woken()
    assert (iq.get("type"), iq.get("from"), iq.get("to")) == ("set", "alice@chat.test", APP)
    publish, options = iq.elements()[0].elements()
    assert (publish.name, publish.get("node")) == ("publish", "device")
    assert options.name == "publish-options"
    assert read_form(options.elements()[0])[1]["secret"] == ("s3cret",)
    assert summary(iq) == {"message-count": ("1",)}
    assert "안녕" not in iq.to_xml()
    assert "bob" not in iq.to_xml()


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        ("none", set()),
        ("sender", {"message-count", "last-message-sender"}),
        ("body", {"message-count", "last-message-sender", "last-message-body"}),
    ],
)
async def test_the_administrator_decides_what_is_told(new_house: Any, told: str, fields: set[str]) -> None:
    house = await new_house(push_summary=told, default_contacts=False)
    app = AppServer(house)
    alice, bob = await house.online("alice"), await house.online("bob", "desk")
    await enable(alice)
    await alice.close()
    bob.send(HELLO)
    found = summary(await app.woken())
    assert set(found) == fields
    if told == "body":
        assert (found["last-message-sender"], found["last-message-body"]) == (("bob@chat.test/desk",), ("안녕",))


@pytest.mark.engines
async def test_registrations_outlive_the_service(house: Any) -> None:
    alice = await house.online("alice")
    await enable(alice)
    await alice.close()
    await house.restart()
    app = AppServer(house)
    bob = await house.online("bob")
    bob.send(HELLO)
    assert (await app.woken()).get("to") == APP


async def test_every_program_is_woken_until_it_is_taken_back(house: Any) -> None:
    app = AppServer(house)
    alice, bob = await house.online("alice"), await house.online("bob")
    for node in ("a", "b"):
        await enable(alice, node)
    await enable(alice, "c", jid="other.example")
    await alice.request(f"<disable xmlns='{ns.PUSH}' jid='{APP}' node='a'/>", kind="set")
    await alice.close()
    bob.send(HELLO)
    woken = [await app.woken(), await app.woken()]
    assert sorted((iq.get("to"), iq.elements()[0].elements()[0].get("node")) for iq in woken) == [
        ("other.example", "c"),
        (APP, "b"),
    ]
    alice = await house.online("alice")
    await alice.request(f"<disable xmlns='{ns.PUSH}' jid='{APP}'/>", kind="set")
    await alice.request(f"<disable xmlns='{ns.PUSH}' jid='other.example'/>", kind="set")
    await alice.close()
    bob.send(HELLO)
    await bob.sync()
    await settled(house)
    assert app.sent.empty()


async def test_one_program_sleeps_while_another_is_there(house: Any) -> None:
    """A phone that lost its connection is woken though the message went to the desk, and not once it is back."""
    app = AppServer(house)
    phone, desk = await house.online("alice", "phone"), await house.online("alice", "desk")
    bob = await house.online("bob")
    await enable(phone)
    push = house.service._parts.push
    session = house.service._parts.accounts.session(Jid.parse("alice@chat.test/phone"))
    push.detached(session)
    bob.send(HELLO.replace("<message", "<message id='1'"))
    assert summary(await app.woken()) == {"message-count": ("1",)}
    assert (await desk.receive()).name == "message"
    push.resumed(session)
    bob.send(HELLO)
    await bob.sync()
    await settled(house)
    assert app.sent.empty()


async def test_a_program_is_woken_for_what_it_never_confirmed(new_house: Any) -> None:
    """A phone that sleeps confirms nothing, and its connection seems to be there until that is noticed."""
    house = await new_house(default_contacts=False, archive_default="always")
    app = AppServer(house)
    phone, bob = await house.online("alice", "phone"), await house.online("bob")
    await enable(phone)
    phone.send(Element("enable", ns.SM, {"resume": "true"}))
    assert (await phone.receive()).name == "enabled"
    for number in (1, 2, 3):
        bob.send(f"<message to='alice@chat.test' type='chat' id='{number}'><body>{number}</body></message>")
        while (await phone.receive()).name != "message":
            pass
        if number == 1:
            phone.send(Element("a", ns.SM, {"h": "1"}))
    bob.send(
        "<message to='alice@chat.test' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>"
    )
    await bob.sync()
    await settled(house)
    assert app.sent.empty(), "it is connected, as far as anybody knows"
    phone.drop()
    assert summary(await app.woken()) == {"message-count": ("2",)}
    assert app.sent.empty()


async def test_what_the_plane_delivered_to_another_program_wakes_as_well(house: Any) -> None:
    app = AppServer(house)
    phone = await house.online("alice", "phone")
    await enable(phone)
    await phone.close()
    await house.online("alice", "desk")
    push = house.service._parts.push
    words = Element.parse("<message xmlns='jabber:client' id='1' type='chat'><body>1</body></message>")
    sender, owners = "bob@chat.test/desk", ["alice@chat.test", "bob@chat.test"]
    push.recorded([(7, sender, "alice@chat.test/desk", owners, words)])
    push.recorded([(7, sender, "alice@chat.test", owners, words)])  # the same once more
    push.recorded([(8, sender, "alice@chat.test", ["bob@chat.test"], words.with_attrs({"id": "2"}))])
    push.recorded([(9, "alice@chat.test/desk", "bob@chat.test", owners, words.with_attrs({"id": "3"}))])
    assert summary(await app.woken()) == {"message-count": ("1",)}
    await settled(house)
    assert app.sent.empty()


async def test_a_phone_is_woken_for_what_the_desk_got(new_house: Any) -> None:
    """The plane delivers by its table; what it tells the archive wakes the phone."""
    house = await new_house(default_contacts=False, archive_default="always")
    app = AppServer(house)
    phone = await house.online("alice", "phone")
    await enable(phone)
    await phone.close()
    desk, bob = await house.online("alice", "desk"), await house.online("bob")
    for number in (1, 2):
        bob.send(f"<message to='alice@chat.test' type='chat' id='{number}'><body>안녕</body></message>")
        assert (await desk.receive()).name == "message"
        assert summary(await app.woken()) == {"message-count": (str(number),)}
    await settled(house)
    assert app.sent.empty()


async def test_a_lost_connection_that_may_come_back(house: Any) -> None:
    """With stream management a phone without its connection still has its session, and is woken all the same."""
    app = AppServer(house)
    phone, bob = await house.online("alice", "phone"), await house.online("bob")
    await enable(phone)
    phone.send_raw(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    assert (await phone.receive()).name == "enabled"
    phone.drop()
    for number in itertools.count(1):  # until the server has noticed
        bob.send(HELLO.replace("<message", f"<message id='{number}'"))
        await bob.sync()
        await settled(house)
        if not app.sent.empty():
            break
    assert (await app.woken()).get("to") == APP


async def test_words_in_a_room_wake_a_phone_that_lost_its_connection(house: Any) -> None:
    app = AppServer(house)
    phone, bob = await house.online("alice", "phone"), await house.online("bob")
    await enable(phone)
    for client in (bob, phone):
        client.send(f"<presence to='den@rooms.chat.test/{client.name}'><x xmlns='{ns.MUC}'/></presence>")
        while (await client.receive()).name != "message":  # the subject comes last
            pass
        if client is bob:
            form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'/>"
            query = f"<query xmlns='{ns.MUC_OWNER}'>{form}</query>"
            await bob.request(query, kind="set", to="den@rooms.chat.test")
    phone.send_raw(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
    assert (await phone.receive()).name == "enabled"
    phone.drop()
    for number in itertools.count(1):
        bob.send(f"<message to='den@rooms.chat.test' type='groupchat' id='{number}'><body>안녕</body></message>")
        await bob.sync()
        await settled(house)
        if not app.sent.empty():
            break
    assert (await app.woken()).get("from") == "alice@chat.test"


async def test_an_app_server_that_refuses_is_not_asked_again(house: Any) -> None:
    app = AppServer(house)
    alice, bob = await house.online("alice"), await house.online("bob")
    await enable(alice)
    await alice.close()
    bob.send(HELLO)
    await app.answer(await app.woken(), "item-not-found")
    bob.send(HELLO)
    await bob.sync()
    await settled(house)
    assert app.sent.empty()


async def test_trouble_on_the_way_is_forgiven_for_a_while(new_house: Any) -> None:
    house = await new_house(push_per_minute=600, default_contacts=False)
    app = AppServer(house)
    alice, bob = await house.online("alice"), await house.online("bob")
    await enable(alice)
    await alice.close()
    for round_ in range(14):
        bob.send(HELLO)
        await app.answer(await app.woken(), "" if round_ == 3 else "remote-server-timeout")
        if round_ == 3:
            (registration,) = await house.service._parts.push.registrations.of("alice@chat.test")
            assert registration.failures == 0
    assert not await house.service._parts.push.registrations.of("alice@chat.test")


async def test_answers_of_others_change_nothing(house: Any) -> None:
    app = AppServer(house)
    alice, bob = await house.online("alice"), await house.online("bob")
    await enable(alice)
    await alice.close()
    bob.send(HELLO)
    iq = await app.woken()
    await app.answer(iq.with_attrs({"to": "evil.example"}), "item-not-found")
    await app.answer(iq.with_attrs({"from": "bob@chat.test"}), "item-not-found")
    await app.answer(iq.with_attrs({"id": "push-guess"}), "item-not-found")
    assert await house.service._parts.push.registrations.of("alice@chat.test")


async def test_a_flood_wakes_slowly_but_not_never(new_house: Any) -> None:
    house = await new_house(push_per_minute=60, default_contacts=False)
    app = AppServer(house)
    alice, bob = await house.online("alice"), await house.online("bob")
    await enable(alice)
    await alice.close()
    for _ in range(40):
        bob.send(HELLO)
        await bob.sync()
        await settled(house)
    early = app.sent.qsize()
    assert 1 <= early <= 12
    for _ in range(early):
        await app.woken()
    late = await app.woken()  # the last ones are told together
    assert summary(late) == {"message-count": ("40",)}


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (f"<enable xmlns='{ns.PUSH}'/>", "jid-malformed"),
        (f"<enable xmlns='{ns.PUSH}' jid='@'/>", "jid-malformed"),
        (f"<enable xmlns='{ns.PUSH}' jid='chat.test'/>", "not-allowed"),
        (f"<enable xmlns='{ns.PUSH}' jid='bob@chat.test'/>", "not-allowed"),
        (f"<enable xmlns='{ns.PUSH}' jid='a.b' node='{'n' * 5000}'/>", "not-acceptable"),
        (f"<enable xmlns='{ns.PUSH}' jid='a.b'><x xmlns='{ns.DATA_FORMS}' type='submit'/></enable>", "bad-request"),
        (f"<disable xmlns='{ns.PUSH}'/>", "jid-malformed"),
    ],
)
async def test_requests_that_are_refused(house: Any, payload: str, expected: str) -> None:
    alice = await house.online("alice")
    assert condition(await alice.request(payload, kind="set")) == expected


async def test_bounds_and_strangers(new_house: Any) -> None:
    house = await new_house(push_registrations=2, default_contacts=False)
    alice, bob = await house.online("alice"), await house.online("bob")
    for node in ("a", "b", "a"):
        assert (await enable(alice, node)).get("type") == "result"
    assert condition(await enable(alice, "c")) == "resource-constraint"
    answer = await bob.request(f"<enable xmlns='{ns.PUSH}' jid='{APP}'/>", kind="set", to="alice@chat.test")
    assert condition(answer) == "forbidden"


async def test_a_program_here_may_be_the_app_server(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    robot = await house.online("carol", "robot")
    await enable(alice, jid="carol@chat.test/robot")
    await alice.close()
    bob.send(HELLO)
    iq = await robot.receive()
    assert iq.get("from") == "alice@chat.test"
    gone = f"<error type='cancel'><gone xmlns='{ns.STANZA_ERRORS}'/></error>"
    robot.send(f"<iq type='error' to='alice@chat.test' id='{iq.get('id')}'>{gone}</iq>")
    await robot.sync()
    await settled(house)
    assert not await house.service._parts.push.registrations.of("alice@chat.test")


async def test_registrations_go_with_their_account(house: Any) -> None:
    alice = await house.online("alice")
    await enable(alice)
    await house.bus.publish(UserRemoved(Address("alice", "chat.test")))
    assert not await house.service._parts.push.registrations.of("alice@chat.test")


@pytest.mark.parametrize(
    ("message", "worth"),
    [
        ("<message type='chat'><body>x</body></message>", True),
        ("<message><body>x</body></message>", True),
        ("<message type='groupchat'><body>x</body></message>", True),
        ("<message type='chat'><encrypted xmlns='urn:xmpp:omemo:2'/></message>", True),
        ("<message type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>", True),
        ("<message><x xmlns='http://jabber.org/protocol/muc#user'><invite/></x></message>", True),
        ("<message><x xmlns='jabber:x:conference' jid='r@x'/></message>", True),
        ("<message type='chat'><body/></message>", False),
        ("<message type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>", False),
        ("<message type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>", False),
        ("<message type='error'><body>x</body></message>", False),
        ("<message type='headline'><body>x</body></message>", False),
        ("<message><x xmlns='http://jabber.org/protocol/muc#user'><item/></x></message>", False),
    ],
)
def test_what_is_worth_waking_somebody(message: str, worth: bool, stanzas: Any) -> None:
    assert wakes(stanzas(message)[0]) is worth
