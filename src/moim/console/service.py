"""Serves the admin API on the inside node: a bearer token, JSON errors, and the routes that rooms bring.

The token lies in ``inside/admin.token`` (mode 0600): who can read it administers the site. The command line uses
the same application, over the network when the site runs and in its own process when it does not.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from moim.console.settings import Settings
from moim.errors import AuthError, ConfigError
from moim.model import ServiceState, ServiceStatus
from moim.net import http_errors
from moim.net.http_server import HttpServer
from moim.net.tls import Credential, ServerTls
from moim.settings import Site

_log = logging.getLogger("moim.console")


def _token_path(site_root: Path) -> Path:
    return site_root / "inside" / "admin.token"


def write_token(site_root: Path) -> None:
    """Makes the administrators' token of a new site."""
    path = _token_path(site_root)
    path.touch(mode=0o600)
    path.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")


def read_token(site_root: Path) -> str:
    """The administrators' token. Raises ConfigError when it is missing or cannot be read."""
    try:
        token = _token_path(site_root).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the administrators' token {_token_path(site_root)} cannot be read",
            hint="run as the user who started the site",
        ) from error
    if len(token) < 32:
        raise ConfigError(f"{_token_path(site_root)} holds no usable token", hint="delete it and start the site again")
    return token


class _BearerToken:
    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        offered = connection.headers.get("authorization", "").encode()
        if hmac.compare_digest(offered, self._expected):
            await self._app(scope, receive, send)
            return
        client = connection.client.host if connection.client else "?"
        _log.warning("refused %s %s from %s: no valid token", scope.get("method"), scope["path"], client)
        answer = http_errors.response(
            AuthError("the admin API needs the site's token", hint="send it as: Authorization: Bearer <token>")
        )
        answer.headers["WWW-Authenticate"] = 'Bearer realm="moim admin"'
        await answer(scope, receive, send)


def admin_application(token: str, routes: Sequence[BaseRoute]) -> Starlette:
    """The admin API as an ASGI application: ``routes`` under ``/api/v1`` behind ``token``."""
    return Starlette(
        routes=[Mount("/api/v1", routes=list(routes))],
        middleware=[Middleware(_BearerToken, token=token)],
        exception_handlers=dict(http_errors.HANDLERS),
    )


class Service:
    """Serves ``admin_application`` on the inside node: HTTP on loopback, HTTPS elsewhere."""

    def __init__(
        self, site: Site, *, routes: Sequence[BaseRoute], credential: Callable[[str], Credential], node: str = "inside"
    ) -> None:
        self._node = node
        where = site.settings.nodes.inside
        tls = None
        if not where.loopback:
            own = credential("tomcat")
            tls = ServerTls(own.chain, own.key)
        self._tls = tls
        self._server = HttpServer(
            admin_application(read_token(site.root), routes),
            address=where.address,
            port=site.settings.ports.bind(site.section(Settings).port),
            tls=tls,
        )
        self._running = False

    async def start(self) -> None:
        """Binds the port. Raises Unavailable when it cannot."""
        await self._server.start()
        self._running = True

    async def stop(self) -> None:
        """Stops serving."""
        self._running = False
        await self._server.stop()

    def reload(self) -> None:
        """Takes a renewed certificate for new connections."""
        if self._tls is not None:
            self._tls.reload()

    def health(self) -> list[ServiceStatus]:
        """The one listener."""
        state: ServiceState = "running" if self._running else "stopped"
        transport = "https" if self._tls is not None else "http"
        return [
            ServiceStatus("admin", self._node, transport, self._server.address, self._server.port, state),
        ]
