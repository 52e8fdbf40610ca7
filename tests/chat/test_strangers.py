"""Strangers of other domains are let in within bounds; those whom people know are never counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moim.chat.custody import Word
from moim.chat.refusals import Refusals
from moim.chat.rosters import Item
from moim.chat.s2s_plane import FIRST_SERVER, ServerPlane
from moim.chat.strangers import Shares, Strangers
from moim.proto.xmpp import Element, Jid, StanzaError, ns

ALICE = "alice@example.com"


def stanza(text: str) -> Element:
    return Element.parse(text.replace(" ", f" xmlns='{ns.CLIENT}' ", 1))


def message(sender: str, to: str = ALICE, kind: str = "chat") -> Element:
    return stanza(f"<message from='{sender}' to='{to}' type='{kind}'><body>hi</body></message>")


class Door:
    """The gate alone: rosters from a dictionary, a clock that is set."""

    def __init__(self, shares: Shares) -> None:
        self.now = 0.0
        self.answers: list[Element] = []
        self.rosters: dict[str, dict[str, Item]] = {}
        self.sessions: dict[str, Any] = {}
        self.own: dict[str, Shares] = {}
        self.judged: list[tuple[str, bool]] = []
        self.refusals = Refusals(lambda element, error: self.answers.append(element), clock=lambda: self.now)
        accounts: Any = SimpleNamespace(get=self.sessions.get, abroad=lambda bare: False)
        self.strangers = Strangers(
            ["example.com"],
            lambda whose: self.own.get(whose, shares),
            accounts=accounts,
            rosters=self,  # type: ignore[arg-type]
            refusals=self.refusals,
            exempt=("rooms.example.com",),
            look_again=lambda remote: self.judged.append((remote, self.strangers.judges(remote))),
            clock=lambda: self.now,
        )

    async def get(self, owner: str) -> Any:
        stored = self.rosters.get(owner, {})
        return SimpleNamespace(item=lambda contact: stored.get(contact, Item(contact)))

    async def admitted(self, element: Element) -> bool:
        sender, to = Jid.parse(element.get("from") or ""), Jid.parse(element.get("to") or "")
        return await self.strangers.admits(sender, to, element)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door(Shares(sender=5, domain=20, recipient=10))
    yield made
    await made.strangers.stop()


async def test_one_sender_has_a_share_that_refills(door: Door) -> None:
    assert [await door.admitted(message("m@else.example/x")) for _ in range(7)] == [True] * 5 + [False] * 2
    assert await door.admitted(message("other@else.example"))
    door.now += 12.0
    assert await door.admitted(message("m@else.example/another"))
    assert not await door.admitted(message("m@else.example/x"))


async def test_one_domain_and_one_account_have_shares(door: Door) -> None:
    to_one = [await door.admitted(message(f"m{number}@d{number}.example")) for number in range(12)]
    assert to_one == [True] * 10 + [False] * 2
    to_many = [await door.admitted(message(f"m{n}@else.example", f"u{n}@example.com")) for n in range(25)]
    assert to_many == [True] * 20 + [False] * 5


async def test_a_persons_own_share_and_a_domain_that_counts_nothing(door: Door) -> None:
    door.own["busy@example.com"] = Shares(sender=5, domain=20, recipient=2)
    many = [await door.admitted(message(f"m@d{number}.example", "busy@example.com")) for number in range(4)]
    assert many == [True] * 2 + [False] * 2
    door.own["open@example.com"] = Shares(sender=0, domain=1, recipient=1)
    assert all([await door.admitted(message("m@else.example", "open@example.com")) for _ in range(30)])
    assert await door.admitted(message("m@else.example"))


async def test_each_hosted_domain_has_shares_of_its_own(door: Door) -> None:
    assert [await door.admitted(message("m@else.example")) for _ in range(6)] == [True] * 5 + [False]
    assert await door.admitted(message("m@else.example", "bob@example.net"))


async def test_every_way_to_bother_somebody_counts_and_answers_do_not(door: Door) -> None:
    who = "m@else.example/x"
    for kind in ("subscribe", "probe"):
        assert await door.admitted(stanza(f"<presence from='{who}' to='{ALICE}' type='{kind}'/>"))
    for kind in ("get", "set"):
        assert await door.admitted(stanza(f"<iq from='{who}' to='{ALICE}' type='{kind}' id='1'/>"))
    assert await door.admitted(stanza(f"<presence from='{who}' to='{ALICE}'/>"))
    assert not await door.admitted(message(who))
    for free in (
        f"<iq from='{who}' to='{ALICE}' type='result' id='1'/>",
        f"<message from='{who}' to='{ALICE}' type='error'/>",
        f"<presence from='{who}' to='{ALICE}' type='unavailable'/>",
        f"<iq from='{who}' to='example.com' type='get' id='1'/>",
    ):
        assert await door.admitted(stanza(free))


@pytest.mark.parametrize(
    "item",
    [
        Item("m@else.example", listed=True),
        Item("m@else.example", subscription="from"),
        Item("m@else.example", ask=True),
        Item("m@else.example", approved=True),
        Item("else.example", listed=True),
    ],
)
async def test_contacts_are_no_strangers(door: Door, item: Item) -> None:
    door.rosters[ALICE] = {item.contact: item}
    assert all([await door.admitted(message("m@else.example/x")) for _ in range(50)])


async def test_a_request_that_waits_makes_nobody_a_contact(door: Door) -> None:
    door.rosters[ALICE] = {"m@else.example": Item("m@else.example", request="<presence/>")}
    assert not all([await door.admitted(message("m@else.example/x")) for _ in range(6)])


async def test_who_was_written_to_and_rooms_one_is_in_are_no_strangers(door: Door) -> None:
    door.strangers.wrote(message(f"{ALICE}/phone", "m@else.example"))
    assert all([await door.admitted(message("m@else.example/x")) for _ in range(30)])
    session = SimpleNamespace(directed={"room@muc.example/alice": None})
    door.sessions[ALICE] = SimpleNamespace(sessions={"phone": session})
    words = [message("room@muc.example/bob", f"{ALICE}/phone", "groupchat") for _ in range(50)]
    assert all([await door.admitted(one) for one in words])
    own = [message("room@rooms.example.com/bob") for _ in range(50)]
    assert all([await door.admitted(one) for one in own])


async def test_refusing_somebody_makes_no_relation(door: Door) -> None:
    refusal = stanza(f"<iq from='{ALICE}/x' to='m@else.example' type='error' id='1'/>")
    door.strangers.wrote(refusal)
    assert not all([await door.admitted(message("m@else.example/x")) for _ in range(6)])


async def test_refusals_are_answered_and_logged_at_a_bounded_rate(door: Door, caplog: Any) -> None:
    for _ in range(1000):
        await door.admitted(message("m@else.example/x"))
    for _ in range(100):
        await door.admitted(stanza(f"<presence from='m@else.example' to='{ALICE}' type='subscribe'/>"))
    assert len(door.answers) == 30
    assert len([line for line in caplog.records if "refused" in line.message]) == 6
    assert door.refusals.counts["strangers"] == 1095
    door.now += 60.0
    for number in range(2000):
        door.refusals.refuse(
            "x", Jid.parse(f"m@d{number}.example"), message("m@a.example"), StanzaError("forbidden"), "-"
        )
    assert len([line for line in caplog.records if "refused" in line.message]) == 6 + 120
    assert "1089 refusals before this one are not in the log" in caplog.text


async def test_what_was_delivered_by_table_counts_afterwards(door: Door) -> None:
    record = (1, "m@else.example/x", f"{ALICE}/phone", (ALICE,), message("m@else.example/x"))
    door.strangers.carried([record] * 5)
    await asyncio.gather(*door.strangers._tasks)
    assert door.judged == []
    door.strangers.carried([record] * 3)
    await asyncio.gather(*door.strangers._tasks)
    assert door.judged == [("else.example", True)]
    assert not await door.admitted(message("m@else.example/x"))
    door.strangers._trust("else.example")
    assert door.judged[-1] == ("else.example", False)


async def test_own_messages_that_went_out_by_table_make_relations(door: Door) -> None:
    sent = (1, f"{ALICE}/phone", "m@else.example", (ALICE,), message(f"{ALICE}/phone", "m@else.example"))
    local = (2, f"{ALICE}/phone", "bob@example.com", (ALICE,), message(f"{ALICE}/phone", "bob@example.com"))
    door.strangers.carried([sent, local])
    assert not door.strangers._tasks
    assert all([await door.admitted(message("m@else.example/x")) for _ in range(30)])


async def test_a_flood_of_a_stranger_ends_at_the_door(house_class: Any, tmp_path: Path) -> None:
    out: list[Element] = []
    enough = asyncio.Event()

    def send(one: Element) -> None:
        out.append(one)
        if len(out) >= 3:
            enough.set()

    class Federated(house_class):
        def _service(self) -> Any:
            service = super()._service()
            service._federation = SimpleNamespace(send=send)
            return service

    house = Federated(
        tmp_path / "house",
        people={"alice": "wonder land", "bob": "b"},
        domain="example.com",
        default_contacts=True,
        strangers_per_minute=5,
    )
    await house.service.start()
    try:
        alice, bob = await house.online("alice"), await house.online("bob")
        for _ in range(8):
            house.service.remote_stanza(message("m@else.example/x"))
        await asyncio.wait_for(enough.wait(), 10)
        assert ["policy-violation" in one.to_xml("") for one in out] == [True] * 3
        for _ in range(20):
            bob.send(f"<message to='{ALICE}' type='chat'><body>friend</body></message>")
        await bob.sync()
        await alice.sync()
        bodies = []
        while not alice.inbox.empty():
            one = alice.inbox.get_nowait()
            bodies += [one.find("body").text] if one.name == "message" else []
        assert (bodies.count("hi"), bodies.count("friend")) == (5, 20)
        assert house.service.stats()["refused_strangers"] == 3
    finally:
        await house.stop()


def test_a_domain_that_loses_the_short_way_loses_it_on_all_its_streams() -> None:
    paired: list[tuple[int, str, bool]] = []
    engine: Any = SimpleNamespace(pair=lambda sid, local, remote, direct: paired.append((sid, remote, direct)))
    plane = ServerPlane(engine, Word(lambda done: None))
    judged: set[str] = set()
    plane.short_way = lambda remote: remote not in judged
    first = FIRST_SERVER
    for sid, remote in ((first, "a.example"), (first + 1, "a.example"), (first + 1, "b.example")):
        plane.pair(sid, "example.com", remote)
    assert all(direct for _, _, direct in paired)
    judged.add("a.example")
    plane.look_again("a.example")
    assert paired[3:] == [(first, "a.example", False), (first + 1, "a.example", False)]
    plane.split(lambda batch: None)([("closed", first + 1, "gone")])
    judged.clear()
    plane.look_again("a.example")
    assert paired[5:] == [(first, "a.example", True)]
    assert list(plane._pairs) == ["a.example"]
