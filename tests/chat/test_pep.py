"""Personal events: who may read and hears of what, preconditions, bounds, and what a restart keeps."""

from __future__ import annotations

from typing import Any

import pytest

from moim import chat, settings
from moim.proto.xmpp import Element, ns
from stanza_parts import child

NODE = "urn:example:node"
CAPS_INFO = (
    f"<query xmlns='{ns.DISCO_INFO}'><feature var='{NODE}+notify'/><feature var='urn:example:other+notify'/></query>"
)


def form(kind: str, **fields: str) -> str:
    inner = "".join(f"<field var='pubsub#{var}'><value>{value}</value></field>" for var, value in fields.items())
    head = f"<field var='FORM_TYPE' type='hidden'><value>{ns.PUBSUB}#{kind}</value></field>"
    return f"<x xmlns='jabber:x:data' type='submit'>{head}{inner}</x>"


async def publish(client: Any, text: str, *, name: str = "current", node: str = NODE, **options: str) -> str:
    """Publishes; empty when that worked, else the names of the error's conditions."""
    wanted = f"<publish-options>{form('publish-options', **options)}</publish-options>" if options else ""
    item = f"<item id='{name}'><e xmlns='urn:example:e'>{text}</e></item>"
    body = f"<pubsub xmlns='{ns.PUBSUB}'><publish node='{node}'>{item}</publish>{wanted}</pubsub>"
    return problem(await client.request(body, kind="set"))


def problem(answer: Element) -> str:
    if answer.get("type") == "result":
        return ""
    error = answer.find("error")
    assert error is not None
    return " ".join(child.name for child in error.elements() if child.name != "text")


async def read(client: Any, owner: str, node: str = NODE) -> str:
    """The texts of a node's items, or the error."""
    answer = await client.request(f"<pubsub xmlns='{ns.PUBSUB}'><items node='{node}'/></pubsub>", to=owner)
    if answer.get("type") == "error":
        return problem(answer)
    items = answer.find("pubsub", ns.PUBSUB).find("items")
    return ",".join(item.elements()[0].text for item in items.elements())


async def watching(house: Any, name: str, resource: str = "r") -> Any:
    """An available client that wants the node."""
    client = await house.client(name, resource).connect()
    client.send(f"<presence><c xmlns='{ns.CAPS}' hash='none' node='n' ver='v'/></presence>")
    while (stanza := await client.receive()).get("from") != "chat.test":
        pass
    client.send(f"<iq type='result' id='{stanza.get('id')}' to='chat.test'>{CAPS_INFO}</iq>")
    await client.sync()
    return client


async def heard(client: Any) -> list[str]:
    """What a client heard of since the last look, as texts of items or names of other changes."""
    await client.sync()
    found = []
    for stanza in [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]:
        if stanza is not None and stanza.name == "message":
            change = stanza.find("event", ns.PUBSUB_EVENT).elements()[0]
            inner = change.elements()
            found.append(inner[0].elements()[0].text if inner and inner[0].elements() else (inner or [change])[0].name)
    return found


@pytest.fixture
async def contacts(new_house: Any) -> Any:
    return await new_house()


@pytest.mark.parametrize(
    ("access", "contact", "stranger"),
    [
        ("open", "x", "x"),
        ("presence", "x", "not-authorized presence-subscription-required"),
        ("roster", "not-authorized not-in-roster-group", "not-authorized not-in-roster-group"),
        ("whitelist", "not-allowed closed-node", "not-allowed closed-node"),
    ],
)
async def test_who_may_read(contacts: Any, access: str, contact: str, stranger: str) -> None:
    alice, bob = await watching(contacts, "alice"), await watching(contacts, "bob")
    await alice.request(
        f"<query xmlns='{ns.ROSTER}'><item jid='carol@chat.test' subscription='remove'/></query>", kind="set"
    )
    carol = await watching(contacts, "carol")
    for client in (alice, bob, carol):
        await heard(client)
    assert await publish(alice, "x", access_model=access) == ""
    assert await read(bob, "alice@chat.test") == contact
    assert await read(carol, "alice@chat.test") == stranger
    assert await read(alice, "alice@chat.test") == "x"
    assert await heard(alice) == ["x"]
    assert await heard(bob) == (["x"] if contact == "x" else [])
    assert await heard(carol) == []
    late = await watching(contacts, "bob", "late")
    assert await heard(late) == (["x"] if contact == "x" else [])


async def test_a_group_of_the_roster(contacts: Any) -> None:
    alice, bob, carol = [await watching(contacts, name) for name in ("alice", "bob", "carol")]
    item = "<item jid='bob@chat.test'><group>가족</group></item>"
    await alice.request(f"<query xmlns='{ns.ROSTER}'>{item}</query>", kind="set")
    assert await publish(alice, "x", access_model="roster", roster_groups_allowed="가족") == ""
    assert await read(bob, "alice@chat.test") == "x"
    assert await heard(bob) == ["x"]
    assert "not-in-roster-group" in await read(carol, "alice@chat.test")
    assert await heard(carol) == []
    asked = await alice.request(f"<pubsub xmlns='{ns.PUBSUB_OWNER}'><configure node='{NODE}'/></pubsub>")
    form = child(asked, ("pubsub", ns.PUBSUB_OWNER), ("configure", ns.PUBSUB_OWNER), ("x", ns.DATA_FORMS))
    (field,) = (field for field in form.elements() if field.get("var") == "pubsub#roster_groups_allowed")
    assert field.get("type") == "list-multi"
    assert {option.elements()[0].text for option in field.elements() if option.name == "option"} == {"가족"}


async def test_who_is_blocked_hears_nothing(contacts: Any) -> None:
    alice, bob = await watching(contacts, "alice"), await watching(contacts, "bob")
    await alice.request(f"<block xmlns='{ns.BLOCKING}'><item jid='bob@chat.test'/></block>", kind="set")
    assert await publish(alice, "x", access_model="open") == ""
    assert await heard(bob) == []
    assert await read(bob, "alice@chat.test") == "service-unavailable"
    assert await heard(await watching(contacts, "bob", "late")) == []


async def test_each_node_is_introduced_once(contacts: Any) -> None:
    alice = await watching(contacts, "alice")
    assert await publish(alice, "x") == ""
    bob = await watching(contacts, "bob")
    assert await heard(bob) == ["x"]
    for _ in range(3):
        bob.send(f"<presence><c xmlns='{ns.CAPS}' hash='none' node='n' ver='v'/></presence>")
    assert await heard(bob) == []
    bob.send("<presence type='unavailable'/>")
    await publish(alice, "y")
    assert await heard(bob) == []
    bob.send(f"<presence><c xmlns='{ns.CAPS}' hash='none' node='n' ver='v'/></presence>")
    assert await heard(bob) == ["y"]


async def test_options_are_a_precondition(contacts: Any) -> None:
    alice = await contacts.online("alice")
    assert await publish(alice, "1", access_model="whitelist", max_items="max") == ""
    assert await publish(alice, "2", access_model="open") == "conflict precondition-not-met"
    assert await publish(alice, "3", access_model="whitelist", max_items="max", publish_model="publishers") == ""
    assert await publish(alice, "4", publish_model="open") == "not-acceptable"
    assert await publish(alice, "5", strange="x") == "not-acceptable"
    assert await publish(alice, "6", max_items="-1") == "not-acceptable"
    assert await read(alice, "alice@chat.test") == "3"


async def test_bounds(new_house: Any) -> None:
    house = await new_house(pep_nodes=2, pep_items=3, pep_item_bytes=5000, pep_bytes=10_000)
    alice = await house.online("alice")
    assert await publish(alice, "x" * 6000) == "not-acceptable payload-too-big"
    for number in range(5):
        assert await publish(alice, str(number), name=str(number), max_items="max") == ""
    assert await read(alice, "alice@chat.test") == "2,3,4"
    assert await publish(alice, "x" * 4900, node="b", max_items="max") == ""
    assert await publish(alice, "x" * 4900, node="b", name="2") == ""
    assert await publish(alice, "x" * 4900, node="b", name="3") == "resource-constraint"
    assert await publish(alice, "x", node="c") == "conflict max-nodes-exceeded"
    assert await publish(alice, "x", name="n" * 1100) == "not-acceptable"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", "bad-request"),
        ("<publish/>", "bad-request nodeid-required"),
        ("<publish node='n'/>", "bad-request item-required"),
        ("<publish node='n'><item/></publish>", "bad-request invalid-payload"),
        ("<publish node='n'><item><a xmlns='x'/><b xmlns='x'/></item></publish>", "bad-request invalid-payload"),
        ("<retract node='n'/>", "bad-request item-required"),
        ("<retract node='n'><item id='1'/></retract>", "item-not-found"),
        ("<subscribe node='n' jid='alice@chat.test'/>", "item-not-found"),
        ("<subscribe node='n' jid='bob@chat.test'/>", "bad-request invalid-jid"),
        ("<subscribe node='n' jid='@'/>", "bad-request invalid-jid"),
        ("<subscribe jid='alice@chat.test'/>", "bad-request nodeid-required"),
        ("<unsubscribe node='n' jid='alice@chat.test'/>", "item-not-found"),
        (
            "<subscribe node='n' jid='alice@chat.test'/><options node='n' jid='alice@chat.test'/>",
            "feature-not-implemented unsupported",
        ),
        ("<frobnicate node='n'/>", "feature-not-implemented unsupported"),
    ],
)
async def test_what_is_refused(contacts: Any, body: str, expected: str) -> None:
    alice = await contacts.online("alice")
    answer = await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'>{body}</pubsub>", kind="set")
    assert problem(answer) == expected


async def test_only_the_account_changes_its_nodes(contacts: Any) -> None:
    alice, bob = await contacts.online("alice"), await contacts.online("bob")
    assert await publish(alice, "x", access_model="open") == ""
    item = "<item id='1'><e xmlns='urn:example:e'/></item>"
    for space, body in (
        (ns.PUBSUB, f"<publish node='{NODE}'>{item}</publish>"),
        (ns.PUBSUB, f"<retract node='{NODE}'><item id='current'/></retract>"),
        (ns.PUBSUB, "<create node='mine'/>"),
        (ns.PUBSUB_OWNER, f"<delete node='{NODE}'/>"),
        (ns.PUBSUB_OWNER, f"<purge node='{NODE}'/>"),
        (ns.PUBSUB_OWNER, f"<configure node='{NODE}'>{form('node_config', access_model='open')}</configure>"),
        (ns.PUBSUB_OWNER, f"<affiliations node='{NODE}'/>"),
        (ns.PUBSUB_OWNER, f"<subscriptions node='{NODE}'/>"),
    ):
        answer = await bob.request(f"<pubsub xmlns='{space}'>{body}</pubsub>", kind="set", to="alice@chat.test")
        assert problem(answer) == "forbidden", body
    assert await read(bob, "alice@chat.test") == "x"


async def test_changes_are_told(contacts: Any) -> None:
    alice, bob = await watching(contacts, "alice"), await watching(contacts, "bob")
    assert await publish(alice, "x") == ""
    for space, body in (
        (ns.PUBSUB, f"<retract node='{NODE}' notify='true'><item id='current'/></retract>"),
        (ns.PUBSUB_OWNER, f"<purge node='{NODE}'/>"),
        (ns.PUBSUB_OWNER, f"<delete node='{NODE}'/>"),
    ):
        answer = await alice.request(f"<pubsub xmlns='{space}'>{body}</pubsub>", kind="set")
        assert problem(answer) == ""
    assert await heard(bob) == ["x", "retract", "purge", "delete"]


async def test_a_restart_keeps_nodes_and_a_removed_account_none(contacts: Any) -> None:
    alice = await contacts.online("alice")
    assert await publish(alice, "x", access_model="open") == ""
    await contacts.restart()
    bob = await contacts.online("bob")
    assert await read(bob, "alice@chat.test") == "x"
    await contacts.service._parts.changes.remove("alice@chat.test")
    assert await read(bob, "alice@chat.test") == "item-not-found"


async def test_discovery_says_what_an_account_can(contacts: Any) -> None:
    alice = await contacts.online("alice")
    answer = await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>")
    info = answer.find("query", ns.DISCO_INFO)
    kinds = {(e.get("category"), e.get("type")) for e in info.elements() if e.name == "identity"}
    assert kinds == {("account", "registered"), ("pubsub", "pep")}
    found = {e.get("var") for e in info.elements() if e.name == "feature"}
    assert {ns.PUBSUB, f"{ns.PUBSUB}#publish", f"{ns.PUBSUB}#publish-options"} <= found
    assert {f"{ns.PUBSUB}#subscribe", f"{ns.PUBSUB}#rsm", f"{ns.PUBSUB}#retrieve-subscriptions"} <= found


# --- subscriptions ------------------------------------------------------------------------------------------------


async def ask(client: Any, body: str, *, kind: str = "set", space: str = ns.PUBSUB, to: str | None = None) -> Element:
    answer: Element = await client.request(f"<pubsub xmlns='{space}'>{body}</pubsub>", kind=kind, to=to)
    return answer


ALICE = "alice@chat.test"


@pytest.mark.engines
async def test_a_subscriber_hears_of_everything_without_asking_by_capabilities(contacts: Any) -> None:
    alice = await contacts.online("alice")
    assert await publish(alice, "x", access_model="open") == ""
    carol = await contacts.online("carol")
    subscribe = f"<subscribe node='{NODE}' jid='carol@chat.test'/>"
    for _ in range(2):
        answer = await ask(carol, subscribe, to=ALICE)
        (made,) = answer.elements()[0].elements()
        assert (made.get("subscription"), made.get("jid"), made.get("node")) == ("subscribed", "carol@chat.test", NODE)
    assert await heard(carol) == ["x", "x"]
    await contacts.restart()
    alice, carol = await contacts.online("alice"), await contacts.online("carol")
    assert await publish(alice, "y") == ""
    assert await heard(carol) == ["y"]
    for space, body in ((ns.PUBSUB, "<subscriptions/>"), (ns.PUBSUB, f"<subscriptions node='{NODE}'/>")):
        listed = (await ask(carol, body, kind="get", space=space, to=ALICE)).elements()[0].elements()[0]
        assert [entry.get("node") for entry in listed.elements()] == [NODE]
    unsubscribe = f"<unsubscribe node='{NODE}' jid='carol@chat.test'/>"
    assert problem(await ask(carol, unsubscribe, to=ALICE)) == ""
    assert await publish(alice, "z") == ""
    assert await heard(carol) == []


async def test_a_subscriber_who_may_read_no_more_hears_nothing(contacts: Any) -> None:
    alice = await contacts.online("alice")
    assert await publish(alice, "x", access_model="open") == ""
    carol = await contacts.online("carol")
    another = f"<subscribe node='{NODE}' jid='carol@chat.test/elsewhere'/>"
    assert problem(await ask(carol, another, to=ALICE)) == "bad-request invalid-jid"
    assert problem(await ask(carol, f"<subscribe node='{NODE}' jid='carol@chat.test'/>", to=ALICE)) == ""
    await heard(carol)
    change = f"<configure node='{NODE}'>{form('node_config', access_model='whitelist')}</configure>"
    assert problem(await ask(alice, change, space=ns.PUBSUB_OWNER)) == ""
    assert await publish(alice, "secret") == ""
    assert await heard(carol) == []
    refused = await ask(carol, f"<subscribe node='{NODE}' jid='carol@chat.test'/>", to=ALICE)
    assert problem(refused) == "not-allowed closed-node"


async def test_the_owner_sees_subscribers_and_ends_subscriptions(contacts: Any) -> None:
    alice, bob = await contacts.online("alice"), await watching(contacts, "bob")
    assert await publish(alice, "x", access_model="open") == ""
    assert await heard(bob) == ["x"]
    assert problem(await ask(bob, f"<subscribe node='{NODE}' jid='bob@chat.test'/>", to=ALICE)) == ""
    await heard(bob)
    assert await publish(alice, "y") == ""
    assert await heard(bob) == ["y"], "told twice"
    body = f"<subscriptions node='{NODE}'/>"
    listed = (await ask(alice, body, kind="get", space=ns.PUBSUB_OWNER)).elements()[0].elements()[0]
    assert [entry.get("jid") for entry in listed.elements()] == ["bob@chat.test"]
    for state, expected in (("subscribed", "not-acceptable"), ("none", "")):
        entry = f"<subscription jid='bob@chat.test' subscription='{state}'/>"
        body = f"<subscriptions node='{NODE}'>{entry}</subscriptions>"
        assert problem(await ask(alice, body, space=ns.PUBSUB_OWNER)) == expected
    unsubscribe = f"<unsubscribe node='{NODE}' jid='bob@chat.test'/>"
    assert problem(await ask(bob, unsubscribe, to=ALICE)) == "unexpected-request not-subscribed"


@pytest.mark.engines
async def test_subscriptions_go_with_the_node(contacts: Any) -> None:
    alice, carol = await contacts.online("alice"), await contacts.online("carol")
    assert await publish(alice, "x", access_model="open") == ""
    assert problem(await ask(carol, f"<subscribe node='{NODE}' jid='carol@chat.test'/>", to=ALICE)) == ""
    assert problem(await ask(alice, f"<delete node='{NODE}'/>", space=ns.PUBSUB_OWNER)) == ""
    assert await heard(carol) == ["x", "delete"]
    assert await publish(alice, "y", access_model="open") == ""
    assert await heard(carol) == []


async def test_affiliations_of_whoever_asks(contacts: Any) -> None:
    alice, bob = await contacts.online("alice"), await contacts.online("bob")
    assert await publish(alice, "x", access_model="whitelist") == ""
    found = []
    for client in (alice, bob):
        listed = (await ask(client, "<affiliations/>", kind="get", to=ALICE)).elements()[0].elements()[0]
        found.append([entry.get("affiliation") for entry in listed.elements()])
    assert found == [["owner"], []]


async def test_items_in_pages(contacts: Any) -> None:
    alice = await contacts.online("alice")
    for number in range(5):
        assert await publish(alice, str(number), name=f"i{number}", max_items="max") == ""
    for page, expected in (
        ("<max>2</max>", ["0", "1"]),
        ("<max>2</max><after>i1</after>", ["2", "3"]),
        ("<max>2</max><before/>", ["3", "4"]),
        ("<max>0</max>", []),
    ):
        body = f"<items node='{NODE}'/><set xmlns='{ns.RSM}'>{page}</set>"
        answer = (await ask(alice, body, kind="get")).elements()[0]
        assert [item.elements()[0].text for item in answer.elements()[0].elements()] == expected
        about = answer.find("set", ns.RSM)
        assert about is not None
        assert child(about, ("count", ns.RSM)).text == "5"
    body = f"<items node='{NODE}'/><set xmlns='{ns.RSM}'><after>gone</after></set>"
    assert problem(await ask(alice, body, kind="get")) == "item-not-found"


async def test_a_node_is_described_to_those_who_may_read_it(contacts: Any) -> None:
    alice, carol = await contacts.online("alice"), await contacts.online("carol")
    for number in range(2):
        assert await publish(alice, "x", name=f"i{number}", max_items="5", access_model="open") == ""
    info, items = f"<query xmlns='{ns.DISCO_INFO}' node='{NODE}'/>", f"<query xmlns='{ns.DISCO_ITEMS}' node='{NODE}'/>"
    for client in (alice, carol):
        found = (await client.request(info, to=ALICE)).elements()[0]
        (identity,) = [child for child in found.elements() if child.name == "identity"]
        assert (found.get("node"), identity.get("category"), identity.get("type")) == (NODE, "pubsub", "leaf")
        listed = (await client.request(items, to=ALICE)).elements()[0].elements()
        assert [(item.get("name"), item.get("node")) for item in listed] == [("i0", None), ("i1", None)]
    change = f"<configure node='{NODE}'>{form('node_config', access_model='whitelist')}</configure>"
    assert problem(await ask(alice, change, space=ns.PUBSUB_OWNER)) == ""
    assert problem(await carol.request(info, to=ALICE)) == "item-not-found"
    assert problem(await alice.request(info.replace(NODE, "another"), to=ALICE)) == "item-not-found"


async def test_what_a_new_contact_may_see_is_sent_at_once(contacts: Any) -> None:
    alice, bob = await contacts.online("alice"), await watching(contacts, "bob")
    for client, other in ((alice, "bob"), (bob, "alice")):
        removed = f"<query xmlns='{ns.ROSTER}'><item jid='{other}@chat.test' subscription='remove'/></query>"
        await client.request(removed, kind="set")
    assert await publish(alice, "x") == ""
    assert await heard(bob) == []
    bob.send(f"<presence type='subscribe' to='{ALICE}'/>")
    await bob.sync()
    alice.send("<presence type='subscribed' to='bob@chat.test'/>")
    await alice.sync()
    assert await heard(bob) == ["x"]


async def test_max_is_as_many_as_there_may_be_now(new_house: Any) -> None:
    house = await new_house(pep_items=50)
    alice = await house.client("alice").connect()
    assert await publish(alice, "x", max_items="max") == ""
    file = house.root / "moim.toml"
    file.write_text(file.read_text().replace("pep_items = 50", "pep_items = 20"))
    house.site = settings.load(house.root, {"chat": chat.Settings})
    await house.restart()
    alice = await house.client("alice").connect()
    assert await publish(alice, "y", max_items="max") == ""
    assert await publish(alice, "y", max_items="5") == "conflict precondition-not-met"


async def test_subscriptions_end_by_those_who_made_them_and_with_access(contacts: Any) -> None:
    alice, carol = await contacts.online("alice"), await contacts.online("carol")
    gone = f"<unsubscribe node='{NODE}' jid='carol@chat.test'/>"
    assert problem(await ask(carol, gone, to=ALICE)) == "item-not-found"
    assert await publish(alice, "x", access_model="open") == ""
    assert problem(await ask(alice, gone, to=ALICE)) == "forbidden"
    assert problem(await ask(carol, f"<subscribe node='{NODE}' jid='carol@chat.test'/>", to=ALICE)) == ""
    for access in ("whitelist", "open"):
        change = f"<configure node='{NODE}'>{form('node_config', access_model=access)}</configure>"
        assert problem(await ask(alice, change, space=ns.PUBSUB_OWNER)) == ""
        assert await publish(alice, access) == ""
    assert await heard(carol) == ["x"]
    assert problem(await ask(carol, gone, to=ALICE)) == "unexpected-request not-subscribed"


@pytest.mark.parametrize(
    ("kind", "who", "expected"),
    [
        ("member", "bob", ""),
        ("none", "bob", ""),
        ("owner", "alice", ""),
        ("owner", "bob", "not-acceptable"),
        ("publisher", "bob", "not-acceptable"),
        ("outcast", "bob", "not-acceptable"),
    ],
)
async def test_what_somebody_can_be_to_a_node(contacts: Any, kind: str, who: str, expected: str) -> None:
    alice = await contacts.online("alice")
    assert await publish(alice, "x", access_model="whitelist") == ""
    entry = f"<affiliation jid='{who}@chat.test' affiliation='{kind}'/>"
    body = f"<affiliations node='{NODE}'>{entry}</affiliations>"
    assert problem(await ask(alice, body, space=ns.PUBSUB_OWNER)) == expected
