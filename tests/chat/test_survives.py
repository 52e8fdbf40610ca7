"""The whole service against those who mean harm, over its real listeners: it ends their stream and serves the others.

What each line of the list of attacks is covered by stands in ``docs/survives.md``.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moim.chat.remote_readers import RemoteReaders
from moim.proto.xmpp import Element, Jid, ns

HEADER = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAMS}' to='chat.test' version='1.0'>"
DEEP = "<a>" * 200


class Raw:
    """A connection that says what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, house: Any, *, tls: bool = False) -> Raw:
        options = {"ssl": house.tls, "server_hostname": house.domain} if tls else {}
        place = house.place("xmpp-client-tls" if tls else "xmpp-client")
        return cls(*await asyncio.open_connection(*place, **options))

    def send(self, text: str | bytes) -> None:
        self.writer.write(text.encode() if isinstance(text, str) else text)

    async def until(self, text: str) -> str:
        return (await asyncio.wait_for(self.reader.readuntil(text.encode()), 20)).decode()

    async def rest(self) -> str:
        """Everything until the server ends the connection."""
        try:
            return (await asyncio.wait_for(self.reader.read(-1), 20)).decode()
        except ConnectionError:
            return ""
        finally:
            self.writer.close()


async def living(house: Any) -> None:
    """Others are served."""
    client = await house.client("bob").connect()
    await client.sync()


@pytest.mark.parametrize(
    ("words", "condition"),
    [
        ("<!DOCTYPE a [<!ENTITY l 'lol'><!ENTITY m '&l;&l;&l;'>]>" + HEADER, "restricted-xml"),
        (HEADER + "<a>&m;</a>", "restricted-xml"),
        (HEADER + "<?php system('x') ?>", "restricted-xml"),
        (HEADER + "<!-- hidden -->", "restricted-xml"),
        (HEADER.encode() + b"<a>\xc0\xaf</a>", "unsupported-encoding"),
        (HEADER.encode() + b"<a>\xed\xa0\x80</a>", "unsupported-encoding"),
        (HEADER.encode("utf-16"), "unsupported-encoding"),
        (HEADER + "<a>&#0;</a>", "not-well-formed"),
        (HEADER + DEEP, "policy-violation"),
        (HEADER + "<a" + "".join(f" a{number}=''" for number in range(200)) + "/>", "policy-violation"),
        (HEADER + "<" + "n" * 5000 + "/>", "policy-violation"),
        (HEADER + "<a" + "".join(f" xmlns:p{number}='u'" for number in range(200)) + "/>", "policy-violation"),
        (HEADER + f"<a xmlns:p='{'u' * 4000}'>" + "<p:b/>" * 500 + "</a>", "policy-violation"),
        (HEADER + "<a>" + "x" * 20_000, "policy-violation"),
        (HEADER + HEADER, "bad-format"),
        (HEADER + "text", "bad-format"),
        (HEADER.replace(ns.CLIENT, "jabber:server"), "invalid-namespace"),
        (HEADER.replace(ns.STREAMS, "urn:other"), "invalid-namespace"),
        (HEADER + "<message to='bob@chat.test'><body>hi</body></message>", "not-authorized"),
        (HEADER + f"<starttls xmlns='{ns.TLS}'/><message to='bob@chat.test'/>", "policy-violation"),
    ],
)
async def test_what_ends_a_stream_before_the_sign_in(house: Any, words: str | bytes, condition: str) -> None:
    raw = await Raw.to(house)
    raw.send(words)
    assert f"<{condition} xmlns='{ns.STREAM_ERRORS}'" in await raw.rest()
    await living(house)


async def signed_in(house: Any, name: str) -> Raw:
    """A connection with a stream that is authenticated, and has no resource yet."""
    raw = await Raw.to(house, tls=True)
    raw.send(HEADER)
    await raw.until("</stream:features>")
    secret = base64.b64encode(f"\0{name}\0{house.users.passwords[name]}".encode()).decode()
    raw.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{secret}</auth>")
    await raw.until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
    raw.send(HEADER)
    await raw.until("</stream:features>")
    return raw


async def test_a_rebound_prefix_neither_ends_the_stream_nor_opens_another(new_house: Any) -> None:
    house = await new_house(default_contacts=False, allow_plain=True)
    bob = await house.online("bob", "desk")
    raw = await signed_in(house, "alice")
    raw.send(f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'><resource>x</resource></bind></iq>")
    await raw.until("</iq>")
    inside = "<s:stream xmlns:s='http://etherx.jabber.org/streams' to='evil.test'></s:stream>"
    smuggled = "<stream:stream xmlns:stream='urn:x'></stream:stream>"
    raw.send(f"<message to='bob@chat.test/desk' type='chat'><body>hi</body>{inside}{smuggled}</message>")
    raw.send("<message to='bob@chat.test/desk' type='chat'><body>again</body></message>")
    for words in ("hi", "again"):
        message = await bob.receive()
        assert (message.get("from"), message.find("body").text) == ("alice@chat.test/x", words)
    raw.send("<m:message xmlns:m='jabber:server' to='bob@chat.test/desk' from='ceo@chat.test'/>")
    assert "<invalid-namespace" in await raw.rest()
    await bob.quiet()


@pytest.mark.parametrize(
    "stanza",
    [
        "<message to='bob@chat.test' type='chat'><body>hi</body></message>",
        "<presence to='bob@chat.test'/>",
        f"<iq type='set' id='r' to='bob@chat.test/desk'><query xmlns='{ns.ROSTER}'/></iq>",
    ],
)
async def test_nothing_gets_out_before_a_resource_is_bound(new_house: Any, stanza: str) -> None:
    house = await new_house(default_contacts=False, allow_plain=True)
    bob = await house.online("bob", "desk")
    raw = await signed_in(house, "alice")
    raw.send(stanza)
    assert "<not-authorized" in await raw.until("not-authorized")
    await bob.quiet()
    raw.writer.close()


async def test_nobody_acts_as_somebody_else(new_house: Any) -> None:
    house = await new_house(default_contacts=False, allow_plain=True)
    raw = await Raw.to(house, tls=True)
    raw.send(HEADER)
    await raw.until("</stream:features>")
    secret = base64.b64encode(f"bob@chat.test\0alice\0{house.users.passwords['alice']}".encode()).decode()
    raw.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{secret}</auth>")
    assert "<invalid-authzid" in await raw.until("</failure>")
    raw.writer.close()


async def test_what_only_servers_say_does_not_come_from_people(house: Any) -> None:
    alice, bob = await house.online("alice", "x"), await house.online("bob", "desk")
    inner = f"<forwarded xmlns='{ns.FORWARD}'><message from='carol@chat.test' xmlns='{ns.CLIENT}'/></forwarded>"
    forged = (
        f"<received xmlns='{ns.CARBONS}'>{inner}</received><sent xmlns='{ns.CARBONS}'>{inner}</sent>"
        f"<result xmlns='{ns.ARCHIVE}' id='1'>{inner}</result>"
        f"<stanza-id xmlns='{ns.STANZA_IDS}' by='bob@chat.test' id='forged'/>"
        f"<delay xmlns='{ns.DELAY}' from='chat.test' stamp='2001-01-01T00:00:00Z'/>"
    )
    for to in ("bob@chat.test", "bob@chat.test/desk"):
        alice.send(f"<message to='{to}' type='chat'><body>hi</body>{forged}</message>")
        message = await bob.receive()
        names = {child.name for child in message.elements()}
        assert not names & {"received", "sent", "result", "delay"}
        assert all(child.get("id") != "forged" for child in message.elements())
    alice.send(
        "<message from='carol@chat.test/x' to='bob@chat.test/desk' type='chat'><body>I am Carol</body></message>"
    )
    assert (await alice.ended()).condition == "invalid-from"
    await bob.quiet()


@pytest.mark.parametrize(
    "payload",
    [
        f"<query xmlns='{ns.ROSTER}'><item jid='evil@else.example' subscription='both'/></query>",
        f"<block xmlns='{ns.BLOCKING}'><item jid='carol@chat.test'/></block>",
    ],
)
async def test_pushes_come_from_ones_own_server_alone(house: Any, payload: str) -> None:
    alice, bob = await house.online("alice"), await house.online("bob", "desk")
    for resource in ("desk", "gone"):
        answer = await alice.request(payload, kind="set", to=f"bob@chat.test/{resource}")
        assert "service-unavailable" in answer.to_xml("")
    await bob.quiet()


@pytest.fixture
async def elsewhere(house_class: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """A house with a way to other domains; ``out`` is what went there."""

    class Out:
        def __init__(self) -> None:
            self.sent: list[Element] = []

        def send(self, stanza: Element) -> None:
            self.sent.append(stanza)

    out = Out()

    class Federated(house_class):
        def _service(self) -> Any:
            service = super()._service()
            service._federation = out
            return service

    made = Federated(tmp_path / "house", people={"alice": "a", "bob": "b"}, default_contacts=False)
    made.out = out.sent
    await made.service.start()
    yield made
    await made.stop()


def remote(text: str) -> Element:
    return Element.parse(text.replace(" ", f" xmlns='{ns.CLIENT}' from='mallory@else.example/x' ", 1))


@pytest.mark.parametrize("kind", ["chat", "headline", "later"])
async def test_other_domains_do_not_speak_for_this_one(elsewhere: Any, kind: str) -> None:
    """What comes when somebody is there, what is never kept, and what waits for somebody who is away."""
    alice = None if kind == "later" else await elsewhere.online("alice", "phone")
    forged = (
        f"<delay xmlns='{ns.DELAY}' from='chat.test' stamp='2001-01-01T00:00:00Z'/>"
        f"<delay xmlns='{ns.DELAY}' from='room@rooms.chat.test' stamp='2001-01-01T00:00:00Z'/>"
        f"<delay xmlns='{ns.DELAY}' from='else.example' stamp='2002-01-01T00:00:00Z'/>"
        f"<stanza-id xmlns='{ns.STANZA_IDS}' by='room@rooms.chat.test' id='forged'/>"
        f"<stanza-id xmlns='{ns.STANZA_IDS}' by='ALICE@chat.test' id='forged'/>"
        f"<sent xmlns='{ns.CARBONS}'/><received xmlns='{ns.CARBONS}'/><result xmlns='{ns.ARCHIVE}' id='forged'/>"
    )
    sent = "headline" if kind == "headline" else "chat"
    elsewhere.service.remote_stanza(
        remote(f"<message to='alice@chat.test' type='{sent}'><body>x</body>{forged}</message>")
    )
    if alice is None:
        bob = await elsewhere.online("bob")
        await bob.sync()
        async with asyncio.timeout(20):
            while not await elsewhere.service._parts.offline.waiting("alice@chat.test"):
                await bob.sync()
        alice = await elsewhere.client("alice", "phone").connect()
        alice.send("<presence/>")
    while (message := await alice.receive()).name != "message":
        pass
    assert "2001-01-01" not in message.to_xml("")
    assert "forged" not in message.to_xml("")
    assert kind == "later" or message.find("delay", ns.DELAY).get("from") == "else.example"
    assert not [child for child in message.elements() if child.ns == ns.CARBONS]


async def test_errors_are_never_answered_so_that_nothing_goes_round(elsewhere: Any) -> None:
    alice = await elsewhere.online("alice", "phone")
    for to in ("nobody@chat.test", "nobody@chat.test/x", "chat.test", "room@rooms.chat.test/x", "upload.chat.test"):
        elsewhere.service.remote_stanza(remote(f"<message to='{to}' type='error'/>"))
        elsewhere.service.remote_stanza(remote(f"<iq to='{to}' type='error' id='1'/>"))
        elsewhere.service.remote_stanza(remote(f"<iq to='{to}' type='result' id='1'/>"))
        elsewhere.service.remote_stanza(remote(f"<presence to='{to}' type='error'/>"))
        elsewhere.service.remote_stanza(remote(f"<presence to='{to}' type='unavailable'/>"))
    ping = f"<iq to='alice@chat.test' type='get' id='last'><ping xmlns='{ns.PING}'/></iq>"
    elsewhere.service.remote_stanza(remote(ping))
    async with asyncio.timeout(20):
        while not any(one.get("id") == "last" for one in elsewhere.out):
            await alice.sync()
    assert [one.get("id") for one in elsewhere.out] == ["last"]


async def test_refusals_echo_nothing(elsewhere: Any) -> None:
    """Whoever sends in somebody else's name cannot make this server send more than it got."""
    big = "x" * 50_000
    elsewhere.service.remote_stanza(remote(f"<message to='nobody@chat.test' id='1'><body>{big}</body></message>"))
    elsewhere.service.remote_stanza(remote(f"<iq to='nobody@chat.test' type='get' id='2'><q xmlns='u'>{big}</q></iq>"))
    alice = await elsewhere.online("alice")
    async with asyncio.timeout(20):
        while len(elsewhere.out) < 2:
            await alice.sync()
    assert all(len(one.to_xml("")) < 500 for one in elsewhere.out)


async def test_pages_are_as_large_as_the_server_wants(new_house: Any) -> None:
    house = await new_house(default_contacts=False, archive_page_max=5)
    alice = await house.online("alice", "x")
    await house.online("bob", "desk")
    for number in range(12):
        alice.send(f"<message to='bob@chat.test/desk' type='chat'><body>{number}</body></message>")
    await alice.sync()
    size = f"<set xmlns='{ns.RSM}'><max>2147483647</max></set>"
    answer = await alice.request(f"<query xmlns='{ns.ARCHIVE}'>{size}</query>", kind="set")
    assert answer.get("type") == "result"
    waiting = [alice.inbox.get_nowait() for _ in range(alice.inbox.qsize())]
    assert len([one for one in waiting if one.find("result", ns.ARCHIVE) is not None]) == 5
    for wrong in ("-1", "99999999999999999999", "x"):
        broken = f"<set xmlns='{ns.RSM}'><max>{wrong}</max></set>"
        answer = await alice.request(f"<query xmlns='{ns.ARCHIVE}'>{broken}</query>", kind="set")
        assert "bad-request" in answer.to_xml("")


async def test_a_flood_of_half_open_streams_is_cut_off_and_forgotten(new_house: Any) -> None:
    house = await new_house(default_contacts=False, handshake_seconds=1.0)
    opened = [await Raw.to(house) for _ in range(100)]
    for number, raw in enumerate(opened):
        raw.send((HEADER + "<auth")[: 20 + number])
    await living(house)
    await asyncio.gather(*(raw.rest() for raw in opened))
    async with asyncio.timeout(20):
        while len(house.service._parts.sessions) > 1:
            await living(house)
            for client in house.clients:
                await client.close()
    assert _open_files() < 400


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_presence_and_events_reach_only_those_who_asked(house: Any) -> None:
    """One publish or presence costs as many stanzas as there are people who subscribed: here none."""
    alice, bob = await house.online("alice"), await house.online("bob")
    for number in range(50):
        alice.send(f"<presence><status>{number}</status></presence>")
        item = f"<item id='{number}'><tune xmlns='http://jabber.org/protocol/tune'/></item>"
        publish = f"<publish node='http://jabber.org/protocol/tune'>{item}</publish>"
        await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'>{publish}</pubsub>", kind="set")
    await bob.quiet()


@pytest.mark.parametrize(
    "payload",
    [
        f"<query xmlns='{ns.DISCO_INFO}'/>",
        f"<query xmlns='{ns.DISCO_ITEMS}'/>",
        f"<ping xmlns='{ns.PING}'/>",
        f"<vCard xmlns='{ns.VCARD}'/>",
        "<query xmlns='jabber:iq:last'/>",
        f"<pubsub xmlns='{ns.PUBSUB}'><items node='urn:xmpp:avatar:metadata'/></pubsub>",
        f"<query xmlns='{ns.ARCHIVE}'/>",
    ],
)
async def test_who_asks_does_not_learn_who_has_an_account(elsewhere: Any, payload: str) -> None:
    alice = await elsewhere.online("alice")
    for name in ("bob", "nobody"):
        elsewhere.service.remote_stanza(remote(f"<iq to='{name}@chat.test' type='get' id='{name}'>{payload}</iq>"))
    async with asyncio.timeout(20):
        while len(elsewhere.out) < 2:
            await alice.sync()
    answers = {one.get("id"): one.to_xml("") for one in elsewhere.out}
    assert answers["bob"].replace("bob", "nobody") == answers["nobody"]


async def test_a_client_elsewhere_speaks_for_itself_alone() -> None:
    """A hash of capabilities that somebody claims without having them counts for nobody else (XEP-0115 section 9.1)."""
    sent: list[Element] = []
    known = SimpleNamespace(state=SimpleNamespace(seen=True, sees=True))

    async def roster(owner: str) -> Any:
        return SimpleNamespace(item=lambda contact: known)

    async def introduced(*_: Any) -> None:
        return None

    events: Any = SimpleNamespace(introduce_remote=introduced)
    rosters: Any = SimpleNamespace(get=roster)
    readers = RemoteReaders(events, rosters=rosters, send=sent.append)
    owner, node = "alice@chat.test", "urn:xmpp:avatar:metadata"
    claim = f"<c xmlns='{ns.CAPS}' hash='sha-1' node='n' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>"
    liar, other = Jid.parse("mallory@else.example/x"), Jid.parse("romeo@else.example/x")
    for number, who in enumerate((liar, other), 1):
        readers.presence(Jid.parse(owner), who, remote(f"<presence to='{owner}'>{claim}</presence>"))
        await asyncio.gather(*readers._tasks)
        assert len(sent) == number, "what the liar said is not taken for the other's word"
        if who is liar:
            info = f"<query xmlns='{ns.DISCO_INFO}'><feature var='{node}+notify'/></query>"
            lie = remote(f"<iq to='{owner}' type='result' id='{sent[0].get('id')}'>{info}</iq>")
            assert not readers.answer(Jid.parse(owner), other, lie)
            assert readers.answer(Jid.parse(owner), liar, lie)
            await asyncio.gather(*readers._tasks)
    assert list(readers.wanting(owner, "mallory@else.example", node)) == [liar]
    assert list(readers.wanting(owner, "romeo@else.example", node)) == []


def test_the_list_of_attacks_names_tests_that_exist() -> None:
    root = Path(__file__).parents[2]
    named = re.findall(r"`([\w/]+\.(?:py|rs))(?:::(\w+))?`", (root / "docs" / "survives.md").read_text())
    assert len(named) > 80
    for path, name in named:
        text = (root / path).read_text()
        assert not name or re.search(rf"\b(?:def|fn) {name}\(", text), f"{path} has no {name}"
