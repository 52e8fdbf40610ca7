"""Two nodes as one service: messages, presence, rosters, blocking and personal events between their clients."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from moim.bus import Hub
from moim.chat import tables
from moim.model import Address, UserChanged
from moim.proto.xmpp import Element, Jid, ns

Pair = tuple[Any, Any]


async def until(client: Any, name: str, **attrs: str | None) -> Element:
    """The next stanza of this name and with these attributes; others are passed over."""
    while True:
        stanza: Element = await client.receive(f"waiting for <{name}> with {attrs}")
        if stanza.name == name and all(
            stanza.get("from" if key == "sender" else key) == value for key, value in attrs.items()
        ):
            return stanza


def body(stanza: Element) -> str:
    """The text of a message."""
    found = stanza.find("body")
    assert found is not None, stanza.to_xml()
    return found.text


async def befriend(one: Any, other: Any) -> None:
    """Makes two accounts see each other, whose only sessions these are."""
    mine, theirs = (str(Jid.parse(client.jid).bare) for client in (one, other))
    for asks, answers, asked in ((one, other, theirs), (other, one, mine)):
        asks.send(f"<presence type='subscribe' to='{asked}'/>")
        request = await until(answers, "presence", type="subscribe")
        answers.send(f"<presence type='subscribed' to='{request.get('from')}'/>")
        await until(asks, "presence", type="subscribed", sender=asked)
        await until(asks, "presence", type=None, sender=answers.jid)


async def test_messages_go_both_ways_in_order(pair: Pair) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    for n in range(50):
        alice.send(f"<message to='bob@chat.test' type='chat'><body>{n}</body></message>")
        bob.send(f"<message to='alice@chat.test/a' type='chat'><body>{n}</body></message>")
    for n in range(50):
        got = await until(bob, "message", sender="alice@chat.test/a")
        assert (body(got), got.get("to")) == (str(n), "bob@chat.test")
        assert body(await until(alice, "message", sender="bob@chat.test/b")) == str(n)
    await alice.quiet()
    await bob.quiet()


async def test_an_account_with_sessions_on_both_nodes(pair: Pair) -> None:
    here, there = pair
    near, far = await here.online("bob", "near"), await there.online("bob", "far")
    assert (await until(near, "presence", sender=far.jid)).get("type") is None
    alice, carol = await here.online("alice"), await there.online("carol")
    for sender in (alice, carol):
        sender.send("<message to='bob@chat.test' type='chat'><body>both</body></message>")
        assert body(await until(near, "message")) == body(await until(far, "message")) == "both"
        sender.send("<message to='bob@chat.test/far' type='chat'><body>far</body></message>")
        assert body(await until(far, "message")) == "far"
        sender.send("<message to='bob@chat.test/near' type='chat'><body>near</body></message>")
        assert body(await until(near, "message")) == "near"
    far.send("<presence type='unavailable'/>")
    for session in (near, far):
        await until(session, "presence", type="unavailable", sender=far.jid)
    alice.send("<message to='bob@chat.test' type='chat'><body>one</body></message>")
    assert body(await until(near, "message")) == "one"
    await far.quiet()


async def test_requests_between_sessions_of_two_nodes(pair: Pair) -> None:
    here, there = pair
    alice, bob = await here.online("alice"), await there.online("bob", "b")
    asked = asyncio.create_task(alice.request(f"<ping xmlns='{ns.PING}'/>", to=bob.jid))
    request = await until(bob, "iq", type="get", sender=alice.jid)
    bob.send(f"<iq type='result' id='{request.get('id')}' to='{alice.jid}'/>")
    assert (await asked).get("type") == "result"
    refused = await alice.request(f"<ping xmlns='{ns.PING}'/>", to="bob@chat.test/nobody")
    assert refused.get("type") == "error"


async def test_subscriptions_and_presence(pair: Pair) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await befriend(alice, bob)
    bob.send("<presence><show>away</show></presence>")
    shown = await until(alice, "presence", sender=bob.jid)
    assert shown.find("show") is not None
    bob.drop()
    await until(alice, "presence", sender="bob@chat.test/b", type="unavailable")
    back = await there.online("bob", "c", presence="<presence><status>back</status></presence>")
    assert (await until(alice, "presence", sender=back.jid)).find("status") is not None
    # Who comes later is shown who is there, wherever that is.
    late = await there.client("alice", "late").connect()
    await late.request(f"<query xmlns='{ns.ROSTER}'/>")
    late.send("<presence/>")
    await until(late, "presence", sender=alice.jid)
    assert (await until(late, "presence", sender=back.jid)).find("status") is not None


@pytest.mark.engines
async def test_contact_lists_are_the_same_everywhere(pair: Pair) -> None:
    here, there = pair
    near, far = await here.online("alice", "near"), await there.online("alice", "far")
    item = "<item jid='dave@chat.test' name='{}'/>"
    for writer, reader, name in ((near, far, "Dave"), (far, near, "David"), (near, far, "D")):
        await writer.request(f"<query xmlns='{ns.ROSTER}'>{item.format(name)}</query>", kind="set")
        while f"'{name}'" not in (await until(reader, "iq", type="set")).to_xml():
            pass
        lists = [await client.request(f"<query xmlns='{ns.ROSTER}' ver=''/>") for client in (writer, reader)]
        assert lists[0].elements()[0] == lists[1].elements()[0]
        assert name in lists[0].to_xml()


async def test_blocking_counts_everywhere(pair: Pair) -> None:
    here, there = pair
    near, far, bob = await here.online("alice", "near"), await there.online("alice", "far"), await there.online("bob")
    for client in (near, far):
        await client.request(f"<blocklist xmlns='{ns.BLOCKING}'/>")
    block = f"<block xmlns='{ns.BLOCKING}'><item jid='bob@chat.test'/></block>"
    await near.request(block, kind="set")
    assert "bob@chat.test" in (await until(far, "iq", type="set")).to_xml()
    for target in ("alice@chat.test", near.jid, far.jid):
        bob.send(f"<message to='{target}' type='chat'><body>hi</body></message>")
        assert (await until(bob, "message")).get("type") == "error"
    await far.request(f"<unblock xmlns='{ns.BLOCKING}'/>", kind="set")
    await until(near, "iq", type="set")
    bob.send(f"<message to='{near.jid}' type='chat'><body>hi</body></message>")
    assert body(await until(near, "message")) == "hi"


_CAPS = "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://x.test' ver='{}'/></presence>"


async def wanting(house: Any, name: str, node: str) -> Any:
    """A client that asks to be notified of a node."""
    client = await house.client(name, "w").connect()
    await client.request(f"<query xmlns='{ns.ROSTER}'/>")
    client.send(_CAPS.format("AAAAAAAAAAAAAAAAAAAAAAAAAAA="))
    asked = await until(client, "iq", type="get")
    query = asked.elements()[0].get("node")
    client.send(
        f"<iq type='result' id='{asked.get('id')}' to='chat.test'><query xmlns='{ns.DISCO_INFO}' node='{query}'>"
        f"<identity category='client' type='pc'/><feature var='{node}+notify'/></query></iq>"
    )
    await client.sync()
    return client


async def test_personal_events_reach_the_other_node(pair: Pair) -> None:
    here, there = pair
    alice = await here.online("alice", "a")
    bob = await there.online("bob", "b")
    await befriend(alice, bob)
    reader = await wanting(there, "bob", "urn:x")
    own = await wanting(there, "alice", "urn:x")
    item = "<item id='1'><x xmlns='urn:x'>news</x></item>"
    await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'><publish node='urn:x'>{item}</publish></pubsub>", kind="set")
    for client in (reader, own):
        event = await until(client, "message", type="headline")
        assert "news" in event.to_xml()


async def test_the_same_resource_on_the_other_node_ends_the_older_one(pair: Pair) -> None:
    here, there = pair
    old = await here.online("alice", "desk")
    new = await there.online("alice", "desk")
    failure = await old.ended()
    assert failure is not None
    assert failure.condition == "conflict"
    bob = await here.online("bob")
    bob.send(f"<message to='{new.jid}' type='chat'><body>new</body></message>")
    assert body(await until(new, "message")) == "new"


async def test_messages_wait_for_whoever_is_on_neither_node(pair: Pair) -> None:
    here, there = pair
    alice = await here.online("alice")
    alice.send("<message to='bob@chat.test' type='chat'><body>later</body></message>")
    await alice.sync()
    bob = await there.client("bob", "b").connect()
    bob.send("<presence/>")
    assert body(await until(bob, "message")) == "later"


async def test_a_bus_that_fails_and_comes_back_loses_nothing(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob, carol = await here.online("alice", "a"), await there.online("bob", "b"), await here.online("carol")
    await befriend(alice, bob)
    await hub.cut()
    for n in range(20):
        alice.send(f"<message to='bob@chat.test' type='chat'><body>{n}</body></message>")
    bob.send("<presence><status>cut</status></presence>")
    alice.send("<message to='carol@chat.test' type='chat'><body>local</body></message>")
    assert body(await until(carol, "message")) == "local"
    await bob.sync()
    await hub.heal()
    for n in range(20):
        assert body(await until(bob, "message")) == str(n)
    assert (await until(alice, "presence", sender=bob.jid)).find("status") is not None


async def test_a_node_that_leaves_is_gone_at_once(pair: Pair) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await befriend(alice, bob)
    await there.service.stop()
    await until(alice, "presence", sender="bob@chat.test/b", type="unavailable")
    alice.send("<message to='bob@chat.test' type='chat'><body>meanwhile</body></message>")
    await alice.sync()
    again = await here.client("bob", "c").connect()
    again.send("<presence/>")
    assert body(await until(again, "message")) == "meanwhile"


async def test_a_node_that_dies_is_noticed_and_what_it_did_not_take_is_kept(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    await befriend(alice, bob)
    # Its tasks end as those of a killed process do: without a word, and with the lease running out.
    cluster = there.service._cluster
    cluster.membership._task.cancel()
    for task in cluster.links._tasks:
        task.cancel()
    hub.buses.remove(there.bus)
    alice.send("<message to='bob@chat.test' type='chat'><body>on its way</body></message>")
    await until(alice, "presence", sender="bob@chat.test/b", type="unavailable")
    alice.send("<message to='bob@chat.test' type='chat'><body>after</body></message>")
    await alice.sync()
    again = await here.client("bob", "c").connect()
    again.send("<presence/>")
    assert [body(await until(again, "message")) for _ in range(2)] == ["on its way", "after"]
    await again.sync()
    left = await here.store.read(lambda c: c.execute(sa.select(sa.func.count()).select_from(tables.offline)).scalar())
    assert left == 0


async def test_what_went_to_a_dying_node_finds_who_came_back_meanwhile(pair: Pair, hub: Hub) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    cluster = there.service._cluster
    cluster.membership._task.cancel()
    for task in cluster.links._tasks:
        task.cancel()
    hub.buses.remove(there.bus)
    alice.send(f"<message to='{Jid.parse(bob.jid).bare}' type='chat'><body>to the dead</body></message>")
    await alice.sync()
    again = await here.online("bob", "c")
    assert body(await until(again, "message")) == "to the dead"


async def test_messages_are_archived_once_and_copied_to_every_node(pair: Pair) -> None:
    here, there = pair
    alice, near, far = (
        await here.online("alice", "a"),
        await here.online("bob", "near"),
        await there.online("bob", "far"),
    )
    own, other = (
        await there.online("alice", "own"),
        await there.online("bob", "other", "<presence><priority>-1</priority></presence>"),
    )
    for client in (own, other):
        answer = await client.request("<enable xmlns='urn:xmpp:carbons:2'/>", kind="set")
        assert answer.get("type") == "result"
    alice.send("<message to='bob@chat.test' type='chat' id='m1'><body>once</body></message>")
    ids = set()
    for client in (near, far):
        got = await until(client, "message", type="chat")
        assert body(got) == "once"
        mark = got.find("stanza-id", ns.STANZA_IDS)
        assert mark is not None
        assert mark.get("by") == "bob@chat.test"
        ids.add(mark.get("id"))
    assert len(ids) == 1
    for client, kind in ((own, "sent"), (other, "received")):
        copy = await until(client, "message", type="chat")
        assert copy.find(kind, "urn:xmpp:carbons:2") is not None
    found: dict[Any, list[str | None]] = {own: [], far: []}
    for client, results in found.items():
        client.send(f"<iq type='set' id='a'><query xmlns='{ns.ARCHIVE}' queryid='q'/></iq>")
        while (stanza := await client.receive()).name != "iq":
            results += [result.get("id")] if (result := stanza.find("result", ns.ARCHIVE)) is not None else []
        assert len(results) == 1
    assert set(found[far]) == ids, "both nodes call it the same"
    assert set(found[own]) != ids


async def test_archive_preferences_count_everywhere(pair: Pair) -> None:
    here, there = pair
    near, far, bob = await here.online("alice", "near"), await there.online("alice", "far"), await there.online("bob")
    prefs = f"<prefs xmlns='{ns.ARCHIVE}' default='never'><always/><never/></prefs>"
    await near.request(prefs, kind="set")
    await here.online("carol")
    bob.send(f"<message to='{far.jid}' type='chat'><body>unkept</body></message>")
    assert (await until(far, "message")).find("stanza-id", ns.STANZA_IDS) is None
    answer = await far.request(f"<prefs xmlns='{ns.ARCHIVE}'/>")
    assert answer.elements()[0].get("default") == "never"


@pytest.mark.engines
async def test_changes_of_one_contact_at_both_nodes_at_once_add_up(pair: Pair) -> None:
    here, there = pair
    alice, bob = await here.online("alice", "a"), await there.online("bob", "b")
    near, far = await here.online("alice", "near"), await there.online("alice", "far")
    await befriend(alice, bob)
    for n in range(10):
        item = f"<item jid='bob@chat.test' name='Bob {n}'/>"
        kind = ("unsubscribe", "subscribe")[n % 2]
        far.send(f"<presence type='{kind}' to='bob@chat.test'/>")
        if kind == "subscribe":
            await until(bob, "presence", type="subscribe")
            bob.send("<presence type='subscribed' to='alice@chat.test'/>")
        await near.request(f"<query xmlns='{ns.ROSTER}'>{item}</query>", kind="set")
        await far.sync()
        await bob.sync()
        while True:
            stored = await here.store.read(lambda c: c.execute(sa.select(tables.roster)).all())
            row = next(row for row in stored if (row.owner, row.contact) == ("alice@chat.test", "bob@chat.test"))
            if row.subscription == ("from", "both")[n % 2]:
                break
            await asyncio.sleep(0.01)
        assert row.name == f"Bob {n}"


async def test_policies_that_were_given_while_the_bus_was_away(new_pair: Any, hub: Hub) -> None:
    here, there = await new_pair(policies={"small": {"uploads": False}})
    alice, bob = await here.online("alice"), await there.online("bob")

    async def refused(client: Any) -> bool:
        request = f"<request xmlns='{ns.HTTP_UPLOAD}' filename='a.txt' size='1'/>"
        return bool((await client.request(request, to="upload.chat.test")).get("type") == "error")

    await here.bus.publish(UserChanged(Address("alice", "chat.test")))
    assert not await refused(alice)
    here.users.given |= {"alice": "small", "bob": "small"}
    await hub.cut()
    await here.bus.publish(UserChanged(Address("bob", "chat.test")))
    assert not await refused(bob)
    await hub.heal()
    assert await refused(alice)
    assert await refused(bob)
