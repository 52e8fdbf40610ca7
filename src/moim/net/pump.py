"""Brings a plane engine's events into asyncio: one descriptor to watch, whole batches to a handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

Event = TypeVar("Event")
Event_co = TypeVar("Event_co", covariant=True)

_BATCH = 4096
_log = logging.getLogger("moim.net.pump")


class Engine(Protocol[Event_co]):
    """What every engine of ``moim._native`` has."""

    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""
        ...

    def drain(self, limit: int) -> Sequence[Event_co]:
        """Takes up to ``limit`` events, oldest first."""
        ...


class Pump(Generic[Event]):
    """Calls ``handle`` with each batch of an engine's events, in the running loop."""

    def __init__(self, engine: Engine[Event], handle: Callable[[Sequence[Event]], None]) -> None:
        self._engine = engine
        self._handle = handle
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins to watch the engine; call inside the event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._engine.fileno(), self._ready)

    def stop(self) -> None:
        """Stops watching; events that wait stay in the engine."""
        if self._loop is not None:
            self._loop.remove_reader(self._engine.fileno())
            self._loop = None

    def _ready(self) -> None:
        batch = self._engine.drain(_BATCH)
        if not batch:
            return
        try:
            self._handle(batch)
        except Exception:
            _log.exception("a batch of %d events was not handled to its end", len(batch))
