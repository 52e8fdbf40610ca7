"""Two chat services of one subcluster in one process: one store, and a hub between their buses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from moim.bus import Bus, Hub
from moim.errors import Unavailable

Pair = tuple[Any, Any]
NewPair = Callable[..., Awaitable[Pair]]
NewNode = Callable[..., Awaitable[Any]]

_PEOPLE = {"alice": "wonder land", "bob": "비밀번호", "carol": "Ünïcode"}
_OPTIONS = {"default_contacts": False, "lease_seconds": 1}


async def die(house: Any, hub: Hub) -> None:
    """Ends a node as a kill does: its lease runs out, and it says nothing more."""
    cluster = house.service._cluster
    cluster.membership._task.cancel()
    for task in cluster.links._tasks:
        task.cancel()
    hub.buses.remove(house.bus)
    house.bus._hub = None


async def leave(house: Any, _hub: Hub) -> None:
    """Ends a node in good order."""
    await house.service.stop()


class Waiting:
    """A store whose writes do not come to an end, until it is ``over`` with them."""

    def __init__(self, store: Any) -> None:
        self.read = store.read
        self.reached = asyncio.Event()
        self.over = asyncio.Event()

    async def write(self, _work: Any) -> Any:
        self.reached.set()
        await self.over.wait()
        raise Unavailable("the node is dead")


async def arrived(house: Any) -> None:
    """Returns when what a node said has arrived at the other."""
    (link,) = house.service._cluster.links._links.values()
    while link._pending or link._arrived < link._sent:
        await asyncio.sleep(0.01)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
async def new_first(tmp_path: Path, hub: Hub, house_class: Any, engine: str) -> AsyncIterator[NewNode]:
    """Starts the node ``inside``; ``options`` are keys of ``[chat]``."""
    made: list[Any] = []

    async def make(**options: Any) -> Any:
        made.append(house_class(tmp_path / "one", people=_PEOPLE, bus=Bus(hub), engine=engine, **_OPTIONS | options))
        await made[-1].service.start()
        return made[-1]

    yield make
    for house in made:
        await house.stop()


@pytest.fixture
async def new_second(tmp_path: Path, hub: Hub, house_class: Any, new_first: NewNode) -> AsyncIterator[NewNode]:
    """Starts the node ``inside2`` beside the first, and once more when it died."""
    made: list[Any] = []

    async def make(first: Any, **options: Any) -> Any:
        root = tmp_path / f"two-{len(made)}"
        made.append(house_class(root, people=_PEOPLE, bus=Bus(hub), partner=first, **_OPTIONS | options))
        await made[-1].service.start()
        return made[-1]

    yield make
    for house in reversed(made):
        await house.stop()


@pytest.fixture
def new_pair(new_first: NewNode, new_second: NewNode) -> NewPair:
    """Makes two running services, ``inside`` and ``inside2``."""

    async def make(**options: Any) -> Pair:
        first = await new_first(**options)
        return first, await new_second(first, **options)

    return make


@pytest.fixture
async def pair(new_pair: NewPair) -> Pair:
    """Two running services with default settings."""
    return await new_pair()
