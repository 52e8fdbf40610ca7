"""The WebSocket of a participant: from the socket to the meeting and back. docs/architecture.md has the messages."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, Protocol

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from moim.errors import MoimError
from moim.log import session
from moim.meetings.admission import Admission
from moim.meetings.live import Live
from moim.meetings.messages import MAX_JOIN, Answer, Code, Join, Leave, Refusal, State, parse
from moim.net.listener import client_key
from moim.net.origins import same_host

_OUTBOX = 1024  # messages that wait for a slow client; beyond, it is too slow to take part
_WAITING_PER_CLIENT = 64  # connections of one address that have not joined yet
_BURST = 5  # seconds' worth of messages at once
_BAD_MESSAGES = 20
_SEND_S = 10
_CLOSE = {"bad-request": 1008, "internal": 1011, "full": 1013, "rate-limited": 1013, "restart": 1012}
_POLICY = 1008
_log = logging.getLogger("moim.meetings.signalling")


class Caller(Protocol):
    """Who asks, as the web app's frame notes it in the request's state."""

    @property
    def source(self) -> str:
        """The client's IP address."""
        ...

    @property
    def outside(self) -> bool:
        """Whether the request came through the edge."""
        ...


def client_of(connection: HTTPConnection) -> tuple[str, bool]:
    """What counts as one client, and whether it is outside; without the frame's note, by the connection itself."""
    state = connection.scope.get("state", {})
    caller: Caller | None = state.get("caller")
    if caller is not None:
        return client_key(caller.source), caller.outside
    address = connection.client.host if connection.client else ""
    return client_key(address), state.get("outside") is True


class Signalling:
    """Serves ``/meet/ws``. ``messages_per_second`` and ``join_timeout_s`` bound each connection."""

    def __init__(
        self,
        admission: Admission,
        live: Live,
        *,
        join_timeout_s: float,
        messages_per_second: float,
        max_connections: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admission = admission
        self._live = live
        self._join_timeout = join_timeout_s
        self._rate = messages_per_second
        self._max_connections = max_connections
        self._clock = clock
        self._waiting: Counter[str] = Counter()
        self._connections: set[_Connection] = set()

    async def serve(self, websocket: WebSocket) -> None:
        """One connection from its handshake to its end."""
        client, outside = client_of(websocket)
        refusal = self._refuse(websocket, client)
        if refusal:
            _log.warning("refused a connection of %s: %s", client, refusal)
            await websocket.close(_POLICY)
            return
        self._waiting[client] += 1
        connection = _Connection(websocket, _Pace(self._rate, self._rate * _BURST, self._clock))
        self._connections.add(connection)
        try:
            await connection.run(lambda: self._converse(connection, client, outside))
        finally:
            self._connections.discard(connection)
            self._settled(client, connection)

    def _refuse(self, websocket: WebSocket, client: str) -> str:
        if len(self._connections) >= self._max_connections:
            return "too many connections"
        if self._waiting[client] >= _WAITING_PER_CLIENT:
            return "too many of its connections have not joined"
        origin = websocket.headers.get("origin")
        if origin is not None and not same_host(origin, websocket.headers.get("host", "")):
            return f"its page is of another origin: {origin[:100]!r}"
        return ""

    def _settled(self, client: str, connection: _Connection) -> None:
        if not connection.settled:
            connection.settled = True
            self._waiting[client] -= 1
            if self._waiting[client] <= 0:
                del self._waiting[client]

    async def _converse(self, connection: _Connection, client: str, outside: bool) -> None:
        try:
            pid = await self._join(connection, client, outside)
        except Refusal as refusal:
            connection.end(refusal.code, str(refusal))
            return
        self._settled(client, connection)
        try:
            with session(f"m{pid}"):
                await self._follow(connection, pid)
        finally:
            self._live.leave(pid)

    async def _join(self, connection: _Connection, client: str, outside: bool) -> int:
        try:
            async with asyncio.timeout(self._join_timeout):
                text = await connection.receive(MAX_JOIN)
        except TimeoutError:
            raise Refusal("bad-request", f"no join message came within {self._join_timeout:g} s") from None
        message = parse(text)
        if not isinstance(message, Join):
            raise Refusal("bad-request", "the first message is not a join")
        admitted = await self._admission.admit(message, client)
        return self._live.enter(admitted, connection, outside=outside)

    async def _follow(self, connection: _Connection, pid: int) -> None:
        bad = 0
        while True:
            try:
                message = parse(await connection.receive())
                if isinstance(message, Join):
                    raise Refusal("bad-request", "this connection has joined already")
            except Refusal as refusal:
                bad += 1
                if refusal.code != "bad-request" or bad > _BAD_MESSAGES:
                    connection.end(refusal.code, str(refusal))
                    return
                connection.send(_error(refusal.code, str(refusal)))
                continue
            match message:
                case Answer(seq, sdp):
                    self._live.answer(pid, seq, sdp)
                case State(audio, video):
                    self._live.state(pid, audio=audio, video=video)
                case Leave():
                    connection.hang_up(1000)
                    return

    async def stop(self) -> None:
        """Hangs up on whoever has not joined; the meetings end the others."""
        for connection in tuple(self._connections):
            connection.end("restart", "the server restarts")


def _error(code: str, message: str) -> dict[str, Any]:
    return {"type": "error", "code": code, "message": message}


class _Pace:
    """A token bucket for one connection."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Connection:
    """A WebSocket with an outbox, so that nobody waits for somebody else's slow network."""

    def __init__(self, websocket: WebSocket, pace: _Pace) -> None:
        self._websocket = websocket
        self._pace = pace
        self._outbox: asyncio.Queue[str | int] = asyncio.Queue()
        self._cut = asyncio.Event()
        self._ended = False
        self.settled = False

    async def run(self, converse: Callable[[], Awaitable[None]]) -> None:
        """Accepts, then runs ``converse`` beside the outbox until one of them is done."""
        await self._websocket.accept()
        talk = asyncio.create_task(self._talk(converse), name="meeting:receive")
        write = asyncio.create_task(self._write(), name="meeting:send")
        cut = asyncio.create_task(self._cut.wait(), name="meeting:cut")
        try:
            await asyncio.wait({talk, write, cut}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                self.hang_up(1000)
            # Whatever was said last is still sent; a client that does not take it in time misses it.
            await asyncio.wait({write, cut}, timeout=_SEND_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (talk, write, cut):
                task.cancel()
            await asyncio.gather(talk, write, cut, return_exceptions=True)

    async def _talk(self, converse: Callable[[], Awaitable[None]]) -> None:
        try:
            await converse()
        except WebSocketDisconnect:
            self._ended = True
            self._outbox.put_nowait(0)
        except MoimError as error:
            _log.error("a participant's connection failed: %s", error)
            self.end("internal", "the server made a mistake")
        except Exception:
            _log.exception("a participant's connection crashed")
            self.end("internal", "the server made a mistake")

    async def _write(self) -> None:
        with suppress(WebSocketDisconnect, RuntimeError, OSError):
            while True:
                item = await self._outbox.get()
                if isinstance(item, int):
                    if item and self._websocket.application_state is WebSocketState.CONNECTED:
                        await self._websocket.close(item)
                    return
                await self._websocket.send_text(item)

    async def receive(self, longest: int | None = None) -> str:
        """The next text. Raises Refusal for anything else, for haste and for length, WebSocketDisconnect at the end."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if not self._pace.take():
            raise Refusal("rate-limited", "too many messages in too short a time")
        text = message.get("text")
        if text is None:
            raise Refusal("bad-request", "a message is not text")
        if longest is not None and len(text) > longest:
            raise Refusal("bad-request", f"a message of {len(text)} characters is too long here")
        return str(text)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queues one message; a client that lets too many wait is cut off."""
        if self._ended:
            return
        if self._outbox.qsize() >= _OUTBOX:
            _log.warning("a participant's connection takes no messages any more")
            self._ended = True
            self._cut.set()
            return
        self._outbox.put_nowait(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    def end(self, code: Code | Literal["restart"], message: str) -> None:
        """Queues an error and hangs up after it; a restart is no error, the client comes back by itself."""
        if self._ended:
            return
        if code != "restart":
            self.send(_error(code, message))
        self.hang_up(_CLOSE.get(code, _POLICY))

    def hang_up(self, status: int) -> None:
        """Closes after everything that is queued."""
        if not self._ended:
            self._ended = True
            self._outbox.put_nowait(status)
