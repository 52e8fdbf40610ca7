"""What counts for one person: by whose word, and that it counts where it matters, from the moment it changes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.applications import Starlette

from moim.chat.commands import COMMANDS
from moim.chat.hosts import Hosts
from moim.chat.policies import Given, Policies
from moim.chat.policy_routes import policy_routes
from moim.chat.settings import PersonSettings, Settings
from moim.errors import NotFound
from moim.model import Address, UserChanged, UserRemoved
from moim.net import http_errors
from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.dataform import read_form
from stanza_parts import child

ROOM = "<x xmlns='http://jabber.org/protocol/muc'/>"
PREFS = f"<prefs xmlns='{ns.ARCHIVE}'/>"
QUERY = f"<query xmlns='{ns.ARCHIVE}'/>"


async def give(house: Any, name: str, policy: str, *, department: str = "") -> None:
    """What the directory does when an administrator gives somebody a policy."""
    house.users.given[name], house.users.departments[name] = policy, department
    await house.bus.publish(UserChanged(Address(name, house.domain)))


def condition(answer: Element) -> str:
    return child(answer, "error").elements()[0].name


async def offered(client: Any) -> set[str]:
    """What discovery says of a client's own account."""
    bare = client.jid.partition("/")[0]
    info = await client.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to=bare)
    return {one.get("var") or "" for one in child(info, ("query", ns.DISCO_INFO)).elements() if one.name == "feature"}


async def kept(client: Any) -> list[str]:
    """The bodies of the messages in a client's archive."""
    answer = await client.request(QUERY, kind="set")
    assert answer.get("type") == "result", answer.to_xml()
    bodies = []
    while not client.inbox.empty():
        stanza = client.inbox.get_nowait()
        if (found := stanza.find("result", ns.ARCHIVE)) is not None:
            bodies.append(child(found.elements()[0], ("message", ns.CLIENT), "body").text)
    return bodies


# --- by whose word ------------------------------------------------------------------------------------------------


def policies(users: Any = None, **options: Any) -> Policies:
    settings = Settings.model_validate(options)
    return Policies(users, Hosts(["first.test", "second.test"], settings), settings)


def test_each_value_is_of_the_policy_else_the_domain_else_the_site() -> None:
    found = policies(
        archive_days=30,
        uploads_days=7,
        max_roster_items=10,
        domains={"second.test": {"archive_days": 60, "uploads_days": 14}},
        policies={"sales": {"archive_days": 90, "federation": False}},
    )
    limits = {one.key: (one.value, one.source) for one in found.limits("second.test", "sales")}
    assert limits["archive_days"] == (90, "policy sales")
    assert limits["federation"] == (False, "policy sales")
    assert limits["uploads_days"] == (14, "domain second.test")
    assert limits["max_roster_items"] == (10, "site")
    assert limits["push"] == (True, "default")
    assert set(limits) == set(PersonSettings.model_fields)
    assert found.resolved("second.test", "sales").uploads_days == 14
    assert found.resolved("first.test", "sales").uploads_days == 7
    assert {one.source for one in found.limits("first.test", "")} == {"site", "default"}


def test_a_persons_own_policy_goes_before_that_of_the_department() -> None:
    found = policies(policies={"sales": {"departments": ["Sales", "영업"]}, "staff": {}})
    assert found.which("staff", "Sales") == Given("staff", "person")
    assert found.which("", " sALES ") == Given("sales", "department")
    assert found.which("", "영업") == Given("sales", "department")
    assert found.which("", "Kitchen") == Given()
    assert found.which("gone", "") == Given(missing="gone")
    assert found.which("gone", "Sales") == Given("sales", "department", "gone")


def test_something_may_be_wanted_by_a_policy_alone() -> None:
    assert policies(archive=False, policies={"kept": {"archive": True}}).any(lambda counts: counts.archive)
    assert policies(archive=False, domains={"second.test": {"archive": True}}).any(lambda counts: counts.archive)
    assert not policies(archive=False, policies={"kept": {"push": False}}).any(lambda counts: counts.archive)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"": {}}, "cannot be the name of a policy"),
        ({"a\nb": {}}, "cannot be the name of a policy"),
        ({" sales": {}}, "cannot be the name of a policy"),
        ({"x" * 65: {}}, "cannot be the name of a policy"),
        ({"a": {"departments": ["Sales"]}, "b": {"departments": ["sales "]}}, "has two policies: a and b"),
        ({"a": {"rooms": False}}, "Extra inputs"),
        ({"a": {"archive_days": -1}}, "greater than or equal to 0"),
    ],
)
def test_what_no_policy_can_be(given: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Settings.model_validate({"policies": given})


class Listed:
    """A directory that is a list."""

    def __init__(self, *rows: tuple[str, str, str]) -> None:
        self.rows = rows

    async def policies(self, *, departments: bool) -> list[tuple[Address, str, str]]:
        return [(Address.parse(address), policy, department) for address, policy, department in self.rows]


class Slow(Listed):
    """One that gives what it had when it was asked, later; in the meantime somebody else was given the policy."""

    def __init__(self) -> None:
        super().__init__(("a@first.test", "sales", ""))
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def policies(self, *, departments: bool) -> list[tuple[Address, str, str]]:
        self.asked.set()
        await self.go_on.wait()
        return await super().policies(departments=departments)

    async def profile(self, address: str) -> Any:
        return SimpleNamespace(policy="sales", department="")


async def test_reading_anew_tells_for_whom_something_else_counts(caplog: Any) -> None:
    users = Listed(("a@first.test", "sales", ""), ("b@first.test", "", "Kitchen"), ("c@second.test", "gone", ""))
    found = policies(users, policies={"sales": {"push": False}, "food": {"departments": ["kitchen"]}})
    assert await found.load() == {"a@first.test", "b@first.test"}
    assert not found.of("a@first.test").push
    assert found.of("c@second.test").push
    assert "1 people have the policy 'gone'" in caplog.text
    users.rows = (("b@first.test", "", "Kitchen"), ("c@second.test", "sales", ""), ("d@third.test", "sales", ""))
    assert await found.load() == {"a@first.test", "c@second.test"}
    assert sorted(found) == ["b@first.test", "c@second.test"]
    assert await found.load() == frozenset()


async def test_many_are_read_in_parts() -> None:
    rows = [(f"u{number}@first.test", "sales", "") for number in range(3000)]
    found = policies(Listed(*rows), policies={"sales": {"push": False}})
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    assert len(await found.load()) == 3000
    beside.cancel()
    assert turns >= 6


async def test_a_change_while_everybody_is_read_is_not_undone() -> None:
    users = Slow()
    found = policies(users, policies={"sales": {"push": False}})
    reading = asyncio.create_task(found.load())
    await users.asked.wait()
    assert await found.changed("b@first.test")
    assert not found.of("b@first.test").push
    users.go_on.set()
    assert await reading == {"a@first.test"}
    assert sorted(found) == ["a@first.test", "b@first.test"]


# --- where it matters ---------------------------------------------------------------------------------------------


@pytest.fixture
async def house(new_house: Any) -> Any:
    return await new_house(
        default_contacts=False,
        policies={
            "small": {"uploads_file_bytes": 100, "uploads_user_bytes": 150, "max_roster_items": 1, "rooms_per_user": 1},
            "none": {
                "archive": False, "uploads": False, "push": False, "rooms_per_user": 0, "max_sessions_per_user": 1,
                "offline_messages": 0, "departments": ["Kiosk"],
            },
            "audited": {"archive_default": "always", "archive_choice": False},
            "narrow": {
                "pep_nodes": 1, "pep_items": 2, "pep_item_bytes": 1000, "private_items": 1, "vcard_bytes": 1000,
                "max_blocked": 1,
            },
            "fast": {"rooms_stanzas_per_second": 0.01, "rooms_stanzas_burst": 10},
        },
    )  # fmt: skip


async def slot(client: Any, size: int) -> Element:
    request = f"<request xmlns='{ns.HTTP_UPLOAD}' filename='a.txt' size='{size}'/>"
    answer: Element = await client.request(request, to="upload.chat.test")
    return answer


async def largest(client: Any) -> str:
    info = await client.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="upload.chat.test")
    return read_form(child(info, ("query", ns.DISCO_INFO), ("x", ns.DATA_FORMS)))[1]["max-file-size"][0]


async def test_uploads_have_the_persons_quota(house: Any) -> None:
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    assert (await slot(alice, 101)).get("type") == "result"
    await give(house, "alice", "small")
    assert (await largest(alice), await largest(bob)) == ("100", str(100 * 1024 * 1024))
    assert condition(await slot(alice, 101)) == "not-acceptable"
    assert condition(await slot(alice, 100)) == "resource-constraint"
    assert (await slot(bob, 101)).get("type") == "result"
    await give(house, "alice", "none")
    assert condition(await slot(alice, 1)) == "forbidden"
    await give(house, "alice", "")
    assert (await slot(alice, 101)).get("type") == "result"


async def test_what_is_kept_and_blocked_has_the_persons_bounds(house: Any) -> None:
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    await give(house, "alice", "narrow")

    async def publish(who: Any, node: str, item: str, text: str = "") -> Element:
        answer: Element = await who.request(
            f"<pubsub xmlns='{ns.PUBSUB}'><publish node='{node}'><item id='{item}'><a xmlns='urn:a'>{text}</a></item>"
            f"</publish></pubsub>",
            kind="set",
        )
        return answer

    async def store(who: Any, kind: str) -> Element:
        answer: Element = await who.request(f"<query xmlns='{ns.PRIVATE}'><{kind} xmlns='urn:a'/></query>", kind="set")
        return answer

    async def block(who: Any, name: str) -> Element:
        answer: Element = await who.request(
            f"<block xmlns='{ns.BLOCKING}'><item jid='{name}@chat.test'/></block>", kind="set"
        )
        return answer

    async def describe(who: Any) -> Element:
        answer: Element = await who.request(f"<vCard xmlns='{ns.VCARD}'><DESC>{'x' * 2000}</DESC></vCard>", kind="set")
        return answer

    for item in ("one", "two", "three"):
        assert (await publish(alice, ns.BOOKMARKS, item)).get("type") == "result"
    items = await alice.request(f"<pubsub xmlns='{ns.PUBSUB}'><items node='{ns.BOOKMARKS}'/></pubsub>")
    kept_items = child(items, ("pubsub", ns.PUBSUB), ("items", ns.PUBSUB)).elements()
    assert [one.get("id") for one in kept_items] == ["two", "three"]
    assert condition(await publish(alice, ns.BOOKMARKS, "four", "x" * 1500)) == "not-acceptable"
    assert condition(await publish(alice, "urn:another", "one")) == "conflict"
    assert (await store(alice, "one")).get("type") == "result"
    assert condition(await store(alice, "two")) == "resource-constraint"
    assert (await block(alice, "bob")).get("type") == "result"
    assert condition(await block(alice, "carol")) == "resource-constraint"
    assert condition(await describe(alice)) == "not-acceptable"
    for answer in (
        *[await publish(bob, node, "one", "x" * 1500) for node in ("urn:one", "urn:two")],
        *[await store(bob, kind) for kind in ("one", "two")],
        *[await block(bob, name) for name in ("dave", "carol")],
        await describe(bob),
    ):
        assert answer.get("type") == "result"
    await give(house, "alice", "")
    assert (await block(alice, "carol")).get("type") == "result"
    assert (await describe(alice)).get("type") == "result"


async def test_contacts_and_rooms_have_the_persons_bounds(house: Any) -> None:
    alice = await house.online("alice")
    await give(house, "alice", "small")

    async def add(name: str) -> Any:
        return await alice.request(f"<query xmlns='{ns.ROSTER}'><item jid='{name}@chat.test'/></query>", kind="set")

    async def enter(room: str, who: Any = alice) -> Element:
        who.send(f"<presence to='{room}@rooms.chat.test/{who.name}'>{ROOM}</presence>")
        while (stanza := await who.receive()).name != "presence":
            pass
        return stanza  # type: ignore[no-any-return]

    assert (await add("bob")).get("type") == "result"
    assert condition(await add("carol")) == "resource-constraint"
    assert (await enter("one")).get("type") is None
    assert condition(await enter("two")) == "resource-constraint"
    await give(house, "alice", "none")
    assert condition(await enter("two")) == "not-allowed"
    bob = await house.client("bob").connect()
    await give(house, "bob", "fast")
    answers = [await enter(f"of-bob-{number}", bob) for number in range(11)]
    assert [one.get("type") for one in answers] == [None] * 10 + ["error"]
    assert condition(answers[10]) == "policy-violation"


async def test_a_policy_of_a_department_closes_what_it_closes(house: Any) -> None:
    alice = await house.online("alice", "one")
    assert {ns.ARCHIVE, ns.PUSH} <= await offered(alice)
    await give(house, "alice", "", department="kiosk")
    assert not {ns.ARCHIVE, ns.PUSH} & await offered(alice)
    enable = f"<enable xmlns='{ns.PUSH}' jid='push.example' node='x'/>"
    assert condition(await alice.request(enable, kind="set")) == "service-unavailable"
    with pytest.raises(AssertionError, match="resource-constraint"):
        await house.client("alice", "two").connect()
    await give(house, "alice", "small", department="kiosk")
    assert {ns.ARCHIVE, ns.PUSH} <= await offered(alice)
    await house.client("alice", "two").connect()


async def test_an_archive_is_kept_as_the_policy_of_each_side_has_it(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")

    async def say(text: str) -> None:
        alice.send(f"<message to='bob@chat.test' type='chat'><body>{text}</body></message>")
        while (await bob.receive()).name != "message":
            pass

    await say("one")
    await give(house, "alice", "none")
    for request, kind in ((QUERY, "set"), (QUERY, "get"), (PREFS, "get"), (PREFS, "set")):
        assert condition(await alice.request(request, kind=kind)) == "service-unavailable"
    await say("two")
    await give(house, "alice", "")
    await say("three")
    assert await kept(alice) == ["one", "three"]
    assert await kept(bob) == ["one", "two", "three"]


async def test_what_is_said_to_somebody_away_is_not_archived_either(house: Any) -> None:
    await give(house, "bob", "none")
    alice = await house.online("alice")
    alice.send("<message to='bob@chat.test' type='chat' id='1'><body>one</body></message>")
    refused = await alice.receive()
    assert (refused.get("id"), condition(refused)) == ("1", "service-unavailable")
    await give(house, "bob", "")
    bob = await house.client("bob").connect()
    assert await kept(bob) == []
    assert await kept(alice) == ["one"]


async def test_who_may_not_choose_keeps_what_the_policy_says(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    never = f"<prefs xmlns='{ns.ARCHIVE}' default='never'><always/><never/></prefs>"
    assert (await alice.request(never, kind="set")).get("type") == "result"
    await give(house, "alice", "audited")
    answer = await alice.request(PREFS)
    assert child(answer, ("prefs", ns.ARCHIVE)).get("default") == "always"
    assert condition(await alice.request(never, kind="set")) == "not-allowed"
    alice.send("<message to='bob@chat.test' type='chat'><body>on record</body></message>")
    await bob.receive()
    assert await kept(alice) == ["on record"]
    await give(house, "alice", "")
    assert child(await alice.request(PREFS), ("prefs", ns.ARCHIVE)).get("default") == "never"


async def test_how_long_an_archive_lasts_is_the_policys(new_house: Any) -> None:
    house = await new_house(default_contacts=False, policies={"short": {"archive_messages": 100, "archive_days": 5}})
    await give(house, "alice", "short")
    others = house.service._parts.archive._limits.others()
    assert {whose: (share.days, share.messages) for whose, share in others.items()} == {"alice@chat.test": (5, 100)}


async def test_it_counts_after_a_restart_and_ends_with_the_account(house: Any) -> None:
    await give(house, "alice", "none")
    await house.restart()
    alice = await house.client("alice").connect()
    assert condition(await slot(alice, 1)) == "forbidden"
    del house.users.passwords["alice"]
    await house.bus.publish(UserRemoved(Address("alice", "chat.test")))
    assert list(house.service.policies) == []


async def test_a_hosted_domain_and_its_people_have_their_own(new_house: Any) -> None:
    people = {"alice": "a", "alice@second.test": "b", "bob@second.test": "c"}
    house = await new_house(
        people=people, hosted=["second.test"], default_contacts=False,
        domains={"second.test": {"archive": False, "uploads_file_bytes": 50}},
        policies={"kept": {"archive": True}},
    )  # fmt: skip
    first, second = await house.online("alice"), await house.online("alice@second.test")
    bob = await house.online("bob@second.test")
    house.users.given["bob@second.test"] = "kept"
    await house.bus.publish(UserChanged(Address("bob", "second.test")))
    second.send("<message to='bob@second.test' type='chat'><body>x</body></message>")
    await bob.receive()
    assert ns.ARCHIVE in await offered(first)
    assert ns.ARCHIVE not in await offered(second)
    assert await kept(bob) == ["x"]
    assert condition(await second.request(QUERY, kind="set")) == "service-unavailable"
    request = f"<request xmlns='{ns.HTTP_UPLOAD}' filename='a.txt' size='51'/>"
    assert condition(await bob.request(request, to="upload.second.test")) == "not-acceptable"
    assert (await first.request(request, to="upload.chat.test")).get("type") == "result"


# --- who gives it -------------------------------------------------------------------------------------------------


async def test_an_administrator_gives_it_by_command(new_house: Any) -> None:
    house = await new_house(default_contacts=False, admins=["alice@chat.test"], policies={"small": {"push": False}})
    alice = await house.client("alice").connect()

    async def run(**values: str) -> Element:
        node = f"xmlns='{COMMANDS}' node='urn:moim:policy'"
        begun = child(await alice.request(f"<command {node}/>", kind="set", to="chat.test"), ("command", COMMANDS))
        assert [one.get("label") for one in child(begun, ("x", ns.DATA_FORMS)).elements()[-1].elements()] == [
            "none",
            "small",
        ]
        fields = "".join(f"<field var='{var}'><value>{text}</value></field>" for var, text in values.items())
        form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'>{fields}</x>"
        done = f"<command {node} sessionid='{begun.get('sessionid')}'>{form}</command>"
        return child(await alice.request(done, kind="set", to="chat.test"), ("command", COMMANDS))

    done = await run(accountjid="bob@chat.test", policy="small")
    assert (done.get("status"), house.users.given) == ("completed", {"bob": "small"})
    assert (await run(accountjid="bob@chat.test")).get("status") == "completed"
    assert house.users.given == {"bob": ""}
    for wrong in ({"accountjid": "nobody@chat.test"}, {"accountjid": "bob@chat.test", "policy": "large"}):
        assert (await run(**wrong)).get("status") == "executing"
    assert house.users.given == {"bob": ""}


class People:
    """A directory as the admin API sees it."""

    async def get(self, address: str) -> Any:
        if address != "alice@first.test":
            raise NotFound(f"there is no user {address}")
        return SimpleNamespace(address=Address.parse(address), policy="", department="Sales")

    async def policies(self, *, departments: bool) -> list[tuple[Address, str, str]]:
        rows = [("alice", "", "sales"), ("bob", "staff", "Sales"), ("carol", "gone", ""), ("dave", "", "Kitchen")]
        return [(Address(local, "first.test"), policy, department) for local, policy, department in rows]


async def test_the_admin_api_says_what_counts_and_why() -> None:
    found = policies(policies={"sales": {"departments": ["Sales"], "archive_days": 7}, "staff": {}})
    routes = policy_routes(SimpleNamespace(policies=found), People())
    app = Starlette(routes=routes, exception_handlers=dict(http_errors.HANDLERS))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as api:
        listed = (await api.get("/chat/policies")).json()
        assert listed == {
            "policies": [
                {"name": "sales", "departments": ["Sales"], "people": 1, "limits": {"archive_days": 7}},
                {"name": "staff", "departments": [], "people": 1, "limits": {}},
            ],
            "missing": [{"name": "gone", "people": 1}],
        }
        shown = (await api.get("/chat/limits/alice@first.test")).json()
        assert (shown["policy"], shown["by"], shown["missing"]) == ("sales", "department", "")
        assert {"key": "archive_days", "value": 7, "from": "policy sales"} in shown["limits"]
        assert (await api.get("/chat/limits/bob@first.test")).status_code == 404
