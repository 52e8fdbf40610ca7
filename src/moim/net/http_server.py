"""An HTTP/1.1 and WebSocket server for ASGI applications: uvicorn without its signals, globals or certificates.

Connections are accepted within bounds (``listener``) and do not last for ever (``http_protocol``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from moim.errors import Unavailable
from moim.net.http_protocol import HttpProtocol, Patience, Watch, WebSocketProtocol
from moim.net.listener import Limits, Listener
from moim.net.tls import ServerTls

_BACKLOG = 1024
_WS_MESSAGE = 1 << 20
_LIMITS = Limits()
_PATIENCE = Patience()

_log = logging.getLogger("moim.net.http")


class _Server(uvicorn.Server):
    """The part of uvicorn between its sockets and its end: the sockets are the listener's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the node decides when to stop, not a signal to this server

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.servers = []
        self.started = True

    def protocol(self) -> HttpProtocol:
        """A protocol for one more connection."""
        return HttpProtocol(self.config, self.server_state)


class HttpServer:
    """Serves one ASGI application on one address: TCP (``address``, ``port``), or a Unix socket (``path``).

    ``port`` 0 takes a free one; ``self.port`` holds what was bound. With ``tls`` it is HTTPS. ``limits`` are for TCP:
    what comes through a Unix socket was admitted by whoever dials it.
    """

    def __init__(
        self,
        app: Any,
        *,
        address: str = "",
        port: int = 0,
        path: Path | None = None,
        tls: ServerTls | None = None,
        limits: Limits = _LIMITS,
        patience: Patience = _PATIENCE,
    ) -> None:
        self.address = address
        self.port = port
        self.path = path
        self._limits = limits
        self._patience = patience
        self._tls = tls
        self._listener: Listener | None = None
        self._unix: asyncio.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http="h11",
            ws=WebSocketProtocol,
            ws_max_size=_WS_MESSAGE,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)

    async def start(self) -> None:
        """Binds and serves. Raises Unavailable when the address or port cannot be had."""
        self._server.config.load()
        self._task = asyncio.create_task(self._server.serve(), name=f"http:{self.port}")
        try:
            await self._listen()
        except BaseException:
            await self.stop()
            raise
        self._watching = asyncio.create_task(self._watch(), name=f"http-watch:{self.port}")

    async def _listen(self) -> None:
        if self.path is not None:
            self._unix = await asyncio.get_running_loop().create_unix_server(
                self._server.protocol, sock=_unix_socket(self.path), backlog=_BACKLOG
            )
            return
        tls = self._tls
        listener = Listener(
            name="HTTP",
            address=self.address,
            port=self.port,
            limits=self._limits,
            on_refused=lambda peer, reason: _log.info("a connection from %s is refused: %s", peer, reason),
            tls=(lambda: tls.context) if tls is not None else None,
            protocol=self._server.protocol,
        )
        listener.start()
        self.port = listener.port
        self._listener = listener

    async def _watch(self) -> None:
        watch = Watch(self._patience)
        while True:
            await asyncio.sleep(self._patience.look)
            if count := watch.look(self._server.server_state.connections, time.monotonic()):
                _log.info("%d connections were too slow and are cut off", count)

    async def stop(self) -> None:
        """Stops accepting, lets requests finish for a second, then closes."""
        if self._listener is not None:
            await self._listener.close_port()
        if self._unix is not None:
            self._unix.close()
        self._server.should_exit = True
        if self._watching is not None:
            self._watching.cancel()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=3)
            self._task.cancel()
        if self._listener is not None:
            await self._listener.stop()


def _unix_socket(path: Path) -> socket.socket:
    try:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        raise Unavailable(f"cannot listen on {path}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener
