"""One avatar, by personal events and by vCard, with its hash in presence, for those who may see it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from moim.chat.pep_config import Config
from moim.proto.xmpp import Element, ns
from stanza_parts import child

PICTURE = b"\x89PNG" + bytes(range(256)) * 4
DATA = base64.b64encode(PICTURE).decode()
NUMBER = hashlib.sha1(PICTURE).hexdigest()


def photo(data: str = DATA) -> str:
    lines = "\n".join(data[i : i + 70] for i in range(0, len(data), 70))
    return f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{lines}</BINVAL></PHOTO>"


async def set_vcard(client: Any, inner: str) -> Element:
    answer: Element = await client.request(f"<vCard xmlns='{ns.VCARD}'>{inner}</vCard>", kind="set")
    return answer


async def binval(client: Any, owner: str) -> str | None:
    card = (await client.request(f"<vCard xmlns='{ns.VCARD}'/>", to=owner)).find("vCard", ns.VCARD)
    assert len([child for child in card.elements() if child.name == "PHOTO"]) <= 1
    found = card.find("PHOTO")
    return None if found is None else found.find("BINVAL").text


async def publish(client: Any, *, access: str) -> None:
    form = (
        "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>"
        f"<value>{ns.PUBSUB}#publish-options</value></field>"
        f"<field var='pubsub#access_model'><value>{access}</value></field></x></publish-options>"
    )
    info = f"<info id='{NUMBER}' type='image/png' bytes='{len(PICTURE)}'/>"
    for node, payload in (
        (ns.AVATAR_DATA, f"<data xmlns='{ns.AVATAR_DATA}'>{DATA}</data>"),
        (ns.AVATAR_METADATA, f"<metadata xmlns='{ns.AVATAR_METADATA}'>{info}</metadata>"),
    ):
        item = f"<publish node='{node}'><item id='{NUMBER}'>{payload}</item></publish>"
        answer = await client.request(f"<pubsub xmlns='{ns.PUBSUB}'>{item}{form}</pubsub>", kind="set")
        assert answer.get("type") == "result", answer.to_xml()


def hashes(client: Any) -> list[str | None]:
    """The hashes in the presence that came; None where presence says nothing of avatars."""
    found: list[str | None] = []
    for stanza in [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]:
        if stanza is not None and stanza.name == "presence" and stanza.get("from", "").startswith("alice"):
            update = stanza.find("x", ns.VCARD_UPDATE)
            found.append(None if update is None else update.find("photo").text)
    return found


async def test_a_vcards_picture_is_the_avatar(new_house: Any) -> None:
    house = await new_house()
    alice, bob = await house.online("alice"), await house.online("bob")
    assert hashes(bob) == []
    assert (await set_vcard(alice, f"<FN>앨리스</FN>{photo()}")).get("type") == "result"
    await bob.sync()
    assert hashes(bob) == [NUMBER]
    request = f"<pubsub xmlns='{ns.PUBSUB}'><items node='{ns.AVATAR_DATA}'><item id='{NUMBER}'/></items></pubsub>"
    items = (await bob.request(request, to="alice@chat.test")).find("pubsub", ns.PUBSUB).find("items")
    assert items.elements()[0].elements()[0].text == DATA
    assert await binval(bob, "alice@chat.test") == DATA
    alice.send(f"<presence><show>away</show><x xmlns='{ns.VCARD_UPDATE}'><photo>{'0' * 40}</photo></x></presence>")
    await alice.sync()
    await bob.sync()
    assert hashes(bob) == [NUMBER], "the server knows better than an old client"
    assert (await set_vcard(alice, "<FN>앨리스</FN>")).get("type") == "result"
    await bob.sync()
    assert hashes(bob) == [""]
    assert await binval(bob, "alice@chat.test") is None


async def test_an_avatar_by_events_is_in_the_vcard(new_house: Any) -> None:
    house = await new_house()
    alice, bob = await house.online("alice"), await house.online("bob")
    await publish(alice, access="presence")
    await bob.sync()
    assert hashes(bob) == [NUMBER]
    assert await binval(bob, "alice@chat.test") == DATA
    await house.restart()
    bob = await house.online("bob")
    alice = await house.client("alice").connect()
    alice.send("<presence/>")
    await alice.sync()
    await bob.sync()
    assert hashes(bob) == [NUMBER]


@pytest.mark.parametrize(("access", "shown"), [("open", True), ("presence", False), ("whitelist", False)])
async def test_the_vcard_tells_no_stranger_more(house: Any, access: str, shown: bool) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    await publish(alice, access=access)
    assert (await binval(bob, "alice@chat.test") == DATA) is shown
    assert await binval(alice, "alice@chat.test") == DATA


async def test_an_avatar_for_few_is_not_in_presence(new_house: Any) -> None:
    house = await new_house()
    alice, bob = await house.online("alice"), await house.online("bob")
    await publish(alice, access="whitelist")
    alice.send("<presence><show>away</show></presence>")
    await alice.sync()
    await bob.sync()
    assert hashes(bob) == [None]


async def test_what_is_no_picture_is_refused(house: Any) -> None:
    alice = await house.online("alice")
    answer = await set_vcard(alice, "<FN>x</FN><PHOTO><BINVAL>%%%</BINVAL></PHOTO>")
    assert child(answer, "error").find("bad-request", ns.STANZA_ERRORS) is not None
    assert await binval(alice, "alice@chat.test") is None


async def test_an_empty_picture_is_none(house: Any) -> None:
    alice = await house.online("alice")
    assert (await set_vcard(alice, photo())).get("type") == "result"
    assert (await set_vcard(alice, "<PHOTO><BINVAL/></PHOTO>")).get("type") == "result"
    assert await binval(alice, "alice@chat.test") is None


async def test_a_link_to_a_picture_stays_in_the_vcard(house: Any) -> None:
    alice = await house.online("alice")
    assert (await set_vcard(alice, "<PHOTO><EXTVAL>https://x.test/a.png</EXTVAL></PHOTO>")).get("type") == "result"
    card = (await alice.request(f"<vCard xmlns='{ns.VCARD}'/>")).find("vCard", ns.VCARD)
    assert card.find("PHOTO").find("EXTVAL").text == "https://x.test/a.png"


async def test_directed_presence_has_the_hash_as_well(house: Any) -> None:
    alice, carol = await house.online("alice"), await house.online("carol")
    assert (await set_vcard(alice, photo())).get("type") == "result"
    remove = f"<query xmlns='{ns.ROSTER}'><item jid='carol@chat.test' subscription='remove'/></query>"
    await alice.request(remove, kind="set")
    await carol.sync()
    hashes(carol)
    alice.send("<presence to='carol@chat.test'/>")
    await alice.sync()
    await carol.sync()
    assert hashes(carol) == [NUMBER]


async def test_a_session_may_show_no_avatar(new_house: Any) -> None:
    house = await new_house()
    alice, bob = await house.online("alice"), await house.online("bob")
    assert (await set_vcard(alice, photo())).get("type") == "result"
    await bob.sync()
    hashes(bob)
    for shown, expected in (("<photo/>", ""), ("", NUMBER)):
        alice.send(f"<presence><x xmlns='{ns.VCARD_UPDATE}'>{shown}</x></presence>")
        await alice.sync()
        await bob.sync()
        assert hashes(bob) == [expected]


async def test_what_has_not_the_hash_that_it_is_called_by_is_no_avatar(new_house: Any) -> None:
    house = await new_house()
    alice = await house.online("alice")
    for node, payload in (
        (ns.AVATAR_DATA, f"<data xmlns='{ns.AVATAR_DATA}'>{DATA}</data>"),
        (ns.AVATAR_METADATA, f"<metadata xmlns='{ns.AVATAR_METADATA}'><info id='{'0' * 40}'/></metadata>"),
    ):
        item = f"<publish node='{node}'><item id='{'0' * 40}'>{payload}</item></publish>"
        await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'>{item}</pubsub>", kind="set")
    assert await binval(alice, "alice@chat.test") is None


async def test_an_avatar_that_moved_in_is_seen_at_once(new_house: Any) -> None:
    house = await new_house()
    alice, bob = await house.online("alice"), await house.online("bob")
    parts, owner = house.service._parts, "alice@chat.test"
    info = f"<info id='{NUMBER}' type='image/png' bytes='{len(PICTURE)}'/>"
    for node, payload in (
        (ns.AVATAR_DATA, f"<data xmlns='{ns.AVATAR_DATA}'>{DATA}</data>"),
        (ns.AVATAR_METADATA, f"<metadata xmlns='{ns.AVATAR_METADATA}'>{info}</metadata>"),
    ):
        await parts.pep_store.publish(owner, node, NUMBER, payload, {}, Config())
    await bob.sync()
    assert hashes(bob) == [], "nobody was told yet"
    await parts.pep.taken_over(owner)
    await bob.sync()
    assert hashes(bob) == [NUMBER]
    await alice.sync()
