"""A service of rooms, with an archive and a store, and nobody there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import databases
from moim.chat import rooms
from room_service import NewWorld, World


@pytest.fixture
async def new_world(tmp_path: Path) -> AsyncIterator[NewWorld]:
    store = databases.opened(tmp_path / "moim.db", [Path(rooms.__file__).parent / "migrations"])
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(store, **options))
        return made[-1]

    yield make
    for world in made:
        await world.rooms.stop()
    databases.removed(store)


@pytest.fixture
async def world(new_world: NewWorld) -> World:
    return new_world()
