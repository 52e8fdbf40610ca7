"""What else comes of a message in the engine: carbons (XEP-0280), archive records (XEP-0313), attention (XEP-0352)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from moim._native import ArchiveIds, Element, archivable, copied

from .test_xmpp_management import ALICE, BOB, SM, Manager, Phone, R, bodies, cut, say
from .xmpp_peers import DOMAIN, Client

CLIENT = "jabber:client"
CARBONS = "urn:xmpp:carbons:2"
LAPTOP = f"alice@{DOMAIN}/laptop"
IDS = ArchiveIds(bytes(16))


@pytest.fixture(params=[{"threads": 1}, {"threads": 3}], ids=["one thread", "three threads"])
def plane(request: pytest.FixtureRequest) -> Iterator[Manager]:
    manager = Manager(node=7, archive_ids=IDS, **request.param)
    try:
        yield manager
    finally:
        manager.server.stop()


@pytest.fixture
def trio(plane: Manager) -> tuple[Phone, Phone, Phone]:
    """Alice's phone, her laptop with carbons, and Bob."""
    port = plane.listen()
    made = [Phone(plane, port) for _ in range(3)]
    for client, full in zip(made, (ALICE, LAPTOP, BOB), strict=True):
        user, _, rest = full.partition("@")
        client.login(user, rest.partition("/")[2])
    plane.server.carbons(plane.sid(LAPTOP), True)
    return made[0], made[1], made[2]


def next_message(client: Client) -> Element:
    """The next message, whole."""
    text = client.until("</message>")
    while text.count("<message") != text.count("</message>"):
        text += client.until("</message>")
    return Element.parse(text[text.index("<message") :].replace("<message", f"<message xmlns='{CLIENT}'", 1))


def unwrapped(copy: Element, kind: str) -> Element:
    wrapper = copy.find(kind, CARBONS)
    assert wrapper is not None, copy
    forwarded = wrapper.find("forwarded", "urn:xmpp:forward:0")
    assert forwarded is not None
    message = forwarded.find("message", CLIENT)
    assert message is not None
    return message


def test_copies_of_what_others_send_and_of_what_is_sent(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    phone, laptop, bob = trio
    say(bob, ALICE, "to the phone")
    assert bodies(phone.until("</message>")) == ["to the phone"]
    copy = next_message(laptop)
    assert (copy.get("from"), copy.get("to"), copy.get("type")) == (f"alice@{DOMAIN}", LAPTOP, "chat")
    inner = unwrapped(copy, "received")
    assert (inner.get("from"), inner.get("to")) == (BOB, ALICE)
    say(phone, BOB, "from the phone")
    bob.until("</message>")
    inner = unwrapped(next_message(laptop), "sent")
    assert (inner.get("from"), inner.get("to")) == (ALICE, BOB)
    say(bob, f"alice@{DOMAIN}", "to both")
    for client in (phone, laptop):
        assert next_message(client).find("body") is not None, "whoever gets the message gets no copy"
    say(phone, f"alice@{DOMAIN}", "to myself")
    for client in (phone, laptop):
        assert next_message(client).find("body") is not None
    say(phone, LAPTOP, "to my laptop")
    assert next_message(laptop).find("body") is not None
    assert plane.server.stats()["missed"] == 0
    plane.server.carbons(plane.sid(LAPTOP), False)
    say(bob, ALICE, "alone")
    phone.until("alone</body></message>")
    laptop.quiet(lambda: None)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("chat", f"<body>x</body><private xmlns='{CARBONS}'/>"),
        ("chat", "<body>x</body><no-copy xmlns='urn:xmpp:hints'/>"),
        ("headline", "<body>x</body>"),
        ("normal", "<x xmlns='urn:example:x'/>"),
        ("chat", "<body>x</body><x xmlns='http://jabber.org/protocol/muc#user'/>"),
    ],
)
def test_what_is_not_copied(plane: Manager, trio: tuple[Phone, Phone, Phone], kind: str, payload: str) -> None:
    phone, laptop, bob = trio
    bob.send(f"<message to='{ALICE}' type='{kind}'>{payload}</message>")
    got = next_message(phone)
    assert bool(got.find("private", CARBONS)) == ("private" in payload), "nobody hides what was asked for"
    assert copied(Element.parse(f"<message xmlns='{CLIENT}' type='{kind}'>{payload}</message>")) is False
    laptop.quiet(lambda: None)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        ("chat", "<active xmlns='http://jabber.org/protocol/chatstates'/>"),
        ("normal", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
        ("normal", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"),
        ("normal", "<x xmlns='jabber:x:conference' jid='room@rooms.test'/>"),
        ("normal", "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='b@x.test'/></x>"),
    ],
)
def test_what_is_copied(plane: Manager, trio: tuple[Phone, Phone, Phone], kind: str, payload: str) -> None:
    phone, laptop, bob = trio
    bob.send(f"<message to='{ALICE}' type='{kind}'>{payload}</message>")
    next_message(phone)
    assert unwrapped(next_message(laptop), "received").get("to") == ALICE


def test_what_is_said_to_an_occupant_is_copied_where_it_was_said(
    plane: Manager, trio: tuple[Phone, Phone, Phone]
) -> None:
    """The room sends it to all devices of whoever hears it (XEP-0280 section 6.1)."""
    phone, laptop, bob = trio
    phone.send(
        f"<message to='{BOB}' type='chat'><body>psst</body><x xmlns='http://jabber.org/protocol/muc#user'/></message>"
    )
    next_message(bob)
    assert unwrapped(next_message(laptop), "sent").get("to") == BOB


def test_an_error_is_heard_by_all_devices(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    """They have a copy of what was said to a bare address, and learn that it did not arrive."""
    _, laptop, _ = trio
    for sender, heard in ((f"bob@{DOMAIN}", True), (BOB, False)):
        error = Element("message", CLIENT, {"type": "error", "from": sender, "to": ALICE}, [Element("error", CLIENT)])
        plane.server.copy([error])
        if heard:
            assert unwrapped(next_message(laptop), "received").get("type") == "error"
    laptop.quiet(lambda: None)


def test_what_clients_cannot_forge(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    phone, _, bob = trio
    forged = (
        f"<stanza-id xmlns='urn:xmpp:sid:0' by='alice@{DOMAIN}' id='1'/>"
        "<stanza-id xmlns='urn:xmpp:sid:0' by='x' id='2'/>"
        f"<received xmlns='{CARBONS}'/><sent xmlns='{CARBONS}'/><result xmlns='urn:xmpp:mam:2'/>"
        f"<delay xmlns='urn:xmpp:delay' from='{DOMAIN}' stamp='2020-01-01T00:00:00Z'/>"
        f"<delay xmlns='urn:xmpp:delay' from='alice@{DOMAIN}' stamp='2020-01-01T00:00:00Z'/>"
        f"<delay xmlns='urn:xmpp:delay' from='room@{DOMAIN.upper()}/nick' stamp='2020-01-01T00:00:00Z'/>"
    )
    real = f"<origin-id xmlns='urn:xmpp:sid:0' id='o'/><delay xmlns='urn:xmpp:delay' from='{BOB}' stamp='x'/>"
    for kind in ("chat", "headline", "normal"):
        bob.send(f"<message to='{ALICE}' type='{kind}'><body>x</body>{forged}{real}</message>")
        assert [child.name for child in next_message(phone).elements()] == ["body", "origin-id", "delay"]
    bob.send(f"<message to='room@rooms.{DOMAIN}' type='groupchat'><body>x</body>{forged}</message>")
    missed = plane.until(lambda: next((s for s in plane.stanzas() if s.name == "message"), None))
    assert [child.name for child in missed.elements()] == ["body"]


def records(plane: Manager, count: int) -> list[Any]:
    def found() -> list[Any]:
        return [record for event in plane.seen if event[0] == "records" for record in event[2]]

    plane.until(lambda: len(found()) >= count)
    assert len(found()) == count
    return found()


def test_archives_are_told_and_what_is_delivered_has_its_id(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    phone, laptop, bob = trio
    plane.server.archive(f"alice@{DOMAIN}", True)
    say(bob, ALICE, "kept")
    got, copy = next_message(phone), unwrapped(next_message(laptop), "received")
    [(identifier, sender, to, owners, message)] = records(plane, 1)
    assert (sender, to, owners) == (BOB, ALICE, [f"alice@{DOMAIN}"])
    assert [child.name for child in message.elements()] == ["body"]
    named = IDS.write(f"alice@{DOMAIN}", identifier)
    for shown in (got, copy):
        stamp = shown.find("stanza-id", "urn:xmpp:sid:0")
        assert stamp is not None
        assert stamp.attrs == {"by": f"alice@{DOMAIN}", "id": named}
    assert identifier >> 13 & 511 == 7
    plane.server.archive(f"bob@{DOMAIN}", True)
    say(phone, BOB, "both keep it")
    [_, (later, _, _, owners, _)] = records(plane, 2)
    assert later > identifier
    assert plane.server.next_id() > later
    assert set(owners) == {f"alice@{DOMAIN}", f"bob@{DOMAIN}"}
    named = IDS.write(f"bob@{DOMAIN}", later)
    assert f"by='bob@{DOMAIN}' id='{named}'" in bob.until("</message>")
    sent = unwrapped(next_message(laptop), "sent").find("stanza-id", "urn:xmpp:sid:0")
    assert sent is not None
    named = IDS.write(f"alice@{DOMAIN}", later)
    assert sent.attrs == {"by": f"alice@{DOMAIN}", "id": named}, "each owner sees the id of their own archive"
    bob.send(f"<message to='{ALICE}' type='chat'><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>")
    assert next_message(phone).find("stanza-id", "urn:xmpp:sid:0") is None
    say(phone, f"alice@{DOMAIN}", "to myself")
    assert records(plane, 3)[-1][3] == [f"alice@{DOMAIN}"]
    for bare in ("alice", "bob"):
        plane.server.archive(f"{bare}@{DOMAIN}", False)
    say(bob, ALICE, "forgotten")
    assert "stanza-id" not in phone.until("forgotten</body></message>").split("</message>")[-2]
    records(plane, 3)


def test_senders_are_acknowledged_once_it_is_on_disk(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    phone, _, bob = trio
    plane.server.archive(f"bob@{DOMAIN}", True)
    phone.enable()
    phone.send("<iq type='get' id='q'/>")
    phone.until("id='q'/>")
    say(phone, BOB, 1)
    bob.until("</message>")
    phone.send(R)
    records(plane, 1)
    ticket = next(event[1] for event in plane.seen if event[0] == "records")
    phone.quiet(lambda: None)
    plane.server.committed(ticket)
    plane.server.committed(ticket)
    assert phone.until("'/>") == f"<a xmlns='{SM}' h='2'/>"
    say(phone, BOB, 2)
    bob.until("2</body>")
    phone.send(R)
    assert phone.until("'/>") == f"<a xmlns='{SM}' h='2'/>", "no disk makes an answer wait for ever"
    records(plane, 2)


@pytest.mark.parametrize(
    "plane", [{"threads": 1, "write_queue": 1 << 28}, {"threads": 3, "write_queue": 1 << 28}], indirect=True
)
def test_a_slow_disk_slows_the_senders(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    phone, _, bob = trio
    plane.server.archive(f"bob@{DOMAIN}", True)
    plane.server.unbind(plane.sid(LAPTOP))
    stanza = f"<message to='{BOB}' type='chat'><body>{'x' * 200_000}</body></message>".encode()
    whole = memoryview(stanza * 600)
    sent = 0
    phone.sock.setblocking(False)
    bob.sock.setblocking(False)

    def step() -> bool:
        nonlocal sent
        before = sent
        with contextlib.suppress(BlockingIOError):
            sent += phone.sock.send(whole[sent:])
        with contextlib.suppress(BlockingIOError):
            while bob.sock.recv(1 << 20):
                pass
        return sent == len(whole) or (sent == before and plane.server.stats()["recorded"] * len(stanza) > 60 << 20)

    plane.until(step)
    assert 60 << 20 < sent < 100 << 20, "it stops at 64 MiB, and what the kernel takes"
    done: set[int] = set()

    def everything_recorded() -> bool:
        step()
        for event in plane.seen:
            if event[0] == "records" and event[1] not in done:
                done.add(event[1])
                plane.server.committed(event[1])
        return plane.server.stats()["recorded"] == 600

    plane.until(everything_recorded)


def test_python_delivers_as_a_session_would(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    phone, laptop, bob = trio
    plane.server.archive(f"alice@{DOMAIN}", True)
    for full in (ALICE, LAPTOP, BOB):
        plane.server.tap(plane.sid(full), True)

    def message(to: str, sender: str = "romeo@other.test/x", *more: Element) -> Element:
        return Element("message", CLIENT, {"type": "chat", "from": sender, "to": to}, [Element("body", CLIENT), *more])

    forged = Element("stanza-id", "urn:xmpp:sid:0", {"by": f"alice@{DOMAIN}", "id": "1"})
    theirs = Element("stanza-id", "urn:xmpp:sid:0", {"by": "romeo@other.test", "id": "2"})
    lost = message(f"nobody@{DOMAIN}")
    group = message(ALICE).with_attrs({"type": "groupchat"})
    missed, ticket = plane.server.deliver([message(ALICE, "romeo@other.test/x", forged, theirs), lost, group])
    assert missed == [lost, group]
    assert plane.event("records")[1] == ticket
    [(identifier, _, _, owners, _)] = records(plane, 1)
    assert owners == [f"alice@{DOMAIN}"]
    stamps = [child.attrs for child in next_message(phone).elements() if child.name == "stanza-id"]
    named = IDS.write(f"alice@{DOMAIN}", identifier)
    assert stamps == [{"by": "romeo@other.test", "id": "2"}, {"by": f"alice@{DOMAIN}", "id": named}]
    assert unwrapped(next_message(laptop), "received").get("from") == "romeo@other.test/x"
    assert plane.server.deliver([message(BOB, ALICE)])[0] == []
    next_message(bob)
    assert unwrapped(next_message(laptop), "sent").get("to") == BOB


def test_copies_alone(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    phone, laptop, bob = trio
    away = Element(
        "message", CLIENT, {"type": "chat", "from": ALICE, "to": "romeo@other.test"}, [Element("body", CLIENT)]
    )
    plane.server.copy([away])
    assert unwrapped(next_message(laptop), "sent").get("to") == "romeo@other.test"
    plane.server.copy([away.with_attrs({"type": "groupchat"}), away.with_attrs({"from": LAPTOP})])
    for client in (phone, laptop, bob):
        client.quiet(lambda: None)


def test_one_element_for_many(plane: Manager, trio: tuple[Phone, Phone, Phone]) -> None:
    names = dict(zip(trio, (ALICE, LAPTOP, BOB), strict=True))
    message = Element(
        "message", CLIENT, {"from": "r@x/n", "to": "nobody", "type": "groupchat"}, [Element("body", CLIENT)]
    )
    plane.server.fan_out(message, [plane.sid(full) for full in names.values()] + [4711])
    for client, full in names.items():
        text = client.until("<body/></message>")
        assert text == f"<message to='{full}' from='r@x/n' type='groupchat'><body/></message>"
    phone = trio[0].enable()
    plane.server.fan_out(message, [plane.sid(ALICE)])
    phone.until("<body/></message>")
    cut(plane, phone, ALICE)
    again = Phone(plane, plane.listen()).authenticate("alice")
    again.resume(ALICE, 0)
    assert f"to='{ALICE}'" in again.until("<body/></message>")


INACTIVE = "<inactive xmlns='urn:xmpp:csi:0'/><iq type='get' id='s'/>"


def test_inactive_clients_hear_the_latest_when_something_matters(
    plane: Manager, trio: tuple[Phone, Phone, Phone]
) -> None:
    phone, _, bob = trio
    phone.send(INACTIVE)
    phone.until("id='s'/>")
    sid = plane.sid(ALICE)
    for number in range(3):
        show = Element("status", CLIENT, {}, [str(number)])
        plane.server.send(sid, [Element("presence", CLIENT, {"from": BOB}, [show])])
        bob.send(
            f"<message to='{ALICE}' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>"
        )
    bob.send("<iq type='get' id='s'/>")
    bob.until("id='s'/>")
    say(bob, ALICE, "important")
    text = phone.until("important</body></message>")
    assert re.findall(r"<(presence|message|composing|body)\b", text) == [
        "presence",
        "message",
        "composing",
        "message",
        "body",
    ]
    assert "<status>2</status>" in text
    plane.server.send(sid, [Element("presence", CLIENT, {"from": BOB})])
    phone.send("<active xmlns='urn:xmpp:csi:0'/>")
    phone.until(f"<presence from='{BOB}'/>")
    plane.server.inactive(sid, True)
    plane.server.send(sid, [Element("presence", CLIENT, {"from": BOB})])
    plane.server.inactive(sid, False)
    phone.until(f"<presence from='{BOB}'/>")


def test_the_rules_are_the_same_for_python() -> None:
    def message(payload: str, kind: str = "chat") -> Element:
        return Element.parse(f"<message xmlns='{CLIENT}' type='{kind}'>{payload}</message>")

    assert archivable(message("<body>x</body>"))
    assert not archivable(message("<body>x</body><no-store xmlns='urn:xmpp:hints'/>"))
    assert not archivable(message("<body>x</body>", "groupchat"))
    assert copied(message("<active xmlns='http://jabber.org/protocol/chatstates'/>"))
