"""Shared block lists: read from their service, kept by its notifications alone, and enforced on other domains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moim.chat.refusals import Refusals
from moim.chat.rtbl import SharedBlockLists, digest, source
from moim.errors import ConfigError
from moim.proto.xmpp import Element, Jid, ns

SERVICE, NODE = "rtbl.example", "muc_bans_sha256"
HOME, TO = Jid.parse(SERVICE), Jid.parse("example.com")
SPAMMER = Jid.parse("spammer@else.example/x")


def stanza(text: str) -> Element:
    return Element.parse(text.replace(" ", f" xmlns='{ns.CLIENT}' ", 1))


def items(*ids: str) -> str:
    return "".join(f"<item id='{one}'/>" for one in ids)


class Lists(SharedBlockLists):
    """The lists alone; a test answers their requests."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Element] = asyncio.Queue()
        self.refused: list[Element] = []
        refusals = Refusals(lambda element, error: self.refused.append(element))
        found = source(f"xmpp:{SERVICE}?node={NODE}")
        super().__init__("example.com", [found], send=self.asked.put_nowait, refusals=refusals, retry=0.001)

    async def request(self, payload: str) -> Element:
        asked = await asyncio.wait_for(self.asked.get(), 10)
        (pubsub,) = asked.elements()
        assert (asked.get("from"), asked.get("to"), pubsub.elements()[0].name) == ("example.com", SERVICE, payload)
        assert pubsub.elements()[0].get("node") == NODE
        return asked

    def answer(self, asked: Element, inside: str = "", *, kind: str = "result", sender: Jid = HOME) -> bool:
        text = f"<iq from='{sender}' to='example.com' type='{kind}' id='{asked.get('id')}'>{inside}</iq>"
        return self.take(sender, TO, stanza(text))

    async def read(self, *ids: str) -> None:
        """Answers one reading of the list."""
        self.answer(await self.request("subscribe"))
        self.answer(await self.request("items"), page(*ids))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def event(self, inside: str, *, sender: Jid = HOME) -> bool:
        event = f"<event xmlns='{ns.PUBSUB_EVENT}'>{inside}</event>"
        return self.take(sender, TO, stanza(f"<message from='{sender}' to='example.com'>{event}</message>"))


def page(*ids: str, last: str = "") -> str:
    rest = f"<set xmlns='{ns.RSM}'><last>{last}</last></set>" if last else ""
    return f"<pubsub xmlns='{ns.PUBSUB}'><items node='{NODE}'>{items(*ids)}</items>{rest}</pubsub>"


@pytest.fixture
async def lists() -> AsyncIterator[Lists]:
    made = Lists()
    made.start()
    yield made
    await made.stop()


async def test_addresses_and_domains_are_listed(lists: Lists) -> None:
    assert not lists.lists(SPAMMER)
    await lists.read(digest("spammer@else.example"), digest("bad.example").upper(), "rubbish", "ab" * 40)
    assert len(lists) == 2
    assert lists.lists(SPAMMER)
    assert lists.lists(Jid.parse("anybody@bad.example"))
    assert not lists.lists(Jid.parse("good@else.example"))


async def test_long_lists_come_in_pages(lists: Lists) -> None:
    lists.answer(await lists.request("subscribe"))
    first, second = digest("one@a.example"), digest("two@a.example")
    lists.answer(await lists.request("items"), page(first, last=first))
    asked = await lists.request("items")
    assert f"<after>{first}</after>" in asked.to_xml("")
    assert len(lists) == 0  # a list counts when it is complete
    lists.answer(asked, page(second, last=second))
    lists.answer(await lists.request("items"), page())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(lists) == 2


async def test_notifications_keep_it_current(lists: Lists) -> None:
    await lists.read()
    hashed = digest("spammer@else.example")
    assert lists.event(f"<items node='{NODE}'>{items(hashed)}</items>")
    assert lists.lists(SPAMMER)
    assert lists.event(f"<items node='{NODE}'><retract id='{hashed}'/></items>")
    assert not lists.lists(SPAMMER)
    lists.event(f"<items node='{NODE}'>{items(hashed)}</items>")
    lists.event("<purge node='another'/>")
    assert lists.lists(SPAMMER)
    lists.event(f"<purge node='{NODE}'/>")
    assert not lists.lists(SPAMMER)


async def test_nobody_else_is_believed(lists: Lists) -> None:
    hashed = digest("spammer@else.example")
    subscribing = await lists.request("subscribe")
    for liar in ("evil.example", f"user@{SERVICE}", f"{SERVICE}/x"):
        sender = Jid.parse(liar)
        assert not lists.answer(subscribing, sender=sender)
        assert not lists.event(f"<items node='{NODE}'>{items(hashed)}</items>", sender=sender)
    lists.event(f"<items node='other'>{items(hashed)}</items>")
    assert lists.asked.empty()
    assert not lists.lists(SPAMMER)


async def test_a_service_that_is_away_is_asked_again_and_what_is_known_counts_on(lists: Lists, caplog: Any) -> None:
    hashed = digest("spammer@else.example")
    lists.event(f"<items node='{NODE}'>{items(hashed)}</items>")
    error = f"<error type='cancel'><remote-server-not-found xmlns='{ns.STANZA_ERRORS}'/></error>"
    lists.answer(await lists.request("subscribe"), error, kind="error")
    again = await lists.request("subscribe")
    assert "remote-server-not-found; 1 entries known before count on" in caplog.text
    assert lists.lists(SPAMMER)
    lists.answer(again)
    lists.answer(await lists.request("items"), "<pubsub xmlns='other'/>")
    await lists.read(digest("bad.example"))
    assert not lists.lists(SPAMMER)
    assert lists.lists(Jid.parse("bad.example"))


async def test_the_listed_may_only_leave(lists: Lists) -> None:
    await lists.read(digest("spammer@else.example"), digest(SERVICE))
    assert not lists.lists(HOME)  # a list cannot shut out its own service
    who = f"from='{SPAMMER}' to='room@rooms.example.com/x'"
    assert lists.admits(SPAMMER, stanza(f"<presence {who} type='unavailable'/>"))
    assert not lists.admits(SPAMMER, stanza(f"<presence {who} type='subscribe'/>"))
    assert lists.refused == []
    for refused in (
        f"<presence {who}><x xmlns='{ns.MUC}'/></presence>",
        f"<message {who} type='groupchat'><body>buy</body></message>",
        f"<iq {who} type='get' id='1'/>",
    ):
        assert not lists.admits(SPAMMER, stanza(refused))
    assert len(lists.refused) == 3


@pytest.mark.parametrize(
    ("uri", "node"),
    [
        (f"xmpp:{SERVICE}?node=a", "a"),
        (f"xmpp:{SERVICE}?;node=a%20b", "a b"),
        (f"xmpp:{SERVICE}?pubsub;action=subscribe;node=a", "a"),
    ],
)
def test_addresses_of_lists(uri: str, node: str) -> None:
    assert (source(uri).service, source(uri).node) == (HOME, node)


@pytest.mark.parametrize("uri", ["rtbl.example", "https://rtbl.example?node=a", f"xmpp:{SERVICE}", "xmpp:@@?node=a"])
def test_what_is_no_list(uri: str) -> None:
    with pytest.raises(ConfigError):
        source(uri)


async def test_a_list_at_work(house_class: Any, tmp_path: Path) -> None:
    out: asyncio.Queue[Element] = asyncio.Queue()

    class Federated(house_class):
        def _service(self) -> Any:
            service = super()._service()
            service._federation = SimpleNamespace(send=out.put_nowait)
            return service

    house = Federated(
        tmp_path / "house",
        people={"alice": "wonder land"},
        domain="example.com",
        shared_block_lists=[f"xmpp:{SERVICE}?node={NODE}"],
    )
    await house.service.start()
    try:
        alice = await house.online("alice")
        for inside in ("", page(digest("spammer@else.example"))):
            asked = await asyncio.wait_for(out.get(), 10)
            answer = f"<iq from='{SERVICE}' to='example.com' type='result' id='{asked.get('id')}'>{inside}</iq>"
            house.service.remote_stanza(stanza(answer))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        words = f"<message from='{SPAMMER}' to='alice@example.com' type='chat'><body>buy</body></message>"
        house.service.remote_stanza(stanza(words))
        enter = f"<presence from='{SPAMMER}' to='r@rooms.example.com/x'><x xmlns='{ns.MUC}'/></presence>"
        house.service.remote_stanza(stanza(enter))
        for name in ("message", "presence"):
            refused = await asyncio.wait_for(out.get(), 10)
            assert (refused.name, refused.get("type")) == (name, "error")
            assert "forbidden" in refused.to_xml("")
        await alice.quiet()
        assert house.service.stats()["refused_listed"] == 2
        assert not house.service.servers.short_way("else.example")
    finally:
        await house.stop()
