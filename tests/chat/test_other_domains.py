"""Who may talk with other domains, and who of there may come: refused both ways, seen by nobody, changed while signed
in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from moim.model import Address, UserChanged
from moim.proto.xmpp import Element, ns
from stanza_parts import child

ALICE, BOB, ROMEO, FRIEND = "alice@example.com", "bob@example.com", "romeo@else.example/garden", "romeo@else.example"


class Outside:
    """The federation room of a test: what goes out is kept in a queue."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Element] = asyncio.Queue()

    def send(self, stanza: Element) -> None:
        self.sent.put_nowait(stanza)


Town = tuple[Any, Outside]


@pytest.fixture
async def new_town(house_class: Any, tmp_path: Path) -> AsyncIterator[Any]:
    houses: list[Any] = []

    async def make(**options: Any) -> Town:
        outside = Outside()

        class Federated(house_class):
            def _service(self) -> Any:
                service = super()._service()
                service._federation = outside
                return service

        house = Federated(
            tmp_path / f"house{len(houses)}",
            people={"alice": "wonder land", "bob": "b"},
            domain="example.com",
            default_contacts=False,
            **options,
        )
        houses.append(house)
        await house.service.start()
        return house, outside

    yield make
    for house in houses:
        await house.stop()


@pytest.fixture
async def town(new_town: Any) -> Town:
    policies = {"inner": {"federation": False}, "shy": {"strangers": False}, "open": {"federation": True}}
    made: Town = await new_town(policies=policies)
    return made


async def give(house: Any, name: str, policy: str) -> None:
    house.users.given[name] = policy
    await house.bus.publish(UserChanged(Address(name, house.domain)))


def stanza(text: str) -> Element:
    return Element.parse(text.replace(" ", f" xmlns='{ns.CLIENT}' ", 1))


def come(house: Any, text: str) -> None:
    house.service.remote_stanza(stanza(text))


async def gone_out(house: Any, outside: Outside) -> list[tuple[str, str | None, str | None]]:
    """Name, type and recipient of everything that went out, once all that came in was worked off."""
    await house.service._parts.archive.settled()
    for whose in (ALICE, BOB):
        come(house, f"<iq from='x@probe.example' to='{whose}/none' type='get' id='end'><ping xmlns='{ns.PING}'/></iq>")
    found, ends = [], 0
    while ends < 2:
        one = await asyncio.wait_for(outside.sent.get(), 10)
        if one.get("id") == "end":
            ends += 1
        else:
            found.append((one.name, one.get("type"), one.get("to")))
    return found


def condition(answer: Element) -> str:
    return child(answer, "error").elements()[0].name


async def befriended(house: Any, outside: Outside) -> Any:
    """Alice, online, who shows Romeo her presence and sees his."""
    alice = await house.online("alice")
    come(house, f"<presence from='{FRIEND}' to='{ALICE}' type='subscribe'/>")
    assert (await alice.receive()).get("type") == "subscribe"
    for kind in ("subscribed", "subscribe"):
        alice.send(f"<presence to='{FRIEND}' type='{kind}'/>")
    await alice.sync()
    come(house, f"<presence from='{FRIEND}' to='{ALICE}' type='subscribed'/>")
    come(house, f"<presence from='{ROMEO}' to='{ALICE}'/>")
    while (await alice.receive()).get("from") != ROMEO:
        pass
    await gone_out(house, outside)
    await alice.sync()
    while not alice.inbox.empty():
        alice.inbox.get_nowait()
    return alice


async def test_nothing_of_the_person_goes_out(town: Town, caplog: Any) -> None:
    house, outside = town
    alice = await house.online("alice")
    await give(house, "alice", "inner")
    for number, text in enumerate(
        (
            f"<message to='{ROMEO}' type='chat'><body>x</body></message>",
            f"<presence to='{FRIEND}' type='subscribe'/>",
            "<presence to='room@muc.else.example/a'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
            f"<iq to='else.example' type='get'><ping xmlns='{ns.PING}'/></iq>",
        )
    ):
        alice.send(text.replace(" ", f" id='{number}' ", 1))
        refused = await alice.receive()
        assert (refused.get("id"), refused.get("type"), condition(refused)) == (str(number), "error", "forbidden")
    alice.send(f"<presence to='{FRIEND}' type='unsubscribe'/>")
    await alice.sync()
    assert await gone_out(house, outside) == [("presence", "unsubscribe", FRIEND)]
    assert "message from alice@example.com to romeo@else.example/garden refused" in caplog.text
    await give(house, "alice", "")
    alice.send(f"<message to='{ROMEO}' type='chat'><body>x</body></message>")
    await alice.sync()
    assert await gone_out(house, outside) == [("message", "chat", ROMEO)]


async def test_nothing_comes_in_as_if_nobody_were_there(town: Town, caplog: Any) -> None:
    house, outside = town
    alice = await house.online("alice", "a")
    await give(house, "alice", "inner")
    for text in (
        f"<message from='{ROMEO}' to='{ALICE}' type='chat'><body>x</body></message>",
        f"<message from='{ROMEO}' to='{ALICE}/a' type='unavailable'><body>x</body></message>",
        f"<message from='{ROMEO}' to='{ALICE}/a' type='error'><body>x</body></message>",
        f"<iq from='{ROMEO}' to='{ALICE}' type='get' id='1'><query xmlns='{ns.DISCO_INFO}'/></iq>",
        f"<presence from='{FRIEND}' to='{ALICE}' type='subscribe'/>",
        f"<presence from='{ROMEO}' to='{ALICE}'/>",
    ):
        come(house, text)
    refused = ("message", "error", ROMEO)
    assert await gone_out(house, outside) == [refused, refused, ("iq", "error", ROMEO)]
    await alice.quiet()
    assert "refused: the recipient's policy has no other domains" in caplog.text
    come(house, f"<message from='{ROMEO}' to='{BOB}' type='chat' id='1'><body>x</body></message>")
    assert await gone_out(house, outside) == []


async def test_programs_are_woken_all_the_same(town: Town) -> None:
    house, outside = town
    alice, bob = await house.client("alice").connect(), await house.client("bob").connect()
    await give(house, "alice", "inner")
    await alice.request(f"<enable xmlns='{ns.PUSH}' jid='push.else.example' node='x'/>", kind="set")
    await alice.close()
    bob.send(f"<message to='{ALICE}' type='chat'><body>wake up</body></message>")
    woken = await asyncio.wait_for(outside.sent.get(), 10)
    assert (woken.get("from"), woken.get("to"), woken.get("type")) == (ALICE, "push.else.example", "set")
    refusal = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
    come(house, f"<iq from='push.else.example' to='{ALICE}' type='error' id='{woken.get('id')}'>{refusal}</iq>")
    await gone_out(house, outside)
    assert not house.service._parts.push._asked  # the answer got to who had asked


@pytest.mark.parametrize("policy", ["inner", "shy"])
@pytest.mark.parametrize(
    "text",
    [
        *(f"<message from='{ROMEO}' to='WHO' id='1' type='{kind}'><body>x</body></message>"
          for kind in ("chat", "normal", "groupchat", "headline", "error", "odd")),
        *(f"<presence from='{ROMEO}' to='WHO' id='1' type='{kind}'/>"
          for kind in ("probe", "subscribe", "subscribed", "unsubscribe", "unavailable", "error")),
        *(f"<iq from='{ROMEO}' to='WHO' id='1' type='{kind}'><ping xmlns='{ns.PING}'/></iq>"
          for kind in ("get", "set", "result", "error")),
    ],
)  # fmt: skip
async def test_who_asks_hears_the_same_of_the_person_and_of_nobody(town: Town, policy: str, text: str) -> None:
    house, outside = town
    await give(house, "alice", policy)
    heard = []
    for who in (ALICE, "nobody@example.com"):
        come(house, text.replace("WHO", who))
        come(house, f"<iq from='x@probe.example' to='{who}' type='get' id='end'><ping xmlns='{ns.PING}'/></iq>")
        found = []
        while (one := await asyncio.wait_for(outside.sent.get(), 10)).get("id") != "end":
            found.append(one.to_xml().replace(who, "WHO"))
        heard.append(found)
    assert heard[0] == heard[1]


async def test_contacts_elsewhere_see_the_person_leave_and_come_back(town: Town) -> None:
    house, outside = town
    alice = await befriended(house, outside)
    await give(house, "alice", "inner")
    left = await alice.receive()
    assert (left.get("from"), left.get("type")) == (FRIEND, "unavailable")
    assert await gone_out(house, outside) == [("presence", "unavailable", FRIEND)]
    alice.send("<presence><show>away</show></presence>")
    await alice.sync()
    while not alice.inbox.empty():
        assert alice.inbox.get_nowait().get("from") == alice.jid
    assert await gone_out(house, outside) == []
    await give(house, "alice", "open")
    assert await gone_out(house, outside) == [("presence", None, FRIEND), ("presence", "probe", FRIEND)]


async def test_strangers_are_kept_away_and_friends_are_not(town: Town) -> None:
    house, outside = town
    alice = await befriended(house, outside)
    await give(house, "alice", "shy")
    come(house, f"<message from='{ROMEO}' to='{ALICE}' type='chat'><body>friend</body></message>")
    assert child(await alice.receive(), "body").text == "friend"
    for who in ("m@else.example", "n@third.example"):
        come(house, f"<message from='{who}/x' to='{ALICE}' type='chat'><body>spam</body></message>")
        come(house, f"<presence from='{who}' to='{ALICE}' type='subscribe'/>")
    assert sorted(to or "" for _, _, to in await gone_out(house, outside)) == ["m@else.example/x", "n@third.example/x"]
    alice.send("<message to='n@third.example' type='chat'><body>hello</body></message>")
    await alice.sync()
    assert await gone_out(house, outside) == [("message", "chat", "n@third.example")]
    come(house, f"<message from='n@third.example/x' to='{ALICE}' type='chat'><body>answer</body></message>")
    assert child(await alice.receive(), "body").text == "answer"
    await alice.quiet()


async def test_a_domain_without_others_and_somebody_who_has_them(new_town: Any) -> None:
    house, outside = await new_town(federation=False, policies={"open": {"federation": True}})
    servers = house.service._parts.plane.servers
    assert not servers.open("example.com")
    alice, bob = await house.online("alice"), await house.online("bob")
    await give(house, "alice", "open")
    for client in (alice, bob):
        client.send(f"<message to='{ROMEO}' type='chat' id='1'><body>x</body></message>")
    assert condition(await bob.receive()) == "forbidden"
    assert await gone_out(house, outside) == [("message", "chat", ROMEO)]
    come(house, f"<message from='{ROMEO}' to='{ALICE}' type='chat'><body>x</body></message>")
    come(house, f"<message from='{ROMEO}' to='{BOB}' type='chat'><body>x</body></message>")
    assert (await alice.receive()).get("from") == ROMEO
    assert await gone_out(house, outside) == [("message", "error", ROMEO)]
    await bob.quiet()


async def test_only_those_whom_the_domain_has_otherwise_are_looked_at(town: Town) -> None:
    house, _ = town
    plane = house.service._parts.plane
    alice, bob = await house.online("alice"), await house.online("bob")
    sids = {name: next(s.sid for s in house.service._parts.accounts.available(name)) for name in (ALICE, BOB)}
    assert plane._tapped == {}
    await give(house, "alice", "shy")
    assert set(plane._tapped) == {sids[ALICE]}
    for sender, to in ((alice, bob), (bob, alice)):
        sender.send(f"<message to='{to.jid}' type='chat'><body>still here</body></message>")
        assert child(await to.receive(), "body").text == "still here"
    await give(house, "alice", "")
    assert plane._tapped == {}
