"""The directory on several nodes of one database: nobody signs in with a password that another node has replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moim import directory, settings
from moim.bus import Bus, Hub
from moim.model import Address
from moim.store import Store

ALICE = Address("alice", "example.com")
Users = Any


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def pair(site: settings.Site, store: Store, hub: Hub) -> tuple[Users, Users]:
    made = [
        directory.Service(site, store, Bus(hub), credential=lambda _: Path())  # type: ignore[arg-type,return-value]
        for _ in range(2)
    ]
    return made[0].users, made[1].users


async def test_a_new_password_counts_on_every_node(pair: tuple[Users, Users]) -> None:
    here, there = pair
    await here.add(ALICE, "correct horse")
    assert await there.verify_password("alice@example.com", "correct horse")
    first = await there.scram("alice@example.com", "SCRAM-SHA-256")
    assert there.known_scram("alice@example.com", "SCRAM-SHA-256") == first
    await here.set_password(ALICE, "battery staple")
    assert there.known_scram("alice@example.com", "SCRAM-SHA-256") is None
    assert not await there.verify_password("alice@example.com", "correct horse")
    assert await there.scram("alice@example.com", "SCRAM-SHA-256") != first


async def test_what_the_bus_did_not_tell_is_read_from_the_database(pair: tuple[Users, Users], hub: Hub) -> None:
    here, there = pair
    await here.add(ALICE, "correct horse")
    first = await there.scram("alice@example.com", "SCRAM-SHA-256")
    await hub.cut()
    await here.set_password(ALICE, "battery staple")
    assert not await there.verify_password("alice@example.com", "correct horse")
    assert await there.scram("alice@example.com", "SCRAM-SHA-256") != first
    assert (
        there.known_scram("alice@example.com", "SCRAM-SHA-256") is None
    )  # nothing is remembered while nobody would tell
    await hub.heal()
    assert await there.verify_password("alice@example.com", "battery staple")
    assert there.known_scram("alice@example.com", "SCRAM-SHA-256") is not None


async def test_nodes_that_others_write_beside_ask_the_database_for_nobodies(pair: tuple[Users, Users]) -> None:
    here, there = pair
    for users in pair:
        await users.read_ahead()
    await here.add(ALICE, "correct horse")
    assert not there.nobody("nobody@example.com")
    assert not there.nobody("alice@example.com")
