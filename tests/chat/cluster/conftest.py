"""Two chat services of one subcluster in one process: one store, and a hub between their buses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from moim.bus import Bus, Hub

Pair = tuple[Any, Any]
NewPair = Callable[..., Awaitable[Pair]]


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
async def new_pair(tmp_path: Path, hub: Hub, house_class: Any, engine: str) -> AsyncIterator[NewPair]:
    """Makes two running services, ``inside`` and ``inside2``; ``options`` are keys of ``[chat]``."""
    made: list[Any] = []

    async def make(**options: Any) -> Pair:
        options = {"default_contacts": False, "lease_seconds": 1} | options
        people = {"alice": "wonder land", "bob": "비밀번호", "carol": "Ünïcode"}
        first = house_class(tmp_path / "one", people=people, bus=Bus(hub), engine=engine, **options)
        second = house_class(tmp_path / "two", people=people, bus=Bus(hub), partner=first, **options)
        for house in (first, second):
            made.append(house)
            await house.service.start()
        return first, second

    yield make
    for house in reversed(made):
        await house.stop()


@pytest.fixture
async def pair(new_pair: NewPair) -> Pair:
    """Two running services with default settings."""
    return await new_pair()
