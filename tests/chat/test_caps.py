"""Capabilities: the hash of XEP-0115 with its own examples, and that nobody can speak for another client."""

from __future__ import annotations

from typing import Any

import pytest

from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.caps import verification

SIMPLE = (
    "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' name='Exodus 0.9.1' type='pc'/>"
    "<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>"
    "<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/></query>"
)
COMPLEX = (
    "<query xmlns='http://jabber.org/protocol/disco#info'>"
    "<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/>"
    "<identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>"
    "<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>"
    "<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>"
    "<x xmlns='jabber:x:data' type='result'>"
    "<field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>"
    "<field var='ip_version'><value>ipv4</value><value>ipv6</value></field>"
    "<field var='os'><value>Mac</value></field><field var='os_version'><value>10.5.1</value></field>"
    "<field var='software'><value>Psi</value></field><field var='software_version'><value>0.11</value></field>"
    "</x></query>"
)


@pytest.mark.parametrize(
    ("info", "version"), [(SIMPLE, "QgayPKawpkPSDYmwT/WM94uAlu0="), (COMPLEX, "q07IKJEyjvHSyhy//CH0CxmKi8w=")]
)
def test_the_examples_of_the_standard(info: str, version: str) -> None:
    assert verification(Element.parse(info), "sha-1") == version


@pytest.mark.parametrize(
    "body",
    [
        "<feature var='a'/><feature var='a'/>",
        "<identity category='c' type='t'/><identity category='c' type='t'/>",
        "<feature var='a&lt;b'/>",
        "<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value><value>b</value></field></x>",
        "<x xmlns='jabber:x:data'><field var='FORM_TYPE' type='hidden'><value>a</value></field></x>" * 2,
    ],
)
def test_what_a_hash_cannot_vouch_for(body: str) -> None:
    assert verification(Element.parse(f"<query xmlns='{ns.DISCO_INFO}'>{body}</query>"), "sha-1") is None


def test_an_unknown_hash_is_not_believed() -> None:
    assert verification(Element.parse(SIMPLE), "md5") is None


TUNE = "http://jabber.org/protocol/tune"
INFO = f"<query xmlns='{ns.DISCO_INFO}'><feature var='{TUNE}+notify'/></query>"


async def show(client: Any, ver: str, info: str | None) -> bool:
    """Sends presence with capabilities and answers the server's question; whether there was one."""
    client.send(f"<presence><c xmlns='{ns.CAPS}' hash='sha-1' node='urn:example:c' ver='{ver}'/></presence>")
    asked = False
    await client.sync()
    while not client.inbox.empty():
        stanza = client.inbox.get_nowait()
        if stanza.name == "iq" and stanza.get("from") == "chat.test":
            asked = True
            assert stanza.find("query", ns.DISCO_INFO).get("node") == f"urn:example:c#{ver}"
            client.send(f"<iq type='result' id='{stanza.get('id')}' to='chat.test'>{info}</iq>")
    await client.sync()
    return asked


async def publish(client: Any) -> None:
    answer = await client.request(
        f"<pubsub xmlns='{ns.PUBSUB}'><publish node='{TUNE}'><item id='current'><tune xmlns='{TUNE}'/></item></publish>"
        "</pubsub>",
        kind="set",
    )
    assert answer.get("type") == "result", answer.to_xml()


def events(client: Any) -> list[Element]:
    found = [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]
    return [stanza for stanza in found if stanza is not None and stanza.name == "message"]


async def test_a_verified_answer_counts_for_all_who_claim_it(house: Any) -> None:
    ver = verification(Element.parse(INFO), "sha-1")
    first, second = await house.client("alice", "1").connect(), await house.client("alice", "2").connect()
    assert ver is not None
    assert await show(first, ver, INFO)
    assert not await show(second, ver, None)
    await publish(first)
    await second.sync()
    assert len(events(first)) == 1
    assert len(events(second)) == 1


async def test_a_wrong_answer_counts_for_its_own_session_alone(house: Any) -> None:
    honest = f"<query xmlns='{ns.DISCO_INFO}'><feature var='urn:example:other'/></query>"
    ver = verification(Element.parse(honest), "sha-1")
    assert ver is not None
    liar, client = await house.client("bob", "1").connect(), await house.client("alice", "2").connect()
    assert await show(liar, ver, INFO)
    assert await show(client, ver, honest), "the lie was believed"
    await publish(client)
    assert events(client) == []
    await publish(liar)
    assert len(events(liar)) == 1


async def test_an_answer_that_nobody_asked_for_changes_nothing(house: Any) -> None:
    alice = await house.client("alice", "1").connect()
    alice.send("<presence/>")
    for number in range(5):
        alice.send(f"<iq type='result' id='caps-{number}' to='chat.test'>{INFO}</iq>")
    await publish(alice)
    assert events(alice) == []


async def test_the_stream_announces_the_servers_own(house: Any) -> None:
    alice = await house.client("alice", "1").connect()
    announced = house.service._parts.sessions._policies["chat.test"].stream_features[-1]
    node = f"{announced.get('node')}#{announced.get('ver')}"
    answer = await alice.request(f"<query xmlns='{ns.DISCO_INFO}' node='{node}'/>", to="chat.test")
    info = answer.find("query", ns.DISCO_INFO)
    assert info.get("node") == node
    assert verification(info, "sha-1") == announced.get("ver")


async def test_what_a_client_wants_anew_is_told_again(house: Any) -> None:
    """XEP-0163 section 4.3.2: a change of what a client wants brings the last item of what it did not want before."""
    nothing = f"<query xmlns='{ns.DISCO_INFO}'/>"
    first, second = await house.client("alice", "1").connect(), await house.client("alice", "2").connect()
    await publish(first)
    for round_ in range(2):
        assert await show(second, f"wants-{round_}", INFO)
        assert len(events(second)) == 1
        assert await show(second, f"still-wants-{round_}", INFO)
        assert events(second) == []
        assert await show(second, f"wants-nothing-{round_}", nothing)
        assert events(second) == []
