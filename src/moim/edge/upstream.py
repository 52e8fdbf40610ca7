"""HTTP connections from the edge to named targets inside: opened through the tunnel, kept for a while, used again."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable

import h11

from moim.edge.requests import MAX_HEAD
from moim.net.streams import CHUNK, ByteStream

_KEPT = 16
_KEEP_S = 15.0

OpenTarget = Callable[[str, tuple[str, int]], Awaitable[ByteStream]]
"""Opens a stream to a named target on behalf of a client (address, port). Raises NotFound or Unavailable."""


class Upstream:
    """One HTTP/1.1 connection to a target; ``reused`` says that it carried a request before."""

    def __init__(self, target: str, stream: ByteStream) -> None:
        self.target = target
        self.stream = stream
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self.reused = False
        self._watch: asyncio.Task[None] | None = None

    async def send(self, event: h11.Event) -> None:
        """Sends a part of the request. Raises OSError when the stream is gone."""
        data = self.http.send(event)
        if data:
            self.stream.write(data)
            await self.stream.drain()

    async def receive(self, patience_s: float) -> h11.Event | type[h11.PAUSED]:
        """The next part of the response. Raises TimeoutError, OSError, h11.RemoteProtocolError."""
        while (event := self.http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(patience_s):
                self.http.receive_data(await self.stream.reader.read(CHUNK))
        return event  # type: ignore[return-value]

    def idle(self, gone: Callable[[Upstream], None]) -> None:
        """Watches the connection while nobody uses it: whatever arrives then, end or bytes, makes it useless."""

        async def watch() -> None:
            try:
                async with asyncio.timeout(_KEEP_S):
                    await self.stream.reader.read(1)
            except (OSError, TimeoutError):
                pass
            self._watch = None
            gone(self)

        self._watch = asyncio.get_running_loop().create_task(watch(), name=f"upstream:{self.target}")

    async def wake(self) -> bool:
        """Ends the watch; False when the connection ended meanwhile."""
        watch, self._watch = self._watch, None
        if watch is None:
            return False
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        self.reused = True
        return watch.cancelled()

    def close(self) -> None:
        """Ends the connection."""
        if self._watch is not None:
            self._watch.cancel()
        self.stream.abort()


class Pool:
    """Idle connections by target, a few each."""

    def __init__(self, open_target: OpenTarget) -> None:
        self._open = open_target
        self._idle: defaultdict[str, deque[Upstream]] = defaultdict(deque)

    async def take(self, target: str, client: tuple[str, int], *, fresh: bool) -> Upstream:
        """A connection to ``target``; a new one when ``fresh`` is asked for or none is idle."""
        idle = self._idle[target]
        while idle and not fresh:
            kept = idle.pop()
            if await kept.wake():
                return kept
            kept.close()
        return Upstream(target, await self._open(target, client))

    def give(self, upstream: Upstream) -> None:
        """Takes back a connection after a complete exchange, or closes it when it cannot carry another."""
        http = upstream.http
        idle = self._idle[upstream.target]
        if not (http.our_state is h11.DONE and http.their_state is h11.DONE) or len(idle) >= _KEPT:
            upstream.close()
            return
        http.start_next_cycle()
        if http.trailing_data[0]:
            upstream.close()  # more than one answer to one request: never to be attributed to another client
            return
        idle.append(upstream)
        upstream.idle(self._drop)

    def _drop(self, upstream: Upstream) -> None:
        upstream.close()
        idle = self._idle[upstream.target]
        if upstream in idle:
            idle.remove(upstream)

    def clear(self) -> None:
        """Closes every idle connection: the tunnel went, or the rules changed."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
