"""Whatever people, other domains, occupants and strangers send: an answer, no exception, nobody else's name.

This is the short form, the same each time. ``make fuzz`` goes on for as long as one likes; what it finds is kept in
``tests/hostile/corpus.xml``, or as a test of its own beside what it broke.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hostile.grammar import examples
from hostile.vocabulary import all_words
from hostile.world import FAR, World
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


def test_the_source_is_understood() -> None:
    words = all_words()
    assert ("set", ns.ROSTER, "query") in words.requests
    assert "affiliation" in words.attributes
    assert (ns.MUC, "x") in words.elements
