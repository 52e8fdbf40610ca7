"""Binds the directory: users over the store, UDS over HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Protocol

from moim.bus import Bus
from moim.directory.bulk_import import Importer
from moim.directory.passwords import Hasher
from moim.directory.settings import Settings
from moim.directory.uds import Uds
from moim.directory.users import Users
from moim.errors import ConfigError, Unavailable
from moim.model import CertificateChanged, ServiceState, ServiceStatus
from moim.net.http_server import HttpServer
from moim.net.tls import Credential, ServerTls
from moim.settings import Site
from moim.store import Store

_SAVE_SECONDS = 10
_HTTP_FILES, _HTTPS_FILES = 6970, 6972
_log = logging.getLogger("moim.directory")


class FileLinks(Protocol):
    """Where configuration files are served; the provisioning room has it."""

    @property
    def profile_url(self) -> str:
        """The service profile."""
        ...

    def device_url(self, name: str) -> str:
        """A device's file."""
        ...


class _StandardFiles:
    """The files at their catalogue ports on the inside node."""

    def __init__(self, site: Site) -> None:
        ports = site.settings.ports
        self.profile_url = f"http://{site.host('inside')}:{ports.bind(_HTTP_FILES)}/SPDefault.cnf.xml"
        self._devices = f"https://{site.host('inside')}:{ports.bind(_HTTPS_FILES)}"

    def device_url(self, name: str) -> str:
        return f"{self._devices}/{name}.cnf.xml"


class _Links:
    """What UDS answers point to, with the ports that are really bound."""

    def __init__(self, site: Site, port: Callable[[], int], files: FileLinks) -> None:
        self.host = site.host("inside")
        self.domain = site.domain
        self.nodes = tuple(f"{name}.{site.domain}" for name in site.inside_nodes)
        self._port = port
        self._files = files

    @property
    def base(self) -> str:
        return f"https://{self.host}:{self._port()}/cucm-uds"

    @property
    def profile_url(self) -> str:
        return self._files.profile_url

    def device_url(self, name: str) -> str:
        return self._files.device_url(name)


class Service:
    """The directory of the inside node. ``users`` works as soon as it is built; ``start`` opens UDS.

    ``credential`` gives the files for a purpose; ``policies`` are those that people can have; ``files`` where
    configuration files are, by default the catalogue's ports.
    """

    def __init__(
        self,
        site: Site,
        store: Store,
        bus: Bus,
        *,
        credential: Callable[[str], Credential],
        policies: Collection[str] = (),
        files: FileLinks | None = None,
        node: str = "inside",
    ) -> None:
        self._site = site
        self._bus = bus
        self._credential = credential
        self._node = node
        self._settings = settings = site.section(Settings)
        self._hasher = Hasher(
            scram_iterations=settings.scram_iterations,
            argon2_memory_kib=settings.argon2_memory_kib,
            argon2_passes=settings.argon2_passes,
        )
        self.users = Users(
            store,
            bus,
            site.domains,
            self._hasher,
            policies=policies,
            password_min_length=settings.password_min_length,
            remember_sign_in=settings.sign_in_cache_seconds,
        )
        self._address = site.settings.nodes.inside.address
        self._port = site.settings.ports.bind(settings.port) if settings.port else 0
        self.uds = Uds(
            self.users,
            _Links(site, lambda: self.port, files or _StandardFiles(site)),
            search_needs_sign_in=settings.search_needs_sign_in,
            lookups_per_second=settings.lookups_per_second,
        )
        self._server: HttpServer | None = None
        self._tls: ServerTls | None = None
        self._state: ServiceState = "stopped"
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def port(self) -> int:
        """The port of UDS: bound, or to be bound."""
        return self._server.port if self._server is not None else self._port

    def importer(self) -> Importer:
        """One import of a CSV file."""
        return Importer(self.users, self._hasher, password_min_length=self._settings.password_min_length)

    async def start(self) -> None:
        """Binds UDS. Raises Unavailable when the port cannot be had, ConfigError without a usable certificate."""
        own = self._credential("tomcat")
        self._tls = ServerTls(own.chain, own.key, alpn=("http/1.1",))
        server = HttpServer(self.uds.app, address=self._address, port=self._port, tls=self._tls)
        await server.start()
        self._server = server
        await self.users.read_ahead(alone=not self._site.peers)
        self._unsubscribe = self._bus.subscribe(CertificateChanged, self._reload)
        self._task = asyncio.create_task(self._save_often(), name="directory:sign-ins")
        self._state = "running"

    async def stop(self) -> None:
        """Stops UDS and writes what is not yet in the store; the store must still be open."""
        self._state = "stopped"
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._server is not None:
            await self._server.stop()
        with contextlib.suppress(Unavailable):
            await self.users.sign_in.save()
        self._hasher.close()

    def health(self) -> list[ServiceStatus]:
        """The listener of UDS."""
        return [ServiceStatus("uds", self._node, "https", self._address, self.port, self._state)]

    async def _reload(self, fact: CertificateChanged) -> None:
        if fact.purpose == "tomcat" and self._tls is not None:
            try:
                self._tls.reload()
            except ConfigError as error:
                _log.error("UDS keeps its old certificate: %s", error)

    async def _save_often(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            try:
                await self.users.sign_in.save()
            except Unavailable as error:
                _log.warning("the times of sign-ins could not be written: %s", error)
