"""Clients that come back to another node than the one with their session, and what goes there with it (XEP-0198)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moim.bus import Hub
from moim.chat.cluster import handing_over
from moim.proto.xmpp import Element, ns
from raw_xmpp import RawXmpp

Pair = tuple[Any, Any]

PASSWORDS = {"alice": "wonder land", "bob": "비밀번호", "carol": "Ünïcode"}
PROGRAM = "<user-agent id='{}'><software>Raw</software></user-agent>"
ROOM = "tea@rooms.chat.test"


class Phone:
    """A client with stream management that counts what it gets; its connections come and go."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.raw: Any = None
        self.full = self.token = ""
        self.handled = 0

    async def sign_in(self, house: Any, *, wishes: str = "", presence: str = "<presence/>") -> Phone:
        """Binds a resource of its own and becomes available."""
        self.raw = await RawXmpp.open(house.place("xmpp-client-tls"), "chat.test", house.tls)
        bind = f"<bind xmlns='{ns.BIND2}'><tag>Raw</tag><enable xmlns='{ns.SM}' resume='true'/>{wishes}</bind>"
        success = await self.raw.scram(self.name, PASSWORDS[self.name], bind)
        self.full = success.find("authorization-identifier").text
        self.token = success.find("bound", ns.BIND2).find("enabled", ns.SM).get("id")
        await self.request(f"<query xmlns='{ns.ROSTER}'/>")
        self.say(presence)
        await self.sync()
        return self

    async def resume(self, house: Any, *, handled: int | None = None) -> Element:
        """Comes back to a node; what that answers."""
        self.raw = await RawXmpp.open(house.place("xmpp-client-tls"), "chat.test", house.tls)
        count = self.handled if handled is None else handled
        wish = f"<resume xmlns='{ns.SM}' previd='{self.token}' h='{count}'/>"
        success = await self.raw.scram(self.name, PASSWORDS[self.name], wish)
        answers: list[Element] = [child for child in success.elements() if child.ns == ns.SM]
        return answers[0] if answers else success.elements()[-1]

    async def back(self, house: Any) -> Element:
        """Comes back, and has to be let in."""
        answer = await self.resume(house)
        assert answer.name == "resumed", answer.to_xml()
        return answer

    def say(self, text: str) -> None:
        self.raw.say(text)

    async def stanza(self) -> Element:
        """The next stanza."""
        while True:
            element: Element = await self.raw.element()
            if element.ns != ns.SM:
                self.handled += 1
                return element

    async def request(self, payload: str, kind: str = "get", to: str = "") -> Element:
        target = f" to='{to}'" if to else ""
        self.say(f"<iq type='{kind}' id='asked'{target}>{payload}</iq>")
        while (stanza := await self.stanza()).get("id") != "asked":
            pass
        return stanza

    async def sync(self) -> None:
        await self.request(f"<ping xmlns='{ns.PING}'/>")

    async def text(self) -> str:
        """The next message's."""
        while (stanza := await self.stanza()).name != "message":
            pass
        body = stanza.find("body")
        return body.text if body is not None else stanza.to_xml()

    async def texts(self) -> list[str]:
        """Of every message until the server has answered."""
        self.say(f"<iq type='get' id='last'><ping xmlns='{ns.PING}'/></iq>")
        found = []
        while (stanza := await self.stanza()).get("id") != "last":
            if stanza.name == "message" and (body := stanza.find("body")) is not None:
                found.append(body.text)
        return found

    async def cut(self) -> None:
        await self.raw.close()


async def detached(house: Any, count: int = 1) -> None:
    """Returns when so many sessions wait for their clients at a node."""
    while house.service.stats()["detached"] != count:
        await asyncio.sleep(0.01)


def chat(to: str, text: object, kind: str = "chat") -> str:
    return f"<message to='{to}' type='{kind}'><body>{text}</body></message>"


@pytest.mark.engines
async def test_a_session_goes_on_at_the_other_node(pair: Pair) -> None:
    here, there = pair
    alice = await Phone("alice").sign_in(here)
    near, far = await here.online("bob", "near"), await there.online("bob", "far")
    await alice.cut()
    await detached(here)
    for n in range(30):
        near.send(chat(alice.full, f"near {n}"))
        far.send(chat("alice@chat.test", f"far {n}"))
    for sender in (near, far):
        await sender.sync()
    alice_watches = await here.online("alice", "watcher")
    resumed = await alice.back(there)
    assert resumed.get("h") == "3", "the roster, the presence and the ping"
    got = [await alice.text() for _ in range(60)]
    for name in ("near", "far"):
        assert [text for text in got if text.startswith(name)] == [f"{name} {n}" for n in range(30)]
    await alice_watches.quiet()  # nobody saw it go
    assert (here.service.stats()["detached"], there.service.stats()["detached"]) == (0, 0)
    near.send(chat(alice.full, "after"))
    far.send(chat(alice.full, "after"))
    assert [await alice.text() for _ in range(2)] == ["after", "after"]
    alice.say(chat(near.jid, "back"))
    while (await near.receive()).name != "message":
        pass
    assert await alice.texts() == []


async def test_messages_under_way_while_it_moves_keep_their_order(pair: Pair) -> None:
    here, there = pair
    alice = await Phone("alice").sign_in(here)
    near, far = await here.online("bob", "near"), await there.online("bob", "far")
    where = there
    pace = asyncio.Semaphore(100)

    async def talk(sender: Any, tag: str) -> int:
        number = 0
        while where is not None:
            await pace.acquire()
            sender.send(chat(alice.full, f"{tag} {number}"))
            number += 1
        await sender.sync()
        return number

    talks = [asyncio.create_task(talk(near, "near")), asyncio.create_task(talk(far, "far"))]
    got: list[str] = []
    for _ in range(6):
        for _ in range(60):
            got.append(await alice.text())
            pace.release()
        # Neither side says goodbye: half of the time the old node finds a connection that lives.
        raw = alice.raw
        await alice.back(where)
        await raw.close()
        where = here if where is there else there
    where = None
    for _ in talks:
        pace.release()
    counts = [await task for task in talks]
    while len(got) < sum(counts):
        got.append(await alice.text())
    for tag, number in zip(("near", "far"), counts, strict=True):
        assert [text for text in got if text.startswith(tag)] == [f"{tag} {n}" for n in range(number)]
    assert await alice.texts() == []


@pytest.mark.parametrize("runs_them", [True, False])
async def test_it_stays_in_its_rooms(pair: Pair, runs_them: bool) -> None:
    home, other = pair if runs_them else reversed(pair)
    alice = await Phone("alice").sign_in(home)
    carol = await other.online("carol", "c")
    alice.say(f"<presence to='{ROOM}/Alice'><x xmlns='{ns.MUC}'/></presence>")
    await alice.request(
        f"<query xmlns='{ns.MUC_OWNER}'><x xmlns='{ns.DATA_FORMS}' type='submit'/></query>", "set", ROOM
    )
    carol.send(f"<presence to='{ROOM}/Carol'><x xmlns='{ns.MUC}'/></presence>")
    while (await carol.receive()).get("from") != f"{ROOM}/Carol":
        pass
    await carol.sync()
    while not carol.inbox.empty():
        carol.inbox.get_nowait()
    carol.send(chat(ROOM, "one", "groupchat"))
    await alice.cut()
    await detached(home)
    carol.send(chat(ROOM, "two", "groupchat"))
    await carol.sync()
    await alice.back(other)
    carol.send(chat(ROOM, "three", "groupchat"))
    texts: list[str] = []
    while "three" not in texts:
        texts += [text for text in [await alice.text()] if text in ("one", "two", "three")]
    assert texts == ["one", "two", "three"]
    alice.say(chat(ROOM, "four", "groupchat"))
    seen: list[str] = []
    while len(seen) < 4:
        stanza = await carol.receive()
        assert stanza.name != "presence", "somebody left or came"
        seen.append(stanza.find("body").text)
    assert seen[-1] == "four"
    await alice.cut()


async def test_what_the_features_know_goes_with_it(pair: Pair) -> None:
    here, there = pair
    caps = f"<c xmlns='{ns.CAPS}' hash='sha-1' node='http://x.test' ver='AAAAAAAAAAAAAAAAAAAAAAAAAAA='/>"
    bob, carol = await there.online("bob"), await here.online("carol")
    alice = Phone("alice")
    wishes = f"<enable xmlns='{ns.CARBONS}'/>"
    await alice.sign_in(here, wishes=wishes, presence=f"<presence><priority>3</priority>{caps}</presence>")
    await alice.request(f"<blocklist xmlns='{ns.BLOCKING}'/>")
    alice.say(f"<presence to='{carol.jid}'/>")
    while (await carol.receive()).get("from") != alice.full:
        pass
    # The question of the server comes with the session, and is answered at the other node.
    await alice.cut()
    await detached(here)
    answer = await alice.resume(there, handled=0)
    assert answer.name == "resumed"
    asked = None
    while asked is None:
        stanza = await alice.stanza()
        if stanza.name == "iq" and stanza.get("type") == "get":
            asked = stanza
    node = asked.elements()[0].get("node")
    alice.say(
        f"<iq type='result' id='{asked.get('id')}' to='chat.test'><query xmlns='{ns.DISCO_INFO}' node='{node}'>"
        f"<identity category='client' type='pc'/><feature var='urn:x+notify'/></query></iq>"
    )
    await alice.sync()
    other = await here.online("alice", "other")
    item = "<item id='1'><x xmlns='urn:x'>news</x></item>"
    await other.request(f"<pubsub xmlns='{ns.PUBSUB}'><publish node='urn:x'>{item}</publish></pubsub>", kind="set")
    while "news" not in await alice.text():
        pass
    other.send(chat(bob.jid, "copied"))
    while "copied" not in await alice.text():
        pass
    block = f"<block xmlns='{ns.BLOCKING}'><item jid='eve@chat.test'/></block>"
    await other.request(block, kind="set")
    while "eve@chat.test" not in (await alice.stanza()).to_xml():
        pass
    # Who was told that it is there hears when it goes.
    alice.say("<presence type='unavailable'/>")
    while (gone := await carol.receive()).get("type") != "unavailable":
        pass
    assert gone.get("from") == alice.full


async def test_somebody_else_does_not_get_it(pair: Pair) -> None:
    here, there = pair
    alice = await Phone("alice").sign_in(here)
    await here.online("bob")
    thief = Phone("bob")
    thief.token = alice.token
    answer = await thief.resume(there)
    assert answer.find("item-not-found", ns.STANZA_ERRORS) is not None
    assert answer.get("h") is None
    await alice.sync()


async def test_a_session_that_is_over_at_the_other_node_still_says_what_it_took(new_pair: Any) -> None:
    here, there = await new_pair(resume_seconds=1)
    alice = await Phone("alice").sign_in(here)
    await alice.cut()
    await detached(here)
    await detached(here, 0)
    answer = await alice.resume(there)
    assert (answer.name, answer.get("h")) == ("failed", "3")


async def test_a_count_that_cannot_be_leaves_the_session_where_it_came_to(pair: Pair) -> None:
    here, there = pair
    alice = await Phone("alice").sign_in(here)
    await alice.cut()
    error = await alice.resume(there, handled=77)
    assert error.name == "handled-count-too-high"
    await detached(there)
    await alice.back(there)
    await alice.sync()


async def test_a_node_that_died_has_no_sessions(pair: Pair, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair
    monkeypatch.setattr(handing_over, "_PATIENCE", 0.2)
    alice = await Phone("alice").sign_in(here)
    cluster = here.service._cluster
    cluster.membership._task.cancel()
    for task in cluster.links._tasks:
        task.cancel()
    hub.buses.remove(here.bus)
    for _ in range(2):  # before and after its death is known
        answer = await alice.resume(there)
        assert answer.find("item-not-found", ns.STANZA_ERRORS) is not None
        while there.service._cluster.alive():
            await asyncio.sleep(0.05)


async def test_what_was_not_acknowledged_goes_far(pair: Pair) -> None:
    """More than one message of the bus takes."""
    here, there = pair
    alice = await Phone("alice").sign_in(here)
    bob = await here.online("bob")
    await alice.cut()
    await detached(here)
    for n in range(40):
        bob.send(chat(alice.full, f"{n} " + "<![CDATA[\"'&é]]>" * 1500))
    await bob.sync()
    await alice.back(there)
    assert [(await alice.text()).partition(" ")[0] for _ in range(40)] == [str(n) for n in range(40)]


async def test_a_node_that_stops_gives_its_sessions_to_the_other(pair: Pair) -> None:
    here, there = pair
    alice, carol = await Phone("alice").sign_in(here), await Phone("carol").sign_in(here)
    bob = await there.online("bob", "b")
    await alice.cut()
    await detached(here)
    bob.send(chat(alice.full, "before"))
    bob.send(chat(carol.full, "before"))
    assert await carol.text() == "before"
    await bob.sync()
    stopping = asyncio.create_task(here.service.stop())
    error = await carol.raw.element()
    while error.name != "error":
        error = await carol.raw.element()
    host = error.find("see-other-host", ns.STREAM_ERRORS)
    assert host is not None
    assert host.text.startswith("inside2.")
    await stopping
    bob.send(chat(alice.full, "after"))
    bob.send(chat(carol.full, "after"))
    await bob.sync()
    await carol.back(there)
    assert await carol.texts() == ["after"]
    await alice.back(there)
    assert await alice.texts() == ["before", "after"]
    await bob.quiet()
