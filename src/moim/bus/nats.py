"""The bus over NATS: what ``Bus`` does within a node, and the same between nodes.

Subjects begin with ``moim.<domain>``, so that sites may share a server. Delivery is at most once: facts are hints, and
whoever needs more (the link between two nodes of chat) counts and repeats by itself. While there is no server,
everything local goes on, and the connection is tried again for as long as the node runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from moim.bus.local import Answerer, Bus, BusChanged, Listener
from moim.bus.settings import Settings
from moim.errors import NotFound, PeerTimeout, PeerUnreachable
from moim.model import ServiceState, ServiceStatus
from moim.settings import read_secret

_RETRY_SECONDS = 0.5
_FIRST_WAIT = 3.0
_PING_SECONDS = 5
_MAX_WAITING = 20_000  # messages for other nodes that wait for the socket

_log = logging.getLogger("moim.bus")


class NatsBus(Bus):
    """A node's connection to NATS. ``domain`` names the site, ``node`` this node; ``root`` is where its files are."""

    def __init__(self, settings: Settings, *, root: Path, domain: str, node: str) -> None:
        super().__init__()
        self._settings = settings
        self._node = node
        self._prefix = f"moim.{domain.replace('.', '_')}"
        self._options = self._read_options(root)
        self._client = Client()
        self._waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_MAX_WAITING)
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriptions: dict[str, Any] = {}
        self._first = asyncio.Event()
        self._up = False
        self._stopping = False
        self._said = ""

    def _read_options(self, root: Path) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {"servers": settings.urls, "tls": settings.tls(root)}
        if settings.user:
            options |= {"user": settings.user, "password": read_secret(root, settings.password_file)}
        if settings.token_file:
            options["token"] = read_secret(root, settings.token_file)
        return options

    @property
    def connected(self) -> bool:
        """Whether there is a server at this moment."""
        return self._up

    async def start(self) -> None:
        """Connects; returns when connected, or after a while, to be connected later."""
        self._tasks = [
            asyncio.create_task(self._connect(), name="bus:connect"),
            asyncio.create_task(self._write(), name="bus:write"),
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first.wait(), _FIRST_WAIT)
        if not self._up:
            _log.error("no NATS server answers at %s: %s; it is tried again", self._settings.url, self._said or "-")

    async def _connect(self) -> None:
        await self._client.connect(
            **self._options,
            name=f"moim {self._node}",
            no_echo=True,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=_RETRY_SECONDS,  # type: ignore[arg-type]  # any number of seconds
            connect_timeout=3,
            ping_interval=_PING_SECONDS,
            max_outstanding_pings=2,
            error_cb=self._failed,
            disconnected_cb=self._lost,
            reconnected_cb=self._found,
        )
        await self._subscribe(f"{self._prefix}.fact", self._fact)
        await self._arrive()
        await self._found()

    async def stop(self) -> None:
        """Closes the connection after what waits was written."""
        self._stopping = True
        if self._up:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._waiting.join(), 0.5)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._up = False
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._client.close(), 1)

    def health(self) -> list[ServiceStatus]:
        """The connection."""
        url = self._settings.urls[0]
        host, _, port = url.partition("//")[2].rpartition(":")
        number = int(port) if host and port.isdecimal() else 4222
        state: ServiceState = "running" if self._up else "degraded"
        detail = "" if self._up else f"no server: {self._said or 'not connected yet'}"
        return [ServiceStatus("bus", self._node, "tcp", host or port, number, state, detail)]

    # --- the connection -----------------------------------------------------------------------------------------

    async def _failed(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._said and not self._stopping:
            self._said = text
            _log.warning("the bus: %s", text)

    async def _lost(self) -> None:
        if self._up and not self._stopping:
            self._up = False
            _log.error("the connection to NATS is lost; other nodes cannot be reached until it is back")
            await self.deliver(BusChanged(up=False))

    async def _found(self) -> None:
        if self._stopping:
            return
        # Whoever begins to listen meanwhile counts on this; from the moment in which it is up, ``_begin`` does it.
        while missing := [x for x in (*self._listeners, *self._answerers) if self._full(x) not in self._subscriptions]:
            for subject in missing:
                await self._take(subject)
            await self._arrive()
        self._up, self._said = True, ""
        _log.info("connected to NATS at %s", self._settings.url)
        self._first.set()
        await self.deliver(BusChanged(up=True))

    async def _arrive(self) -> None:
        """Returns when the server knows what it was told, or does not say so."""
        with contextlib.suppress(nats.errors.Error):
            await self._client.flush()

    async def _subscribe(self, subject: str, handler: Callable[[Msg], Any]) -> None:
        self._subscriptions[subject] = await self._client.subscribe(subject, cb=handler)

    async def _write(self) -> None:
        while True:
            subject, body = await self._waiting.get()
            try:
                if self._up:
                    await self._client.publish(subject, body)
            except (nats.errors.Error, OSError) as error:
                await self._failed(error)
            finally:
                self._waiting.task_done()

    # --- what goes over it --------------------------------------------------------------------------------------

    async def _spread(self, body: bytes) -> None:
        self._put(f"{self._prefix}.fact", body)

    def _put(self, subject: str, body: bytes) -> bool:
        if not self._up:
            return False
        try:
            self._waiting.put_nowait((subject, body))
        except asyncio.QueueFull:
            return False
        return True

    async def _fact(self, message: Msg) -> None:
        await self._received(message.data)

    def send(self, subject: str, body: bytes) -> bool:
        """See ``Bus``."""
        return self._put(self._full(subject), body)

    def listen(self, subject: str, listener: Listener) -> Callable[[], None]:
        """See ``Bus``."""
        cancel = super().listen(subject, listener)
        self._begin(subject)
        return cancel

    def answer(self, subject: str, answerer: Answerer) -> Callable[[], None]:
        """See ``Bus``."""
        cancel = super().answer(subject, answerer)
        self._begin(subject)
        return cancel

    def _begin(self, subject: str) -> None:
        if self._up:
            self._tasks.append(asyncio.create_task(self._take(subject), name="bus:subscribe"))

    async def settled(self) -> None:
        """Returns when the server knows of everything that this node listens to and answers."""
        await asyncio.gather(*(self._take(subject) for subject in (*self._listeners, *self._answerers)))
        await self._client.flush()

    def _full(self, subject: str) -> str:
        return f"{self._prefix}.to.{subject}"

    async def _take(self, subject: str) -> None:
        name = self._full(subject)
        if name in self._subscriptions:
            return
        self._subscriptions[name] = None

        async def received(message: Msg) -> None:
            if message.reply:
                answerer = self._answerers.get(subject)
                answer = await self._ask(answerer, subject, message.data) if answerer is not None else None
                if answer is not None:
                    await message.respond(answer)
            elif (listener := self._listeners.get(subject)) is not None:
                try:
                    listener(message.data)
                except Exception:
                    _log.exception("a message for '%s' could not be handled", subject)

        await self._subscribe(name, received)

    async def request(self, subject: str, body: bytes, *, within: float = 5.0) -> bytes:
        """See ``Bus``; raises PeerUnreachable while there is no server."""
        if subject in self._answerers:
            return await super().request(subject, body, within=within)
        if not self._up:
            raise PeerUnreachable("there is no connection to NATS")
        try:
            answer = await self._client.request(self._full(subject), body, timeout=within)
        except nats.errors.NoRespondersError:
            raise NotFound(f"nobody answers '{subject}' on the bus") from None
        except nats.errors.TimeoutError:
            raise PeerTimeout(f"'{subject}' was not answered within {within:.0f} s") from None
        except (nats.errors.Error, OSError) as error:
            raise PeerUnreachable(f"'{subject}' could not be asked: {error}") from error
        data: bytes = answer.data
        return data
