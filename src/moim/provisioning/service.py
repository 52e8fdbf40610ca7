"""Serves the configuration files of the inside node. There is no folder behind them: a name is known or it is not."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from moim.bus import Bus
from moim.errors import ConfigError, Unavailable
from moim.model import Address, CertificateChanged, ServiceState, ServiceStatus
from moim.net.http_clients import source_of
from moim.net.http_server import HttpServer
from moim.net.rate import RateLimit
from moim.net.tls import Credential, ServerTls
from moim.provisioning import documents
from moim.provisioning.documents import Endpoints
from moim.provisioning.settings import Settings
from moim.settings import Site

_DEVICE_FILE = re.compile(r"(CSF[A-Z0-9]{1,12})\.cnf\.xml", re.ASCII)
_log = logging.getLogger("moim.provisioning")


class Device(Protocol):
    """A device of a user."""

    @property
    def name(self) -> str:
        """``CSFALICE``."""
        ...

    @property
    def protocol(self) -> str:
        """``SIP``."""
        ...


class Owner(Protocol):
    """Whose device it is."""

    @property
    def address(self) -> Address:
        """The user's address."""
        ...

    @property
    def disabled(self) -> bool:
        """Whether the user may not sign in; then there is no file."""
        ...


class Devices(Protocol):
    """Finds devices; the directory's users do."""

    async def device_named(self, name: str) -> tuple[Device, Owner] | None:
        """A device by its name, with its owner."""
        ...


class Service:
    """Files over HTTP and HTTPS: ``SPDefault.cnf.xml``, ``jabber-config.xml``, ``CSF<USER>.cnf.xml``; 404 for others.

    What they say is public by design, as clients fetch them before anybody has signed in: no secret is ever in them.
    """

    def __init__(
        self,
        site: Site,
        bus: Bus,
        *,
        credential: Callable[[str], Credential],
        devices: Devices,
        endpoints: Endpoints | None = None,
        node: str = "inside",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._credential = credential
        self._devices = devices
        self._node = node
        self._clock = clock
        settings = site.section(Settings)
        self._requests = RateLimit(per_s=settings.requests_per_second, burst=5 * settings.requests_per_second)
        endpoints = endpoints or Endpoints.of(site)
        self._host = site.host("inside") if site.peers else endpoints.host
        self._files = {
            "SPDefault.cnf.xml": documents.service_profile(
                endpoints,
                settings.profile,
                relogin=(settings.relogin_lower_seconds, settings.relogin_upper_seconds),
            ),
            "jabber-config.xml": documents.client_config(settings.config),
        }
        self._address = site.settings.nodes.inside.address
        self._ports = tuple(
            site.settings.ports.bind(port) if port else 0 for port in (settings.port, settings.https_port)
        )
        self.app = Starlette(routes=[Route("/{name}", self._serve, methods=["GET"])])
        self.app.router.redirect_slashes = False
        self._servers: list[HttpServer] = []
        self._tls: ServerTls | None = None
        self._state: ServiceState = "stopped"
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def profile_url(self) -> str:
        """The service profile, as user data services name it: over HTTP, as in the vendor's documents."""
        return f"http://{self._host}:{self._bound(0)}/SPDefault.cnf.xml"

    def device_url(self, name: str) -> str:
        """A device's configuration file, over HTTPS."""
        return f"https://{self._host}:{self._bound(1)}/{name}.cnf.xml"

    async def start(self) -> None:
        """Binds both ports. Raises Unavailable when one cannot be had, ConfigError without a usable certificate."""
        own = self._credential("tomcat")
        self._tls = ServerTls(own.chain, own.key, alpn=("http/1.1",))
        for port, tls in zip(self._ports, (None, self._tls), strict=True):
            server = HttpServer(self.app, address=self._address, port=port, tls=tls)
            try:
                await server.start()
            except Unavailable:
                await self.stop()
                raise
            self._servers.append(server)
        self._unsubscribe = self._bus.subscribe(CertificateChanged, self._reload)
        self._state = "running"

    async def stop(self) -> None:
        """Stops serving."""
        self._state = "stopped"
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        while self._servers:
            await self._servers.pop().stop()

    def health(self) -> list[ServiceStatus]:
        """Both listeners."""
        return [
            ServiceStatus(f"config-{transport}", self._node, transport, self._address, self._bound(number), self._state)
            for number, transport in enumerate(("http", "https"))
        ]

    def _bound(self, number: int) -> int:
        return self._servers[number].port if number < len(self._servers) else self._ports[number]

    async def _serve(self, request: Request) -> Response:
        source = source_of(request)
        if not self._requests.take(source, self._clock()):
            _log.warning("refused a configuration file to %s: too many requests", source)
            return PlainTextResponse("too many requests", status_code=503, headers={"Retry-After": "5"})
        name = request.path_params["name"]
        body = self._files.get(name) or await self._device_file(name)
        if body is None:
            _log.info("%s asked for %r, which is no configuration file", source, name[:128])
            return PlainTextResponse("no such file", status_code=404)
        return Response(body, media_type="application/xml", headers={"Cache-Control": "no-cache"})

    async def _device_file(self, name: str) -> bytes | None:
        match = _DEVICE_FILE.fullmatch(name)
        found = await self._devices.device_named(match[1]) if match else None
        if found is None or found[1].disabled:
            return None
        device, owner = found
        return documents.device_config(device.name, owner.address.local, device.protocol)

    async def _reload(self, fact: CertificateChanged) -> None:
        if fact.purpose == "tomcat" and self._tls is not None:
            try:
                self._tls.reload()
            except ConfigError as error:
                _log.error("the configuration files keep their old certificate: %s", error)
