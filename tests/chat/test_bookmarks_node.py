"""Bookmarks in one item of ``storage:bookmarks``: the same list as in private storage and in XEP-0402."""

from __future__ import annotations

from typing import Any

import pytest

from moim.proto.xmpp import Element, ns
from stanza_parts import child

NODE, EACH = ns.STORAGE_BOOKMARKS, ns.BOOKMARKS
CAPS_INFO = f"<query xmlns='{ns.DISCO_INFO}'><feature var='{NODE}+notify'/></query>"
WHITELIST = (
    f"<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>"
    f"<value>{ns.PUBSUB}#publish-options</value></field><field var='pubsub#persist_items'><value>true</value></field>"
    f"<field var='pubsub#access_model'><value>whitelist</value></field></x></publish-options>"
)


@pytest.fixture
async def house(new_house: Any) -> Any:
    return await new_house(default_contacts=False)


async def pubsub(client: Any, payload: str, *, kind: str = "get", owner: bool = False, to: str = "") -> Element:
    space = ns.PUBSUB_OWNER if owner else ns.PUBSUB
    answer: Element = await client.request(f"<pubsub xmlns='{space}'>{payload}</pubsub>", kind=kind, to=to or None)
    return answer


async def write(client: Any, rooms: str, options: str = WHITELIST) -> Element:
    item = f"<item id='current'><storage xmlns='{NODE}'>{rooms}</storage></item>"
    return await pubsub(client, f"<publish node='{NODE}'>{item}</publish>{options}", kind="set")


async def rooms(client: Any, node: str) -> list[str]:
    """The rooms in the order of their addresses, from either node."""
    items = child(await pubsub(client, f"<items node='{node}'/>"), ("pubsub", ns.PUBSUB), "items").elements()
    if node == EACH:
        return sorted(item.get("id") or "" for item in items)
    found = [room for item in items for room in item.elements()[0].elements()]
    return sorted(room.get("jid") or "" for room in found if room.name == "conference")


async def heard(client: Any) -> list[list[str]]:
    """The lists that events brought since the last look."""
    await client.sync()
    found = []
    for stanza in [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]:
        if stanza is not None and stanza.name == "message":
            (item,) = child(stanza, ("event", ns.PUBSUB_EVENT), "items").elements()
            found.append(sorted(room.get("jid") or "" for room in item.elements()[0].elements()))
    return found


async def test_it_is_the_same_list(house: Any) -> None:
    alice = await house.client("alice").connect()
    assert await rooms(alice, NODE) == []
    page = "<url name='page' url='https://example.com/'/>"
    assert (await write(alice, f"<conference jid='a@r.test'/><conference jid='b@r.test'/>{page}")).get(
        "type"
    ) == "result"
    assert await rooms(alice, EACH) == ["a@r.test", "b@r.test"]
    private = await alice.request(f"<query xmlns='{ns.PRIVATE}'><storage xmlns='{NODE}'/></query>")
    names = [one.name for one in child(private, ("query", ns.PRIVATE), ("storage", NODE)).elements()]
    assert names == ["conference", "conference", "url"]
    await pubsub(alice, f"<retract node='{EACH}'><item id='a@r.test'/></retract>", kind="set")
    assert await rooms(alice, NODE) == ["b@r.test"]
    assert (await write(alice, "")).get("type") == "result"
    assert await rooms(alice, EACH) == []


async def test_older_clients_hear_of_every_change_and_of_their_own_once(house: Any) -> None:
    alice = await house.client("alice", "old").connect()
    alice.send(f"<presence><c xmlns='{ns.CAPS}' hash='none' node='n' ver='v'/></presence>")
    while (stanza := await alice.receive()).get("from") != "chat.test":
        pass
    alice.send(f"<iq type='result' id='{stanza.get('id')}' to='chat.test'>{CAPS_INFO}</iq>")
    await heard(alice)
    newer = await house.online("alice", "new")
    conference = f"<conference xmlns='{EACH}'/>"
    await pubsub(newer, f"<publish node='{EACH}'><item id='a@r.test'>{conference}</item></publish>", kind="set")
    assert await heard(alice) == [["a@r.test"]]
    await write(newer, "<conference jid='b@r.test'/><conference jid='c@r.test'/>")
    assert await heard(alice) == [["b@r.test", "c@r.test"]]
    await pubsub(newer, f"<retract node='{EACH}' notify='1'><item id='b@r.test'/></retract>", kind="set")
    assert await heard(alice) == [["c@r.test"]]


async def test_what_the_node_refuses(house: Any) -> None:
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    await write(alice, "<conference jid='a@r.test'/>")

    def problem(answer: Element) -> str:
        return " ".join(one.name for one in child(answer, "error").elements() if one.name != "text")

    assert problem(await pubsub(bob, f"<items node='{NODE}'/>", to="alice@chat.test")) == "not-allowed closed-node"
    open_to_all = WHITELIST.replace("whitelist", "open")
    assert problem(await write(alice, "", open_to_all)) == "conflict precondition-not-met"
    assert problem(await write(alice, "<conference jid='@'/>")) == "jid-malformed"
    other = f"<publish node='{NODE}'><item id='current'><other xmlns='urn:other'/></item></publish>"
    assert problem(await pubsub(alice, other, kind="set")) == "bad-request invalid-payload"
    assert problem(await pubsub(alice, f"<create node='{NODE}'/>", kind="set")) == "conflict"
    for payload in (f"<delete node='{NODE}'/>", f"<purge node='{NODE}'/>"):
        assert problem(await pubsub(alice, payload, kind="set", owner=True)) == "not-allowed"
    shown = await pubsub(alice, f"<configure node='{NODE}'/>", owner=True)
    assert shown.get("type") == "result"
    assert await rooms(alice, NODE) == ["a@r.test"]


async def test_what_discovery_says(house: Any) -> None:
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    await write(alice, "<conference jid='a@r.test'/>")
    info = await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>")
    features = {one.get("var") for one in child(info, ("query", ns.DISCO_INFO)).elements()}
    assert {f"{EACH}#compat", f"{EACH}#compat-pep"} <= features
    nodes = await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>")
    assert {one.get("node") for one in child(nodes, ("query", ns.DISCO_ITEMS)).elements()} >= {EACH, NODE}
    items = await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}' node='{NODE}'/>")
    assert [one.get("name") for one in child(items, ("query", ns.DISCO_ITEMS)).elements()] == ["current"]
    hidden = await bob.request(f"<query xmlns='{ns.DISCO_ITEMS}' node='{NODE}'/>", to="alice@chat.test")
    assert child(hidden, ("query", ns.DISCO_ITEMS)).elements() == []
