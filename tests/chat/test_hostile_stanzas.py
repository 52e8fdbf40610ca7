"""Whatever people, other domains, occupants and strangers send: an answer, no exception, nobody else's name.
Whatever another node says: what it says later is heard.

This is the short form, the same each time. ``make fuzz`` goes on for as long as one likes; what it finds is kept in
``tests/hostile/corpus.xml``, or as a test of its own beside what it broke.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hostile.__main__ import one
from hostile.faces import Faces
from hostile.grammar import examples
from hostile.neighbour import Neighbour
from hostile.vocabulary import all_words
from hostile.world import FAR, World
from moim.chat.cluster import codec
from moim.proto.xmpp import Element, ns

TARGETS = (None, "alice@chat.test", "chat.test", "rooms.chat.test", "stage@rooms.chat.test", "upload.chat.test")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A service with people in it, and no randomness."""
    async with World(tmp_path / "site", "short") as made:
        yield made


def _request(kind: str, space: str, name: str, to: str | None) -> Element:
    attrs = {"type": kind, "id": "f0", **({} if to is None else {"to": to})}
    return Element("iq", ns.CLIENT, attrs, (Element(name, space),))


async def test_every_request_with_nothing_in_it(world: World) -> None:
    """The list comes from the features' own tables and from the source, so new requests are in it by themselves."""
    requests = world.grammar.requests
    assert {(kind, space) for kind, space, _ in requests} >= {("set", ns.ROSTER), ("get", ns.MUC_ADMIN)}
    for key in requests:
        for to in TARGETS:
            await world.from_client("alice@chat.test/one", _request(*key, to))
            await world.from_peer(FAR[0], _request(*key, to or "chat.test"))


async def test_examples_and_what_was_found(world: World) -> None:
    for stanza in examples():
        for full in ("bob@chat.test/one", "alice@chat.test/two"):
            if full in world.sids:
                await world.from_client(full, stanza.with_attrs({"id": "f0"}))
        await world.from_peer(FAR[0], stanza.with_attrs({"id": "f0"}))


async def test_bent_stanzas(world: World) -> None:
    for _ in range(250):
        await world.step()


@pytest.fixture
async def neighbour(tmp_path: Path) -> AsyncIterator[Neighbour]:
    """A service that has another node beside it."""
    async with Neighbour(tmp_path / "site", "short") as made:
        yield made


async def test_bent_words_of_another_node(neighbour: Neighbour) -> None:
    for _ in range(100):
        await neighbour.step()


async def test_bent_requests_over_http(tmp_path: Path) -> None:
    async with Faces(tmp_path / "site", "short") as faces:
        for _ in range(250):
            await faces.step()


async def test_what_no_node_says(neighbour: Neighbour) -> None:
    full, shown = "alice@chat.test/theirs", {"presence": "<presence/>", "priority": 1, "interested": True, "at": 2e9}
    moved = {
        "token": "t", "seconds": 60, "received": 1, "acknowledged": 1, "carbons": False, "client": "", "listener": "",
        "address": "", "port": 1, "presence": "", "priority": 1, "interested": True, "directed": [], "at": 2e9,
        "luggage": {},
    }  # fmt: skip
    await neighbour.told([["session"]], [{}], [None], [codec.SESSION, "romeo@far.test/x", shown])
    await neighbour.told(
        [codec.SESSION, full, shown | {"priority": 1000}], [codec.SESSION, full, shown | {"at": 10**400}]
    )
    await neighbour.told([codec.EVENT, "far.test", "n", "{}", ""], [codec.ROSTER, "chat.test", "a"])
    wrongs: list[dict[str, Any]] = [
        *({"priority": 300}, {"received": 2**32}, {"presence": "<"}),
        *({"directed": ["a b@c"]}, {"directed": [[]]}),
    ]
    for wrong in wrongs:
        await neighbour.told([codec.SESSION, full, shown], [codec.MOVED, full, moved | wrong], [codec.SETTLED, full, 0])
        assert full not in neighbour.engine.rows
    await neighbour.told([codec.MOVED, full, moved], [codec.SETTLED, full, 0])
    assert full in neighbour.engine.rows


def test_the_source_is_understood() -> None:
    words = all_words()
    assert ("set", ns.ROSTER, "query") in words.requests
    assert "affiliation" in words.attributes
    assert (ns.MUC, "x") in words.elements


def test_the_long_form_gets_to_its_end() -> None:
    assert one("short", 2) == 6
