"""Every BOSH session of this node: begins them, finds them by their number, and ties each to a stream of its own.

A session's number is its secret: 192 random bits, known to the client alone. How many sessions one address may have is
bounded, because each holds a stream; so is what waits for a client that does not come for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moim.chat.bosh.stream import PlaneStream
from moim.errors import MoimError, ProtocolError
from moim.net.listener import client_key
from moim.proto.xmpp import Element, bosh, ns, prepare_domain

_TICK_S = 1.0
_QUEUE_BYTES = 1 << 20  # what waits for a client before its stream is not read any more, or for the stream

_log = logging.getLogger("moim.chat.bosh")


@dataclass(frozen=True, slots=True)
class BoshBounds:
    """Sessions in all, and of one client address."""

    sessions: int
    per_address: int


class Bosh:
    """The connection manager of one node. ``serves`` says whether a session may be for a domain.

    ``inside`` and ``outside`` are the sockets of streams for clients of either side.
    """

    def __init__(
        self,
        *,
        inside: Path,
        outside: Path,
        serves: Callable[[str], bool],
        limits: bosh.Limits,
        bounds: BoshBounds,
    ) -> None:
        self._sockets = {False: inside, True: outside}
        self._serves = serves
        self._limits = limits
        self._bounds = bounds
        self._sessions: dict[str, _Connection] = {}
        self._per_address: Counter[str] = Counter()
        self._tickets = itertools.count(1)
        self._ticker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self) -> None:
        """Begins to look after waiting requests."""
        self._ticker = asyncio.create_task(self._tick(), name="chat:bosh")

    async def stop(self) -> None:
        """Ends every session."""
        if self._ticker is not None:
            self._ticker.cancel()
        for connection in tuple(self._sessions.values()):
            connection.shut("system-shutdown")
        await asyncio.gather(*(connection.finish() for connection in tuple(self._sessions.values())))

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            now = loop.time()
            for connection in tuple(self._sessions.values()):
                deadline = connection.session.deadline()
                if deadline is not None and deadline <= now:
                    connection.tick(now)

    async def request(self, data: bytes, client: str, *, outside: bool) -> bytes:
        """The answer to one request of a client, which may take as long as the session's ``wait``."""
        try:
            body = bosh.read_body(data)
        except ProtocolError as error:
            _log.info("a request from %s is refused: %s", client, error.message)
            return bosh.ending("bad-request")
        ticket = next(self._tickets)
        if body.sid:
            connection = self._sessions.get(body.sid)
            if connection is None:
                return bosh.ending("item-not-found")
        else:
            refusal = self._judge(body, client)
            if refusal:
                return bosh.ending(refusal)
            connection = self._begin(body, ticket, client, outside)
        return await connection.answer(body if body.sid else None, ticket)

    def _judge(self, body: bosh.Body, client: str) -> str:
        to = body.attrs.get("to", "")
        try:
            known = self._serves(prepare_domain(to)) if to else False
        except ProtocolError:
            known = False
        if not known:
            _log.info("a session from %s is refused: it is for %r", client, to[:100])
            return "host-unknown" if to else "improper-addressing"
        key = client_key(client)
        if self._per_address[key] >= self._bounds.per_address or len(self._sessions) >= self._bounds.sessions:
            _log.warning("a session from %s is refused: %d here, %d in all", client, self._per_address[key], len(self))
            return "policy-violation"
        return ""

    def _begin(self, body: bosh.Body, ticket: int, client: str, outside: bool) -> _Connection:
        sid = secrets.token_urlsafe(24)
        now = asyncio.get_running_loop().time()
        key = client_key(client)
        session = bosh.Session(sid, body, ticket, self._limits, now)
        connection = _Connection(session, body, on_over=lambda: self._ended(sid, key))
        self._sessions[sid] = connection
        self._per_address[key] += 1
        connection.start(self._sockets[outside], client)
        return connection

    def _ended(self, sid: str, key: str) -> None:
        if self._sessions.pop(sid, None) is not None:
            self._per_address[key] -= 1
            if self._per_address[key] <= 0:
                del self._per_address[key]


class _Connection:
    """One session with its stream: runs what the machine says."""

    def __init__(self, session: bosh.Session, first: bosh.Body, *, on_over: Callable[[], None]) -> None:
        self.session = session
        self._to = first.attrs.get("to", "")
        self._language = first.attrs.get("xml:lang", "")
        self._on_over = on_over
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._outbox: asyncio.Queue[str | None] = asyncio.Queue()  # "": open the stream anew; None: close it
        self._unsent = 0
        self._room = asyncio.Event()
        self._room.set()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def start(self, path: Path, client: str) -> None:
        self._task = asyncio.create_task(self._run(path, client), name="chat:bosh-session")

    async def finish(self) -> None:
        """Returns when the stream is closed."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=3)

    async def answer(self, body: bosh.Body | None, ticket: int) -> bytes:
        """Takes a request (None: the first one, which the session has already) and waits for its answer."""
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._answers[ticket] = future
        try:
            if body is not None:
                self.session.receive(body, ticket, self._loop.time())
                self._carry_out()
            return await future
        finally:
            self._answers.pop(ticket, None)

    def tick(self, now: float) -> None:
        self.session.tick(now)
        self._carry_out()

    def shut(self, condition: str) -> None:
        self.session.closed(condition, self._loop.time())
        self._carry_out()

    def _carry_out(self) -> None:
        while (step := self.session.next_output()) is not None:
            if isinstance(step, bosh.Answer):
                future = self._answers.get(step.ticket)
                if future is not None and not future.done():
                    future.set_result(step.body)
            elif isinstance(step, bosh.Pass):
                text = step.element.to_xml("")
                self._unsent += len(text)
                self._outbox.put_nowait(text)
            elif isinstance(step, bosh.Restart):
                self._outbox.put_nowait("")
            else:
                self._on_over()
                self._outbox.put_nowait(None)
        if self._unsent > _QUEUE_BYTES and not self.session.over:
            self.shut("policy-violation")
        if self.session.queued < _QUEUE_BYTES:
            self._room.set()
        else:
            self._room.clear()

    async def _run(self, path: Path, client: str) -> None:
        try:
            stream = await PlaneStream.connect(path, client)
        except MoimError as error:
            _log.error("a session of %s gets no stream: %s", client, error)
            self.shut("remote-connection-failed")
            return
        reader = asyncio.create_task(self._read(stream), name="chat:bosh-read")
        try:
            await stream.open(self._to, self._language)
            while (text := await self._outbox.get()) is not None:
                if text:
                    await stream.send(text)
                    self._unsent -= len(text)
                else:
                    await stream.open(self._to, self._language)
            await stream.close()
        except ConnectionError:
            await asyncio.wait([reader], timeout=1)
            self.shut("remote-connection-failed")
        except Exception:
            _log.exception("a session of %s ended in an unexpected error", client)
            self.shut("internal-server-error")
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            with contextlib.suppress(Exception):
                await stream.close()

    async def _read(self, stream: PlaneStream) -> None:
        error: list[str] = []
        async for frame in stream.frames():
            now = self._loop.time()
            if frame.startswith("<open"):
                self.session.opened(Element.parse(frame).attrs, now)
            elif frame.startswith("<close"):
                break
            elif _is_stream_error(frame):
                error = [frame]
            else:
                self.session.push(frame, now)
                self._carry_out()
                await self._room.wait()
        self.session.closed("remote-stream-error" if error else "", self._loop.time(), error)
        self._carry_out()


def _is_stream_error(frame: str) -> bool:
    """Whether a frame is ``<stream:error/>``; only those few that look like it are parsed."""
    if not frame.startswith(("<stream:error", "<error")):
        return False
    element = Element.parse(frame)
    return (element.ns, element.name) == (ns.STREAMS, "error")
