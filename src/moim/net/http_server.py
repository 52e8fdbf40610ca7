"""An HTTP/1.1 and WebSocket server for ASGI applications: uvicorn without its signals, globals or certificates."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from moim.errors import Unavailable
from moim.net.tls import ServerTls

_BACKLOG = 1024
_WS_MESSAGE = 1 << 20


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the node decides when to stop, not a signal to this server


class HttpServer:
    """Serves one ASGI application on one address: TCP (``address``, ``port``), or a Unix socket (``path``).

    ``port`` 0 takes a free one; ``self.port`` holds what was bound. With ``tls`` it is HTTPS.
    """

    def __init__(
        self,
        app: Any,
        *,
        address: str = "",
        port: int = 0,
        path: Path | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self.path = path
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http="h11",
            ws="websockets-sansio",
            ws_max_size=_WS_MESSAGE,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=32 * 1024,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
            ssl_context_factory=(lambda _config, _default: tls.context) if tls is not None else None,
        )
        self._server = _Server(config)

    async def start(self) -> None:
        """Binds and serves. Raises Unavailable when the address or port cannot be had."""
        self._socket = self._bind()
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name=f"http:{self.port}")
        while not self._server.started:
            if self._task.done():
                raise Unavailable(f"the HTTP server on {self.address}:{self.port} did not start")
            await asyncio.sleep(0.005)

    def _bind(self) -> socket.socket:
        try:
            if self.path is not None:
                self.path.unlink(missing_ok=True)
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                listener.bind(str(self.path))
                self.path.chmod(0o600)
            else:
                family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
                listener = socket.socket(family, socket.SOCK_STREAM)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self.address, self.port))
                self.port = listener.getsockname()[1]
            listener.listen(_BACKLOG)
        except OSError as error:
            place = self.path or f"{self.address}:{self.port}"
            raise Unavailable(
                f"cannot listen on {place}: {error.strerror or error}",
                hint="another program holds the port, or the address is not on this machine",
            ) from error
        listener.setblocking(False)
        return listener

    async def stop(self) -> None:
        """Stops accepting, lets requests finish for a second, then closes."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task], timeout=3)
            self._task.cancel()
        if self._socket is not None:
            self._socket.close()
