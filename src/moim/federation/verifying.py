"""Calling back: whether a key that somebody showed was made by the domain that they say they are (XEP-0220 2.2).

A stranger can make this server call any domain. So each address may ask for so many in a minute, a domain is called by
one stream at a time, and one that did not answer is left alone for a while.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from moim.errors import MoimError, NotFound, PeerTimeout
from moim.federation.connecting import Connector
from moim.federation.stream import Stream
from moim.net.rate import RateLimit
from moim.proto.xmpp import s2s

_CALLS = 64
_WAITING = 512
_ANSWER_SECONDS = 30.0
_PAUSE_SECONDS = 10.0
_PAUSES = 4096
_LINGER_SECONDS = 5.0

Answer = tuple[str, str]
"""``valid``, ``invalid`` or the condition of a stanza error; and a sentence."""


class Verifier:
    """``existing`` gives a stream to the remote domain that is open anyway."""

    def __init__(
        self,
        connector: Connector,
        existing: Callable[[str], Stream | None],
        *,
        per_minute: int,
        clock: Callable[[], float],
    ) -> None:
        self._connector = connector
        self._existing = existing
        self._clock = clock
        self._rate = RateLimit(per_s=per_minute / 60, burst=per_minute)
        self._calls = asyncio.Semaphore(_CALLS)
        self._waiting: dict[tuple[str, str, str], asyncio.Future[Answer]] = {}
        self._streams: dict[tuple[str, str], asyncio.Task[Stream]] = {}
        self._paused: OrderedDict[str, tuple[float, Answer]] = OrderedDict()

    async def verify(self, step: s2s.Verify, address: str) -> Answer:
        """Asks the authoritative server of ``step.remote``; ``address`` is who made us ask."""
        asked = (step.local, step.remote, step.stream_id)
        if not self._rate.take(address, self._clock()) or len(self._waiting) >= _WAITING or asked in self._waiting:
            return "resource-constraint", "too many domains to verify at once"
        until, said = self._paused.get(step.remote, (0.0, ("", "")))
        if self._clock() < until:
            return said
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[asked] = answer
        try:
            async with asyncio.timeout(_ANSWER_SECONDS), self._calls:
                return await self._ask(step, answer)
        except TimeoutError:
            return self._pause(step.remote, "remote-server-timeout", f"{step.remote} did not answer in time")
        except NotFound as error:
            return self._pause(step.remote, "remote-server-not-found", error.message)
        except MoimError as error:
            slow = isinstance(error, PeerTimeout)
            condition = "remote-server-timeout" if slow else "remote-server-not-found"
            return self._pause(step.remote, condition, error.message)
        finally:
            del self._waiting[asked]

    async def _ask(self, step: s2s.Verify, answer: asyncio.Future[Answer]) -> Answer:
        stream = self._existing(step.remote)
        if stream is None or not stream.put_key(step):
            stream = await self._call(step.local, step.remote)
            if not stream.put_key(step):
                raise stream.failure()
        gone = asyncio.ensure_future(_ended(stream))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if not answer.done():
            raise stream.failure()
        return answer.result()

    async def _call(self, local: str, remote: str) -> Stream:
        running = self._streams.get((local, remote))
        if running is None or (running.done() and not _usable(running)):
            running = asyncio.create_task(
                self._connector.connect(local, remote, verify_only=True), name="federation:call-back"
            )
            self._streams[local, remote] = running
            running.add_done_callback(lambda task: self._called(local, remote, task))
        return await asyncio.shield(running)

    def _called(self, local: str, remote: str, task: asyncio.Task[Stream]) -> None:
        if task.cancelled() or task.exception() is not None:
            if self._streams.get((local, remote)) is task:
                del self._streams[local, remote]
            return
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._hang_up, local, remote, task)

    def _hang_up(self, local: str, remote: str, task: asyncio.Task[Stream]) -> None:
        if any(asked[:2] == (local, remote) for asked in self._waiting) and not task.result().over:
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._hang_up, local, remote, task)
            return
        if self._streams.get((local, remote)) is task:
            del self._streams[local, remote]
        if not task.result().over:
            task.result().close("every key is verified")

    def answered(self, step: s2s.Verified) -> None:
        """An authoritative server's word arrived."""
        waiting = self._waiting.get((step.local, step.remote, step.stream_id))
        if waiting is not None and not waiting.done():
            waiting.set_result((step.outcome, step.text))

    def _pause(self, remote: str, condition: str, text: str) -> Answer:
        answer = (condition, text)
        self._paused[remote] = (self._clock() + _PAUSE_SECONDS, answer)
        self._paused.move_to_end(remote)
        while len(self._paused) > _PAUSES:
            self._paused.popitem(last=False)
        return answer

    async def stop(self) -> None:
        """Gives up the calls that are being made."""
        calls = [call for call in self._streams.values() if not call.done()]
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def forget(self, remote: str) -> None:
        """Lets a domain be called again at once."""
        self._paused.pop(remote, None)


def _usable(call: asyncio.Task[Stream]) -> bool:
    return not call.cancelled() and call.exception() is None and call.result().usable


async def _ended(stream: Stream) -> None:
    """Waits for the end of a stream."""
    await stream.gone.wait()
