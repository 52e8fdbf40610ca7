"""Byte streams and the pipe between two: half-close, idle, broken ends, and connecting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moim.errors import PeerTimeout, PeerUnreachable
from moim.net.streams import Relayed, SocketStream, Target, connect, relay


class Pair:
    """Two connected streams: ``near`` for the pipe, ``far`` for the test."""

    def __init__(self, near: SocketStream, far: SocketStream) -> None:
        self.near, self.far = near, far


class Wire:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrived: asyncio.Queue[SocketStream] = asyncio.Queue()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._arrived.put_nowait(SocketStream(reader, writer, ("", 0)))

        self._server = await asyncio.start_unix_server(accept, str(self._path))

    async def pair(self) -> Pair:
        far = await connect(Target(path=self._path), timeout=5)
        return Pair(await self._arrived.get(), far)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    wire = Wire(tmp_path / "wire")
    await wire.start()
    yield wire
    wire.stop()


async def _piped(wire: Wire, idle_s: float = 30, half_closed_s: float = 30) -> tuple[Pair, Pair, asyncio.Task[Relayed]]:
    left, right = await wire.pair(), await wire.pair()
    task = asyncio.create_task(relay(left.near, right.near, idle_s=idle_s, half_closed_s=half_closed_s))
    return left, right, task


async def test_each_half_ends_by_itself(wire: Wire) -> None:
    left, right, task = await _piped(wire)
    left.far.write(b"question")
    assert left.far.write_eof()
    assert await right.far.reader.read() == b"question"
    right.far.write(b"answer")
    right.far.close()
    assert await left.far.reader.read() == b"answer"
    assert await task == Relayed(8, 6, "closed")


async def test_a_quiet_pipe_ends(wire: Wire) -> None:
    left, right, task = await _piped(wire, idle_s=0.05)
    assert (await task).end == "idle"
    assert await left.far.reader.read() == b""
    assert await right.far.reader.read() == b""


async def test_a_half_closed_pipe_does_not_wait_for_ever(wire: Wire) -> None:
    left, _, task = await _piped(wire, half_closed_s=0.05)
    left.far.write_eof()
    assert (await task).end == "idle"


async def test_a_reader_that_is_gone_ends_the_pipe(wire: Wire) -> None:
    left, right, task = await _piped(wire)
    right.far.abort()
    with contextlib.suppress(OSError):
        while not task.done():
            left.far.write(bytes(65536))
            await left.far.drain()
            await asyncio.sleep(0)
    assert (await task).end in ("broken", "closed")


async def test_a_cancelled_pipe_closes_both_ends(wire: Wire) -> None:
    left, right, task = await _piped(wire)
    left.far.write(b"x")
    assert await right.far.reader.readexactly(1) == b"x"
    task.cancel()
    assert await left.far.reader.read() == b""
    assert await right.far.reader.read() == b""


async def test_nobody_at_the_target_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(PeerUnreachable, match="nobody"):
        await connect(Target(path=tmp_path / "nobody"), timeout=5)
    with pytest.raises(PeerUnreachable, match=r"127\.0\.0\.1:1"):
        await connect(Target(host="127.0.0.1", port=1), timeout=5)


async def test_a_target_that_does_not_answer_times_out(tmp_path: Path) -> None:
    with pytest.raises((PeerTimeout, PeerUnreachable)):
        await connect(Target(host="127.0.0.1", port=1), timeout=0)
