"""The pump: whole batches in order, a failing handler does not stop it."""

import asyncio
import os
from collections.abc import Sequence

from moim.net.pump import Pump


class FakeEngine:
    """An engine over an eventfd, as the native ones are."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._events: list[int] = []

    def put(self, *events: int) -> None:
        self._events += events
        os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def drain(self, limit: int) -> list[int]:
        os.eventfd_read(self._fd)
        batch, self._events = self._events[:limit], self._events[limit:]
        return batch


async def test_batches_arrive_in_order_and_failures_are_survived() -> None:
    engine, enough = FakeEngine(), asyncio.Event()
    seen: list[int] = []

    def handle(batch: Sequence[int]) -> None:
        seen.extend(batch)
        if 1 in batch:
            raise RuntimeError
        if 4 in batch:
            enough.set()

    pump = Pump(engine, handle)
    pump.start()
    engine.put(1, 2)
    await asyncio.sleep(0)
    while seen != [1, 2]:
        await asyncio.sleep(0)
    engine.put(3, 4)
    await enough.wait()
    pump.stop()
    assert seen == [1, 2, 3, 4]
