"""A node beside a service's own: it says what no node says, and the service goes on.

The neighbour is played over the bus, with a real ``Link`` so that it keeps being heard. Nodes trust each other, so what
it says may end sessions or bring messages; what must hold is that everything said later is still worked off, and
that nothing but a word in the log comes of what cannot be understood.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from hostile.foreign import bent
from hostile.grammar import JIDS, TEXTS
from hostile.world import PRESENT, World
from moim.bus import Bus, Hub
from moim.chat.cluster import codec, tables
from moim.chat.cluster.link import Began, Item, Link, read
from moim.proto.xmpp import Element, ns

NAME = "inside2"
_FENCE = "fence@chat.test/x"
_PATIENCE = 20.0


class Neighbour(World):
    """A world whose service has another node beside it."""

    def __init__(self, root: Path, seed: str) -> None:
        hub = Hub()
        super().__init__(root, seed, bus=Bus(hub), lease_seconds=120)
        self._wire = Bus(hub)
        self._link = Link(NAME, "inside", 1)
        self._fences = 0
        self._fence = asyncio.Event()
        self._now = 0.0

    async def __aenter__(self) -> Self:
        row = {"node": NAME, "epoch": 1, "expires_at": 1e12}
        await self.store.write(lambda connection: connection.execute(sa.insert(tables.nodes).values(row)))
        self._wire.listen(f"chat.{NAME}", self._told)
        return await super().__aenter__()

    # --- the link -----------------------------------------------------------------------------------------------------

    def _told(self, body: bytes) -> None:
        for event in self._link.receive(read(body), self._now):
            if isinstance(event, Began):
                self._link.send([codec.LIVE])
                continue
            for item in event.items:
                self._told_item(item)
            self._link.done(event)
        self._flush()

    def _told_item(self, item: Item) -> None:
        match item[0]:
            case codec.ECHO if codec.flag(item, 2):
                if item[1] == f"{_FENCE}{self._fences}":
                    self._fence.set()
            case codec.ECHO:
                self._link.send([codec.ECHO, item[1], True])
            case codec.WANT if self.rng.random() < 0.8:
                self._link.send([codec.KEPT, item[1], None])

    def _flush(self) -> None:
        self._link.flush(self._now)
        while self._link.output:
            self._wire.send("chat.inside", self._link.output.popleft())

    async def worked_off(self) -> None:
        """Returns when everything said before was worked off. Raises AssertionError with what must not come of it."""
        await self._fenced()
        await self.settle()
        self._judge()

    async def _fenced(self) -> None:
        self._fences += 1
        self._fence.clear()
        told = False
        for _ in range(int(_PATIENCE / 0.1)):
            told = told or self._link.send([codec.ECHO, f"{_FENCE}{self._fences}"])
            self._link.tick(self._now)
            self._flush()
            try:
                await asyncio.wait_for(self._fence.wait(), 0.1)
            except TimeoutError:
                self._now += 0.1
                self._begin_anew()
                told = told and self._link.begun
            else:
                return
        self.findings.all.append("the node does not work off what another node says")

    def _begin_anew(self) -> None:
        """Takes another life, when what it said has made an end of the last one."""
        assert self.service._cluster is not None
        other = self.service._cluster.links._links[NAME]
        if other.theirs != self._link.mine:
            self._link = Link(NAME, "inside", max(other.theirs, other._buried, self._link.mine) + 1)

    async def told(self, *items: Item) -> None:
        """The neighbour says these."""
        self._tell(items)
        await self.worked_off()

    def _tell(self, items: Sequence[Item]) -> None:
        self.last = "the neighbour says " + json.dumps(items)
        for item in items:
            with contextlib.suppress(UnicodeEncodeError):
                self._link.send(item)
        self._flush()

    # --- what it says -------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """The neighbour says something, or a client does that the neighbour may hear of."""
        choice = self.rng.random()
        if choice < 0.2 and self.sids:
            full = self.rng.choice(sorted(self.sids))
            stanza = self._spoken()
            self.last = f"{full} sends {stanza.to_xml()}"
            self.say(self.sids[full], stanza)
        elif choice < 0.3:
            self._rubbish()
        else:
            self._tell(self._items())
        await self.worked_off()
        if len(self.sids) < len(PRESENT) - 1:
            await self.sign_in(*self.rng.choice(PRESENT))
            self._judge()

    def _spoken(self) -> Element:
        if self.rng.random() < 0.3:
            return Element("enable", ns.SM, {"resume": "true"})
        stanza = self.grammar.stanza()
        return stanza.with_attrs(
            {"to": self.rng.choice((stanza.get("to"), self._jid(), self._jid().partition("/")[0]))}
        )

    def _rubbish(self) -> None:
        """Something that is no message, or one of another life."""
        head = {"v": 1, "from": NAME, "epoch": self._link.mine, "to": self._link.theirs, "got": 0, "done": 0}
        document = bent(head | {"besides": [1], "seq": 1, "items": self._items()}, self.rng)
        data = bytearray(json.dumps(document).encode())
        if self.rng.random() < 0.3:
            data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        self.last = f"the neighbour sends {bytes(data)!r}"
        self._wire.send("chat.inside", bytes(data))

    def _jid(self) -> str:
        sessions = sorted({*self.sids, *self.engine.rows, "alice@chat.test/theirs", "bob@chat.test/theirs"})
        return self.rng.choice((*sessions, *sessions, self.rng.choice(JIDS)))

    def _items(self) -> list[Item]:
        """What a node says, in the order in which it says it, with something wrong here and there."""
        rng, jid = self.rng, self._jid()
        bare = jid.partition("/")[0]
        xml, other = self.grammar.stanza().to_xml(""), self.grammar.stanza().to_xml("")
        presence = Element("presence", ns.CLIENT, {"from": jid}, ()).to_xml("")
        state = {
            "presence": rng.choice((presence, None)), "priority": 1, "interested": True, "at": 2e9, "moved": False,
        }  # fmt: skip
        token, wanted = rng.choice(self.engine.tokens) if self.engine.tokens else ("x", jid)
        goes_on = {
            "token": "t" * 20, "seconds": 60, "received": 1, "acknowledged": 2, "carbons": True, "client": "Raw",
            "listener": "xmpp-client", "address": "192.0.2.1", "port": 4000, "presence": presence, "priority": 1,
            "interested": True, "directed": ["bob@chat.test"], "at": 2e9,
            "luggage": {feature.name: rng.choice((None, [], {}, "x", 1)) for feature in self._features()},
        }  # fmt: skip
        said: list[list[Item]] = [
            [[codec.SESSION, jid, state]],
            [[codec.SESSION, jid, state], [codec.GONE, jid]],
            [[codec.LIVE]],
            [[codec.DELIVER, xml, [jid, self._jid()], rng.random() < 0.5, rng.random() < 0.5]],
            [[codec.FAN_OUT, xml, [jid, self._jid()]]],
            [[codec.COPY, xml]],
            [[codec.END, jid, rng.choice(("", other))]],
            [[codec.COMPONENT, xml]],
            [[codec.ROSTER, bare, "bob@chat.test"]],
            [[codec.BLOCKED, bare]],
            [[codec.ARCHIVED, bare]],
            [[codec.EVENT, bare, rng.choice(TEXTS), "{}", rng.choice(("", xml))]],
            [[codec.FREE, "rooms"]],
            [[codec.BYE]],
            [[codec.WANT, 1, wanted.partition("/")[0], token]],
            [[codec.KEPT, rng.randrange(5), rng.choice((None, 3))]],
            [
                [codec.SESSION, jid, state],
                [codec.MOVED, jid, goes_on],
                [codec.SENT, jid, [[xml, True], [other, False]]],
                [codec.DELIVER, other, [jid], False],
                [codec.SETTLED, jid, rng.randrange(5)],
            ],
        ]
        items = rng.choice((*said, said[-1]))
        for _ in range(rng.choice((0, 1, 1, 2))):
            items = bent(items, rng)
        items = items if isinstance(items, list) else [items]
        return [item if isinstance(item, list) and item else [item] for item in items]

    def _features(self) -> list[Any]:
        assert self.service._parts is not None
        return [feature for feature in self.service._parts.features if feature.luggage is not None]

    # --- what need not hold -------------------------------------------------------------------------------------------

    def _attribute(self, element: Element, text: str) -> None:
        """A node is believed whose stanzas it brings."""
