"""Archives of accounts with real clients over the real plane: what is kept, who sees it, what a full disk does."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moim.chat.archive.tables import entries, messages
from moim.errors import Unavailable
from moim.proto.xmpp import Element, ns, timestamp

MAM = ns.ARCHIVE


def chat(to: str, body: str, identifier: str = "", extra: str = "", kind: str = "chat") -> str:
    return f"<message to='{to}' type='{kind}' id='{identifier or body}'><body>{body}</body>{extra}</message>"


def query(page: str = "", flip: bool = False, queryid: str = "", **fields: str | list[str]) -> str:
    names = {"with_": "with"}
    form = "".join(
        f"<field var='{names.get(var, var.replace('_', '-'))}'>"
        + "".join(f"<value>{v}</value>" for v in ([value] if isinstance(value, str) else value))
        + "</field>"
        for var, value in fields.items()
    )
    if form:
        form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'><field var='FORM_TYPE'><value>{MAM}</value></field>{form}</x>"
    rsm = f"<set xmlns='{ns.RSM}'>{page}</set>" if page else ""
    attr = f" queryid='{queryid}'" if queryid else ""
    return f"<query xmlns='{MAM}'{attr}>{form}{rsm}{'<flip-page/>' if flip else ''}</query>"


class Page:
    """The answer to a query: messages, their ids, and the end of it."""

    def __init__(self, results: list[Element], answer: Element) -> None:
        self.answer = answer
        self.results = [found for found in (m.find("result", MAM) for m in results) if found is not None]
        self.ids = [result.get("id") or "" for result in self.results]
        self.stanzas: list[Any] = [
            forwarded.find("message", ns.CLIENT)
            for result in self.results
            if (forwarded := result.find("forwarded", ns.FORWARD)) is not None
        ]
        self.fin: Any = answer.find("fin", MAM)

    @property
    def bodies(self) -> list[str]:
        return [body.text if (body := m.find("body")) is not None else "" for m in self.stanzas if m is not None]

    @property
    def complete(self) -> bool:
        return self.fin is not None and self.fin.get("complete") == "true"

    @property
    def error(self) -> str:
        error = self.answer.find("error")
        return error.elements()[0].name if error is not None else ""


async def ask(client: Any, payload: str, to: str | None = None) -> Page:
    others = [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]
    answer = await client.request(payload, kind="set", to=to)
    got = [client.inbox.get_nowait() for _ in range(client.inbox.qsize())]
    results = [m for m in got if m.name == "message" and m.find("result", MAM) is not None]
    for stanza in others + [m for m in got if m not in results]:
        client.inbox.put_nowait(stanza)
    for message in results:
        assert message.get("from") == str(client.jid).split("/")[0]
    return Page(results, answer)


def error(answer: Element) -> str:
    found = answer.find("error")
    assert found is not None, answer.to_xml()
    return found.elements()[0].name


async def talk(house: Any, words: int = 5) -> tuple[Any, Any]:
    """Alice and bob online, each having said something in turns; each heard it."""
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    for number in range(words):
        source, target = (alice, bob) if number % 2 == 0 else (bob, alice)
        source.send(chat(f"{target.name}@chat.test", str(number)))
        heard = await target.receive()
        assert heard.find("body").text == str(number)
    return alice, bob


def child(element: Element | None, name: str, namespace: str | None = None) -> Element:
    assert element is not None
    found = element.find(name, namespace)
    assert found is not None, element.to_xml()
    return found


def stanza_id(message: Element, by: str) -> str:
    found = [c.get("id") for c in message.elements() if (c.ns, c.name, c.get("by")) == (ns.STANZA_IDS, "stanza-id", by)]
    assert len(found) == 1, message.to_xml()
    return found[0] or ""


async def test_both_sides_have_what_was_said(house: Any) -> None:
    alice, bob = await talk(house)
    for client in (alice, bob):
        page = await ask(client, query(queryid="q"))
        assert page.bodies == ["0", "1", "2", "3", "4"]
        assert page.complete
        assert all(result.get("queryid") == "q" for result in page.results)
        own = f"{client.name}@chat.test"
        assert [stanza_id(m, own) for m in page.stanzas if m is not None] == page.ids
        assert all(m.find("delay", ns.DELAY) is None for m in page.stanzas if m is not None)
        (first,) = [c for c in page.fin.elements() if c.name == "set"]
        assert first.find("first").text == page.ids[0]
        assert first.find("last").text == page.ids[-1]


async def test_the_live_message_carries_its_id_in_the_archive(house: Any) -> None:
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    alice.send(chat("bob@chat.test", "hi", extra=f"<stanza-id xmlns='{ns.STANZA_IDS}' by='bob@chat.test' id='1'/>"))
    heard = await bob.receive()
    assert stanza_id(heard, "bob@chat.test") == (await ask(bob, query())).ids[0]
    assert all(c.get("by") != "alice@chat.test" for c in heard.elements())


async def test_ids_tell_nothing(house: Any) -> None:
    alice, bob = await talk(house, 20)
    hers, his = (await ask(alice, query())).ids, (await ask(bob, query())).ids
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{21}[AQgw]", found) for found in hers + his)
    assert len({found[:6] for found in hers + his}) == 40, "neighbours and the two sides of a message share nothing"
    assert hers != sorted(hers), "they are in no order that shows"
    for wrong in (his[0], f"{hers[0]}A", hers[0][::-1], "0"):
        assert (await ask(alice, query(f"<after>{wrong}</after>"))).error == "item-not-found"
        assert (await ask(alice, query(ids=[hers[1], wrong]))).error == "item-not-found"
    await house.restart()
    bob = await house.online("bob", "b")
    assert (await ask(bob, query(f"<after>{his[17]}</after>"))).ids == his[18:], "nor do they change"


async def test_messages_for_somebody_away_carry_it_too(house: Any) -> None:
    alice = await house.online("alice", "a")
    for word in ("one", "two"):
        alice.send(chat("bob@chat.test", word))
    await alice.sync()
    assert (await ask(alice, query())).bodies == ["one", "two"]
    bob = await house.client("bob", "b").connect()
    bob.send("<presence/>")
    await bob.sync()
    waited = [m for m in (bob.inbox.get_nowait() for _ in range(bob.inbox.qsize())) if m.name == "message"]
    assert [m.find("body").text for m in waited] == ["one", "two"]
    assert [stanza_id(m, "bob@chat.test") for m in waited] == (await ask(bob, query())).ids


async def test_who_reads_the_archive_first_gets_nothing_twice(house: Any) -> None:
    alice = await house.online("alice", "a")
    alice.send(chat("bob@chat.test", "one"))
    await alice.sync()
    bob = await house.client("bob", "b").connect()
    assert (await ask(bob, query())).bodies == ["one"]
    alice.send(chat("bob@chat.test", "two"))
    await alice.sync()
    bob.send("<presence/>")
    await bob.sync()
    waited = [m for m in (bob.inbox.get_nowait() for _ in range(bob.inbox.qsize())) if m.name == "message"]
    assert [m.find("body").text for m in waited] == ["two"]


@pytest.mark.engines
async def test_pages(house: Any) -> None:
    alice, _ = await talk(house, 10)
    everything = (await ask(alice, query())).ids
    seen: list[str] = []
    page = await ask(alice, query("<max>4</max>"))
    while True:
        seen += page.bodies
        if page.complete:
            break
        page = await ask(alice, query(f"<max>4</max><after>{page.ids[-1]}</after>"))
    assert seen == [str(number) for number in range(10)]
    last = await ask(alice, query("<max>3</max><before/>"))
    assert last.bodies == ["7", "8", "9"]
    assert not last.complete
    before = await ask(alice, query(f"<max>3</max><before>{last.ids[0]}</before>", flip=True))
    assert before.bodies == ["6", "5", "4"]
    rsm = next(c for c in before.fin.elements() if c.name == "set")
    assert (rsm.find("first").text, rsm.find("last").text) == (everything[4], everything[6])
    between = await ask(alice, query(after_id=everything[1], before_id=everything[4]))
    assert between.ids == everything[2:4]
    single = await ask(alice, query(ids=[everything[8], everything[2]]))
    assert single.ids == [everything[2], everything[8]]
    counted = await ask(alice, query("<max>0</max>"))
    assert counted.results == []
    assert next(c for c in counted.fin.elements() if c.name == "set").find("count").text == "10"
    assert (await ask(alice, query(f"<after>{everything[-1]}</after>"))).complete


@pytest.mark.engines
async def test_filters(house: Any) -> None:
    alice, _ = await talk(house, 4)
    carol = await house.online("carol", "c")
    carol.send(chat("alice@chat.test", "from carol"))
    await alice.receive()
    alice.send(chat("alice@chat.test", "to myself"))
    await alice.receive()
    assert (await ask(alice, query(with_="bob@chat.test"))).bodies == ["0", "1", "2", "3"]
    assert (await ask(alice, query(with_="bob@chat.test/b"))).bodies == ["1", "3"]
    assert (await ask(alice, query(with_="BOB@chat.test"))).bodies == ["0", "1", "2", "3"]
    assert (await ask(alice, query(with_="carol@chat.test"))).bodies == ["from carol"]
    assert (await ask(alice, query(with_="alice@chat.test"))).bodies == ["to myself"]
    assert (await ask(alice, query(with_="nobody@else.test"))).complete
    now = datetime.now(UTC)
    assert len((await ask(alice, query(start=timestamp(now - timedelta(minutes=1))))).ids) == 6
    assert (await ask(alice, query(start=timestamp(now + timedelta(minutes=1))))).ids == []
    assert (await ask(alice, query(end=timestamp(now - timedelta(minutes=1))))).ids == []
    assert len((await ask(alice, query(end="2999-01-01T00:00:00+02:00", include_groupchat="true"))).ids) == 6


@pytest.mark.parametrize(
    ("payload", "condition"),
    [
        (query("<after>17</after>"), "item-not-found"),
        (query("<before>nonsense</before>"), "item-not-found"),
        (query(after_id="17"), "item-not-found"),
        (query(ids=["17"]), "item-not-found"),
        (query(ids=[str(n) for n in range(201)]), "bad-request"),
        (query("<max>many</max>"), "bad-request"),
        (query("<index>3</index>"), "feature-not-implemented"),
        (query(start="yesterday"), "bad-request"),
        (query(with_="@@"), "jid-malformed"),
        (query(colour="blue"), "feature-not-implemented"),
        (query(start=["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"]), "bad-request"),
        (query(queryid="q" * 300), "bad-request"),
        (f"<query xmlns='{MAM}' node='x'/>", "item-not-found"),
    ],
)
async def test_what_cannot_be_asked(house: Any, payload: str, condition: str) -> None:
    alice = await house.online("alice", "a")
    page = await ask(alice, payload)
    assert page.error == condition
    assert page.results == []


async def test_an_archive_is_its_owners(house: Any) -> None:
    _, bob = await talk(house)
    for payload, kind in ((query(), "set"), (f"<metadata xmlns='{MAM}'/>", "get"), (f"<prefs xmlns='{MAM}'/>", "get")):
        answer = await bob.request(payload, kind=kind, to="alice@chat.test")
        assert error(answer) == "forbidden"
    await bob.quiet()


async def test_what_discovery_and_metadata_say(house: Any) -> None:
    alice = await house.online("alice", "a")
    info = await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="alice@chat.test")
    found = {c.get("var") for c in info.elements()[0].elements() if c.name == "feature"}
    assert {MAM, f"{MAM}#extended", ns.STANZA_IDS, f"{ns.RETRACTION}#tombstone"} <= found
    empty = await alice.request(f"<metadata xmlns='{MAM}'/>")
    assert empty.elements()[0].elements() == []
    form = await alice.request(f"<query xmlns='{MAM}'/>")
    fields = [f.get("var") for f in form.elements()[0].elements()[0].elements()]
    assert fields[1:7] == ["with", "start", "end", "before-id", "after-id", "ids"]
    await house.online("bob", "b")
    for word in ("x", "y"):
        alice.send(chat("bob@chat.test", word))
    page = await ask(alice, query())
    full = await alice.request(f"<metadata xmlns='{MAM}'/>")
    assert [c.get("id") for c in full.elements()[0].elements()] == page.ids


async def test_what_is_about_the_moment_is_not_kept(house: Any) -> None:
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    kept = {
        "receipt": f"<received xmlns='{ns.RECEIPTS}' id='1'/>",
        "marker": f"<displayed xmlns='{ns.CHAT_MARKERS}' id='1'/>",
        "reaction": f"<reactions xmlns='{ns.REACTIONS}' id='1'><reaction>x</reaction></reactions>",
        "encrypted": "<encrypted xmlns='urn:xmpp:omemo:2'/>",
        "hinted": f"<store xmlns='{ns.HINTS}'/>",
    }
    dropped = {
        "typing": f"<composing xmlns='{ns.CHAT_STATES}'/>",
        "no-store": f"<body>x</body><no-store xmlns='{ns.HINTS}'/>",
        "no-permanent": f"<body>x</body><no-permanent-store xmlns='{ns.HINTS}'/>",
    }
    for identifier, inner in {**kept, **dropped}.items():
        alice.send(f"<message to='bob@chat.test' type='chat' id='{identifier}'>{inner}</message>")
        await bob.receive()
    alice.send(chat("bob@chat.test", "news", kind="headline"))
    await bob.receive()
    for client in (alice, bob):
        assert [m.get("id") for m in (await ask(client, query())).stanzas if m is not None] == list(kept)


@pytest.mark.engines
async def test_preferences(house: Any) -> None:
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    carol = await house.online("carol", "c")
    answer = await alice.request(f"<prefs xmlns='{MAM}'/>")
    assert answer.elements()[0].get("default") == "always"
    chosen = f"<prefs xmlns='{MAM}' default='always'><always/><never><jid>bob@chat.test</jid></never></prefs>"
    answer = await alice.request(chosen, kind="set")
    assert answer.get("type") == "result"
    bob.send(chat("alice@chat.test", "off the record"))
    heard = await alice.receive()
    assert all(c.name != "stanza-id" for c in heard.elements())
    carol.send(chat("alice@chat.test", "on the record"))
    heard = await alice.receive()
    page = await ask(alice, query())
    assert page.bodies == ["on the record"]
    assert stanza_id(heard, "alice@chat.test") == page.ids[0]
    assert (await ask(bob, query())).bodies == ["off the record"]
    await house.restart()
    alice = await house.online("alice", "a")
    assert [
        c.text for c in (await alice.request(f"<prefs xmlns='{MAM}'/>")).elements()[0].find("never").elements()
    ] == ["bob@chat.test"]
    await alice.request(f"<prefs xmlns='{MAM}' default='roster'/>", kind="set")
    bob = await house.online("bob", "b")
    bob.send(chat("alice@chat.test", "a stranger"))
    await alice.receive()
    await alice.request(f"<query xmlns='{ns.ROSTER}'><item jid='bob@chat.test'/></query>", kind="set")
    bob.send(chat("alice@chat.test", "a contact"))
    await bob.sync()
    assert (await ask(alice, query())).bodies == ["on the record", "a contact"]
    for bad in ("<prefs xmlns='urn:xmpp:mam:2'/>", "<prefs xmlns='urn:xmpp:mam:2' default='maybe'/>"):
        assert error(await alice.request(bad, kind="set")) == "bad-request"


@pytest.mark.engines
async def test_only_the_sender_takes_a_message_back(house: Any) -> None:
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    alice.send(chat("bob@chat.test", "oops", "m1"))
    await bob.receive()

    def retract(to: str, identifier: str) -> str:
        return (
            f"<message to='{to}' type='chat' id='{identifier}'><retract xmlns='{ns.RETRACTION}' id='m1'/>"
            f"<body>taken back</body></message>"
        )

    bob.send(retract("alice@chat.test", "r1"))
    await alice.receive()
    await ask(bob, query())
    await house.service._parts.archive.retractions.settled()
    assert (await ask(bob, query())).bodies == ["oops", "taken back"]
    alice.send(retract("bob@chat.test", "r2"))
    await bob.receive()
    await ask(alice, query())
    await house.service._parts.archive.retractions.settled()
    for client in (alice, bob):
        page = await ask(client, query())
        assert page.bodies == ["", "taken back", "taken back"]
        tombstone = page.stanzas[0].find("retracted", ns.RETRACTION)
        assert tombstone.get("id") == "r2"
        assert tombstone.get("stamp")
        assert page.stanzas[0].get("id") == "m1"


@pytest.mark.engines
async def test_a_removed_account_leaves_nothing_to_its_successor(house: Any) -> None:
    alice, _ = await talk(house)
    archive = house.service._parts.archive
    await house.service._parts.changes.remove("bob@chat.test")
    bob = await house.online("bob", "b")
    assert (await ask(bob, query())).ids == []
    assert (await bob.request(f"<metadata xmlns='{MAM}'/>")).elements()[0].elements() == []
    await archive.retention.sweep()
    assert len((await ask(alice, query())).ids) == 5
    bob.send(chat("alice@chat.test", "new here"))
    await alice.receive()
    assert (await ask(bob, query())).bodies == ["new here"]
    await house.service._parts.changes.remove("alice@chat.test")
    await archive.retention.sweep()
    left = await house.store.read(lambda c: c.execute(messages.select()).all())
    assert len(left) == 1
    assert len(await house.store.read(lambda c: c.execute(entries.select()).all())) == 1


@pytest.mark.engines
async def test_old_messages_go(new_house: Any) -> None:
    house = await new_house(archive_messages=100, archive_days=1)
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    for number in range(120):
        alice.send(chat("bob@chat.test", str(number)))
    for _ in range(120):
        await bob.receive()
    await ask(alice, query())
    retention = house.service._parts.archive.retention
    await retention.sweep()
    page = await ask(alice, query("<max>200</max>"))
    assert page.bodies == [str(number) for number in range(20, 120)]
    retention._clock = lambda: datetime.now(UTC) + timedelta(days=2)
    await retention.sweep()
    assert (await ask(bob, query())).ids == []
    assert await house.store.read(lambda c: c.execute(messages.select()).all()) == []


async def test_nothing_is_acknowledged_while_the_disk_is_full(new_house: Any, caplog: Any, monkeypatch: Any) -> None:
    house = await new_house(archive_patience_seconds=1)
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    write = house.store.write
    full = True

    async def broken(work: Any) -> Any:
        if full:
            raise Unavailable("the database did not take it: database or disk is full", hint="check the disk's space")
        return await write(work)

    monkeypatch.setattr(house.store, "write", broken)
    alice.send(chat("bob@chat.test", "delivered, not kept"))
    assert (await bob.receive()).find("body").text == "delivered, not kept"
    failure = await alice.ended()
    assert failure is not None
    assert failure.condition == "resource-constraint"
    alice = await house.online("alice", "a")
    alice.send(chat("bob@chat.test", "refused", "m2"))
    refused = await alice.receive()
    assert (refused.get("type"), refused.get("id"), error(refused)) == ("error", "m2", "internal-server-error")
    await bob.sync()
    while not bob.inbox.empty():
        assert bob.inbox.get_nowait().name == "presence"
    assert "database or disk is full" in caplog.text
    full = False
    alice.send(chat("bob@chat.test", "kept"))
    assert (await bob.receive()).find("body").text == "kept"
    assert (await ask(alice, query())).bodies == ["kept"]
    assert "can be written again" in caplog.text
    alice.send(chat("bob@chat.test", "by the plane again"))
    assert stanza_id(await bob.receive(), "bob@chat.test")
    assert (await ask(bob, query())).bodies == ["kept", "by the plane again"]


async def test_a_disk_that_recovers_in_time_costs_nothing(house: Any, monkeypatch: Any) -> None:
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    write, failed = house.store.write, asyncio.Event()

    async def broken(work: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise Unavailable("the database did not take it")
        return await write(work)

    monkeypatch.setattr(house.store, "write", broken)
    alice.send(chat("bob@chat.test", "late"))
    await bob.receive()
    await asyncio.wait_for(failed.wait(), 10)
    alice.send(chat("bob@chat.test", "second"))
    await bob.receive()
    assert (await ask(alice, query())).bodies == ["late", "second"]
    await alice.quiet()


async def test_displayed_markers_are_for_the_account_alone(house: Any) -> None:
    alice = await house.online("alice", "a")
    bob = await house.online("bob", "b")
    mark = f"<stanza-id xmlns='{ns.STANZA_IDS}' by='alice@chat.test' id='1'/>"
    item = f"<item id='bob@chat.test'><displayed xmlns='{ns.DISPLAYED}'>{mark}</displayed></item>"
    publish = f"<pubsub xmlns='{ns.PUBSUB}'><publish node='{ns.DISPLAYED}'>{item}</publish></pubsub>"
    assert (await alice.request(publish, kind="set")).get("type") == "result"
    second = publish.replace("id='bob@chat.test'", "id='carol@chat.test'")
    assert (await alice.request(second, kind="set")).get("type") == "result"
    read = f"<pubsub xmlns='{ns.PUBSUB}'><items node='{ns.DISPLAYED}'/></pubsub>"
    items = (await alice.request(read)).elements()[0].elements()[0].elements()
    assert sorted(i.get("id") or "" for i in items) == ["bob@chat.test", "carol@chat.test"]
    assert (await bob.request(read, to="alice@chat.test")).get("type") == "error"
