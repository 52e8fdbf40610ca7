"""The service of rooms for tests: an archive in memory, and everybody outside, whose stanzas are put in by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from moim.chat.audience import Audience
from moim.chat.rooms import Rooms, RoomSettings, Share
from moim.chat.rooms.history import Tombstone
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.store import Store
from room_machine import element, form

HOST = "rooms.x.test"
HALL = f"hall@{HOST}"
MUC = f"<x xmlns='{ns.MUC}'/>"
OWNER, FAR, FARTHER = "owner@x.test/1", "far@y.test/1", "farther@z.test/1"


class Said:
    """An archived message."""

    def __init__(self, message: Element, author: Jid) -> None:
        self.message, self.author = message, author

    @property
    def occupant(self) -> str:
        mark = self.message.find("occupant-id", ns.OCCUPANT_ID)
        return (mark.get("id") or "") if mark is not None else ""


class Archive:
    """An archive in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Said]] = {}
        self.number = 1000
        self.asked: list[tuple[str, Jid, bool]] = []

    def next_id(self, room: str) -> str:
        self.number += 1
        return str(self.number)

    def say(
        self,
        room: str,
        message: Element,
        author: Jid,
        identifier: str,
        *,
        then: Callable[[], None] = lambda: None,
        failed: Callable[[StanzaError], None] = lambda _: None,
    ) -> None:
        self.kept.setdefault(room, {})[identifier] = Said(message, author)

    async def query(self, room: str, payload: Element, asker: Jid, *, real: bool) -> tuple[Sequence[Element], Element]:
        self.asked.append((room, asker, real))
        found = [said.message.with_attrs({"to": str(asker)}) for said in self.kept.get(room, {}).values()]
        return found, Element("fin", ns.ARCHIVE, {"complete": "true"})

    async def metadata(self, room: str) -> Element:
        return Element("metadata", ns.ARCHIVE)

    def fields(self) -> Element:
        return Element("query", ns.ARCHIVE)

    async def find(self, room: str, identifier: str) -> Said | None:
        return self.kept.get(room, {}).get(identifier)

    async def bury(self, room: str, identifier: str, marks: Sequence[Element] = (), *, retraction: str = "") -> bool:
        said = await self.find(room, identifier)
        if said is None:
            return False
        mark = Element("retracted", ns.RETRACTION, {"id": retraction}, tuple(marks))
        buried = Tombstone(identifier, mark).apply(said.message)
        if buried is not None:
            said.message = buried
        return buried is not None

    async def remove(self, room: str) -> None:
        self.kept.pop(room, None)


class World:
    """A service, and everybody outside. ``lost`` are domains that cannot be reached: their errors come at once."""

    def __init__(self, store: Store, **options: Any) -> None:
        self.archive = Archive()
        self.sent: list[tuple[str, Element]] = []
        self.fans = 0
        self.lost: set[str] = set()
        limits: dict[str, Any] = {
            "host": HOST, "creators": "", "occupants": 600, "history": 10, "rooms": 50,
            "share": Share(50, 1000.0, 10_000), "persistent": True,
        }  # fmt: skip
        self.rooms = Rooms(
            RoomSettings(**(limits | options)),
            store=store,
            deliver=self.deliver,
            fan_out=self.fan_out,
            archive=self.archive,
        )

    def deliver(self, batch: Sequence[tuple[Jid, Element]]) -> None:
        for to, stanza in batch:
            assert stanza.get("to") == str(to)
            self.sent.append((str(to), stanza))
            if to.domain in self.lost and stanza.get("type") not in ("error", "result"):
                missing = Element("remote-server-not-found", ns.STANZA_ERRORS)
                error = Element("error", ns.CLIENT, {"type": "cancel"}, (missing,))
                back = {"type": "error", "from": str(to), "to": stanza.get("from"), "id": stanza.get("id")}
                self.rooms.send(stanza.with_attrs(back).with_children((error,)))

    def fan_out(self, stanza: Element, audience: Audience, skip: Collection[Jid]) -> None:
        assert stanza.get("to") is None
        self.fans += 1
        _, others = audience.reach(0, lambda jid: None, skip)
        self.deliver([(jid, stanza.with_attrs({"to": str(jid)})) for jid in others])

    def put(self, sender: str, text: str) -> None:
        self.rooms.send(element(text).with_attrs({"from": sender}))

    def take(self, to: str) -> list[Element]:
        """What somebody got since the last time."""
        found = [stanza for who, stanza in self.sent if who == to]
        self.sent = [(who, stanza) for who, stanza in self.sent if who != to]
        return found

    def enter(self, who: str, nick: str, room: str = HALL) -> list[Element]:
        self.put(who, f"<presence to='{room}/{nick}'>{MUC}</presence>")
        return self.take(who)

    async def ask(self, who: str, payload: str, *, kind: str = "get", to: str = HALL) -> Element:
        """Sends a request, and gives its answer."""
        self.put(who, f"<iq type='{kind}' id='q' to='{to}'>{payload}</iq>")
        async with asyncio.timeout(30):
            while True:
                for place, (receiver, stanza) in enumerate(self.sent):
                    if receiver == who and stanza.name == "iq" and stanza.get("id") == "q":
                        del self.sent[place]
                        return stanza
                await asyncio.sleep(0.005)

    async def open(self, owner: str, nick: str, **fields: str) -> None:
        """Makes the hall, and opens it."""
        self.enter(owner, nick)
        filled = form(ns.MUC_CONFIG, **{f"muc__roomconfig_{key}": value for key, value in fields.items()})
        answer = await self.ask(owner, f"<query xmlns='{ns.MUC_OWNER}'>{filled}</query>", kind="set")
        assert answer.get("type") == "result", answer.to_xml()
        self.sent.clear()


NewWorld = Callable[..., World]


def condition(stanza: Element) -> str:
    error = stanza.find("error")
    assert error is not None, stanza.to_xml()
    return error.elements()[0].name
