"""Work that goes on while rooms do other things, so that the service can wait for it when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Tasks:
    """Everything that is under way."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Begins something that handles its own errors."""
        task = asyncio.create_task(work, name="chat:rooms")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def settled(self) -> None:
        """Returns when nothing is under way."""
        while self._running:
            await asyncio.wait(tuple(self._running))
