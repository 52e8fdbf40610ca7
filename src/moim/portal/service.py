"""Serves the web app on the inside node: HTTP on loopback, where browsers treat it as secure, HTTPS elsewhere.

``asgi`` is the same application for the listener that the edge's tunnel leads to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from moim.bus import Bus
from moim.errors import ConfigError
from moim.model import CertificateChanged, ServiceState, ServiceStatus
from moim.net.http_server import HttpServer
from moim.net.tls import Credential, ServerTls
from moim.portal.api import Api, Discover, Users
from moim.portal.app import web_application
from moim.portal.assets import BUILT, Assets
from moim.portal.caller import Hosts
from moim.portal.sessions import Sessions
from moim.portal.settings import Settings
from moim.settings import Site

_log = logging.getLogger("moim.portal")
_PURPOSE = "tomcat"


class Service:
    """The portal. ``sessions`` works as soon as it is built; ``start`` opens the listener.

    ``credential`` gives the files for a purpose (asked for only where the listener is HTTPS); ``websocket_url`` is
    where browsers inside find the chat service, ``ws://127.0.0.1:15280/xmpp-websocket``; ``files_origin`` gives the
    origin in links of files that ``extra_routes`` serve, empty when there are none; ``extra_routes`` are served
    beside the portal's own, by rooms that get ``sessions`` to know who asks. ``port`` 0 takes a free one.
    """

    def __init__(
        self,
        site: Site,
        bus: Bus,
        *,
        users: Users,
        discover: Discover,
        websocket_url: str | Callable[[], str],
        files_origin: Callable[[], str] = str,
        credential: Callable[[str], Credential],
        extra_routes: Sequence[BaseRoute] = (),
        sessions: Sessions | None = None,
        assets: Path = BUILT,
        port: int | None = None,
        node: str = "inside",
    ) -> None:
        settings = site.section(Settings)
        where = site.settings.nodes.inside
        self._bus = bus
        self._node = node
        self.sessions = sessions if sessions is not None else make_sessions(settings)
        self._assets = Assets(assets)
        self._tls: ServerTls | None = None
        if not where.loopback:
            own = credential(_PURPOSE)
            self._tls = ServerTls(own.chain, own.key, alpn=("http/1.1",))
        api = Api(
            domains=site.domains,
            users=users,
            discover=discover,
            sessions=self.sessions,
            websocket_url=websocket_url if callable(websocket_url) else lambda: websocket_url,
            files_origin=files_origin,
            discoveries_per_minute=settings.discoveries_per_minute,
            discovery_seconds=settings.discovery_seconds,
        )
        hosts = Hosts([site.host("inside"), site.host("edge"), *site.domains, *settings.names])
        self._app = web_application(
            api=api, assets=self._assets, hosts=hosts, extra_routes=extra_routes, secure=self._tls is not None
        )
        standard = settings.http_port if self._tls is None else settings.https_port
        self._server = HttpServer(
            self._app,
            address=where.address,
            port=site.settings.ports.bind(standard) if port is None else port,
            tls=self._tls,
        )
        self._cancels: list[Callable[[], None]] = []
        self._running = False

    @property
    def asgi(self) -> ASGIApp:
        """The application, for a second listener that sets ``scope["state"]["outside"]``."""
        return self._app

    @property
    def url(self) -> str:
        """Where to open the web app inside."""
        scheme, usual = ("https", 443) if self._tls is not None else ("http", 80)
        address = f"[{self._server.address}]" if ":" in self._server.address else self._server.address
        return f"{scheme}://{address}{'' if self._server.port == usual else f':{self._server.port}'}/"

    async def start(self) -> None:
        """Binds the listener. Raises Unavailable when the port cannot be had."""
        await self._server.start()
        self._cancels = [self.sessions.follow(self._bus), self._bus.subscribe(CertificateChanged, self._reload)]
        self._running = True
        if not self._assets.built:
            _log.error("the web app is not built: run 'make build'")

    async def stop(self) -> None:
        """Stops serving."""
        self._running = False
        for cancel in self._cancels:
            cancel()
        self._cancels = []
        await self._server.stop()

    def health(self) -> list[ServiceStatus]:
        """The one listener."""
        state: ServiceState = "stopped" if not self._running else "running" if self._assets.built else "degraded"
        detail = "" if self._assets.built else "the web app is not built: run 'make build'"
        transport = "https" if self._tls is not None else "http"
        return [
            ServiceStatus("web", self._node, transport, self._server.address, self._server.port, state, detail),
        ]

    async def _reload(self, fact: CertificateChanged) -> None:
        if fact.purpose == _PURPOSE and self._tls is not None:
            try:
                self._tls.reload()
            except ConfigError as error:
                _log.error("the web app keeps its old certificate: %s", error)


def make_sessions(settings: Settings) -> Sessions:
    """The session table that the settings ask for."""
    return Sessions(
        lifetime=settings.session_hours * 3600, limit=settings.sessions, per_user=settings.sessions_per_user
    )
