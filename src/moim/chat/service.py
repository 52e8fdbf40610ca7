"""The chat room of one node: binds its parts together, listens, and hears the facts that concern it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moim._native import ArchiveIds
from moim.bus import Bus, BusChanged
from moim.chat import custody, limits
from moim.chat.bosh import Bosh, BoshBounds
from moim.chat.cluster import Cluster, Steering, shared_secret
from moim.chat.external import Attachments
from moim.chat.external_services import Relays
from moim.chat.hosts import Hosts
from moim.chat.moving.service import Moving
from moim.chat.parts import Parts
from moim.chat.plane import Listener, Mode, Plane
from moim.chat.policies import Policies, bare_jid
from moim.chat.registration import Registrar
from moim.chat.routing import Federation
from moim.chat.s2s_plane import ServerPlane
from moim.chat.settings import Settings
from moim.chat.uploads import Files, Uploads
from moim.chat.users import CertificateFiles, Users
from moim.errors import ConfigError, ProtocolError, Unavailable, UsageError
from moim.model import Address, CertificateChanged, ServiceStatus, UserChanged, UserRemoved
from moim.proto.xmpp import Element, bosh, prepare_domain
from moim.settings import Site, read_secret
from moim.store import Store

_PURPOSE = "cup-xmpp"
_NODE = "inside"
_DRAIN_SECONDS = 3.0
_MAX_SOCKET_FOLDER = 80  # bytes; the path of a Unix socket has 107 at the most

_log = logging.getLogger("moim.chat")


class Service:
    """Instant messaging and presence for the site's domains.

    ``credential`` gives the certificate files of a purpose, and may touch the disk. ``federation`` takes stanzas for
    other domains; without it they are refused. ``relays`` are the TURN servers that clients are told of. ``web_base``
    gives the origin that links to uploaded files begin with; without it, or the setting, there are no uploads.
    """

    def __init__(
        self,
        site: Site,
        store: Store,
        bus: Bus,
        *,
        users: Users,
        credential: Callable[[str], CertificateFiles],
        federation: Federation | None = None,
        relays: Relays | None = None,
        web_base: Callable[[], str] | None = None,
        registrar: Registrar | None = None,
    ) -> None:
        self._site = site
        self._store = store
        self._bus = bus
        self._users = users
        self._registrar = registrar
        self._credential = credential
        self._settings = site.section(Settings)
        self._origins = (*web_origins(site), *self._settings.websocket_origins)
        self._federation = federation
        self._relays = relays
        self._web_base = (lambda: self._settings.uploads_url) if self._settings.uploads_url else web_base
        self._hosts = Hosts(site.domains, self._settings)
        self.policies = Policies(users, self._hosts, self._settings)
        """What counts for whom."""
        self._listeners: list[Listener] = []
        self._cancels: list[Callable[[], None]] = []
        self._parts: Parts | None = None
        self._resting: Parts | None = None
        self._cluster: Cluster | None = None
        self._steering = Steering(
            self._other_hosts,
            site.settings.ports.bind,
            per_second=self._settings.sign_ins_per_second if site.peers else 0,
            burst=self._settings.sign_ins_burst,
        )
        self._bosh: Bosh | None = None
        self._private: tempfile.TemporaryDirectory[str] | None = None

    async def start(self) -> None:
        """Listens; returns when every port is bound. Raises Unavailable or ConfigError naming the port or file."""
        if self._parts is not None:
            raise UsageError("the chat service runs already")
        secret = self._secret()
        if self._site.peers:
            secret = await shared_secret(self._store, "chat", secret)
        self._parts, self._resting = self._make_parts(secret, await self._archive_ids()), None
        try:
            await self._start(self._parts)
        except BaseException:
            await self.stop()
            raise

    async def _archive_ids(self) -> ArchiveIds:
        """Made by a key in the database: whoever has the archive calls its messages the same, on any node, for ever."""
        return ArchiveIds(await shared_secret(self._store, "archive ids", secrets.token_bytes(16)))

    def _make_parts(self, secret: bytes, archive_ids: ArchiveIds) -> Parts:
        plane = Plane(
            self._hosts.primary,
            also=self._served(),
            max_stanza=self._settings.max_stanza_bytes,
            handshake_timeout=self._settings.handshake_seconds,
            archive_ids=archive_ids,
            node=list(self._site.inside_nodes).index(self._site.here),
        )
        if self._site.peers:
            self._cluster = Cluster(
                self._site.here,
                tuple(self._site.peers),
                store=self._store,
                bus=self._bus,
                seconds=self._settings.lease_seconds,
            )
        return Parts(
            plane,
            self._hosts,
            self.policies,
            self._settings,
            self._store,
            self._users,
            self._federation,
            self._relays,
            secret,
            files=self._files(),
            web_base=self._web_base or str,
            external=self._attachments(),
            registrar=self._registrar,
            cluster=self._cluster,
        )

    def _attachments(self) -> Attachments | None:
        settings = self._settings
        if not settings.components:
            return None
        try:
            secrets_by_host = {
                prepare_domain(host): read_secret(self._site.root, name) for host, name in settings.components.items()
            }
        except ProtocolError as error:
            raise ConfigError(f"chat.components has a name that is no domain: {error.message}") from error
        port = self._site.settings.ports.bind(settings.components_port)
        address = settings.components_address or self._site.settings.nodes.inside.address
        return Attachments(secrets_by_host, address, port)

    def _other_hosts(self) -> list[tuple[str, str]]:
        alive = self._cluster.alive() if self._cluster is not None else []
        return [(node, f"{node}.{self._site.domain}") for node in alive]

    def _files(self) -> Files | None:
        settings = self._settings
        if not any(host.uploads for host in self._hosts.values()) or self._web_base is None:
            return None
        folder = Path(settings.uploads_dir) if settings.uploads_dir else self._site.node_dir(_NODE) / "uploads"
        return Files(self._store, self._site.root / folder, lambda whose: limits.upload_quotas(self.policies.of(whose)))

    async def moving(self) -> Moving:
        """What takes accounts over and gives them out, over the running service, or over one at rest.

        Raises Unavailable where other nodes may be running.
        """
        parts = self._parts
        if parts is None:
            if self._site.peers:
                raise Unavailable("a site of several nodes has to run for this", hint="start it with: moim up")
            if self._resting is None:
                self._resting = self._make_parts(self._secret(), await self._archive_ids())
                await self.policies.load()
                await self._resting.people.refresh(time.monotonic())
                await self._resting.block_lists.load()
            parts = self._resting
        return Moving(parts, self._store, self._hosts)

    @property
    def files_origin(self) -> str:
        """The origin that links to uploaded files begin with; empty when there are no uploads."""
        offered = any(host.uploads for host in self._hosts.values())
        return self._web_base().rstrip("/") if offered and self._web_base is not None else ""

    @property
    def uploads(self) -> Uploads | None:
        """The upload service, while it runs and is offered."""
        return self._parts.uploads if self._parts is not None else None

    async def _start(self, parts: Parts) -> None:
        await self.policies.load()
        await parts.people.refresh(time.monotonic())
        if parts.rooms is not None:
            await parts.rooms.start()
        await parts.verifiers.learn(parts.people)
        for feature in parts.features:
            if feature.on_start is not None:
                await feature.on_start()
        await self._load_certificate()
        parts.sessions.admit = self._steering.admit
        if self._cluster is not None:
            await self._cluster.start()
        parts.plane.serve(self._served(), self.services)
        parts.plane.start(parts.sessions.handle)
        parts.sessions.start()
        if parts.shared_lists is not None:
            parts.shared_lists.start()
        node, ports = self._site.settings.nodes.inside, self._site.settings.ports
        self._listen("xmpp-client", node.address, ports.bind(5222), "starttls")
        self._listen("xmpp-client-tls", node.address, ports.bind(5223), "tls")
        if node.loopback:
            self._listen("xmpp-websocket", node.address, ports.bind(5280), "websocket")
        else:
            self._listen("xmpp-websocket", node.address, ports.bind(5281), "websocket-tls")
        if self._settings.bosh:
            self._start_bosh(self._settings)
        self._cancels = [
            self._bus.subscribe(CertificateChanged, self._certificate_changed),
            self._bus.subscribe(UserChanged, self._user_changed),
            self._bus.subscribe(UserRemoved, self._user_removed),
            self._bus.subscribe(BusChanged, self._bus_changed),
        ]

    def _start_bosh(self, settings: Settings) -> None:
        folder = self._site.run
        if len(os.fsencode(folder)) > _MAX_SOCKET_FOLDER or not folder.is_dir():
            self._private = tempfile.TemporaryDirectory(prefix="moim-chat-")
            folder = Path(self._private.name)
        inside, outside = (folder / name for name in ("bosh.sock", "bosh-outside.sock"))
        self._listen_unix("bosh", inside, "websocket")
        self._listen_unix("edge-bosh", outside, "websocket")
        self._bosh = Bosh(
            inside=inside,
            outside=outside,
            serves=self._hosts.__contains__,
            limits=bosh.Limits(wait=settings.bosh_wait_seconds, inactivity=settings.bosh_inactivity_seconds),
            bounds=BoshBounds(settings.bosh_sessions, settings.bosh_sessions_per_address),
        )
        self._bosh.start()

    @property
    def bosh(self) -> Bosh | None:
        """The connection manager of BOSH, while it runs and is offered."""
        return self._bosh

    @property
    def origins(self) -> Sequence[str]:
        """Origins of web pages that may connect."""
        return self._origins

    async def listen_edge(self, xmpp: Path, websocket: Path) -> None:
        """Takes what comes through the tunnel, on two Unix sockets: XMPP with STARTTLS, and WebSocket.

        Every connection begins with a PROXY header that names the client. TLS of ``xmpp`` ends here; that of
        ``websocket`` ended at the edge.
        """
        self._listen_unix("edge-xmpp", xmpp, "starttls")
        self._listen_unix("edge-websocket", websocket, "websocket")

    def _listen_unix(self, name: str, path: Path, mode: Mode) -> None:
        path.unlink(missing_ok=True)
        self._listen(name, str(path), 0, mode, proxy_protocol=True)
        path.chmod(0o600)

    def _listen(self, name: str, address: str, port: int, mode: Mode, *, proxy_protocol: bool = False) -> None:
        if self._parts is None:
            raise UsageError("the chat service is not started")
        origins = self._origins if mode.startswith("websocket") else ()
        listener = self._parts.plane.listen(name, address, port, mode, proxy_protocol=proxy_protocol, origins=origins)
        self._parts.sessions.add_listener(listener)
        self._listeners.append(listener)
        _log.info("%s listens on %s", name, address if address.startswith("/") else f"{address}:{listener.port}")

    async def stop(self) -> None:
        """Ends every stream with system-shutdown, after what was accepted is on disk."""
        for cancel in self._cancels:
            cancel()
        self._cancels = []
        parts, self._parts = self._parts, None
        bosh_sessions, self._bosh = self._bosh, None
        if bosh_sessions is not None:
            await bosh_sessions.stop()
        if parts is None:
            return
        if self._cluster is not None:
            await self._steering.drain(parts.sessions.here(), parts.sessions.end, self._cluster.give)
        parts.plane.detach()
        if parts.shared_lists is not None:
            await parts.shared_lists.stop()
        await parts.remote_stanzas.stop()
        await parts.strangers.stop()
        await parts.sessions.stop()
        for feature in parts.features:
            if feature.on_stop is not None:
                await feature.on_stop()
        await self._drain(parts)
        if parts.rooms is not None:
            try:
                await asyncio.wait_for(parts.rooms.stop(), _DRAIN_SECONDS)
            except TimeoutError:
                _log.error("changes of rooms are not on disk after %.0f s; they are lost", _DRAIN_SECONDS)
        if self._cluster is not None:
            await self._cluster.stop()
            self._cluster = None
        await asyncio.to_thread(parts.plane.stop)
        left = parts.plane.unread()
        parts.undelivered.keep(left)
        await self._drain(parts)
        for listener in self._listeners:
            if listener.address.startswith("/"):
                await asyncio.to_thread(Path(listener.address).unlink, missing_ok=True)
        self._listeners.clear()
        if self._private is not None:
            await asyncio.to_thread(self._private.cleanup)
            self._private = None

    @staticmethod
    async def _drain(parts: Parts) -> None:
        try:
            await asyncio.wait_for(parts.offline.drain(), _DRAIN_SECONDS)
        except TimeoutError:
            _log.error("messages that were accepted are not on disk after %.0f s; they are lost", _DRAIN_SECONDS)

    def health(self) -> list[ServiceStatus]:
        """The listeners that clients reach directly, and the links to other nodes."""
        shown = (listener for listener in self._listeners if not listener.address.startswith("/"))
        detail = f"{len(self._parts.sessions)} connections" if self._parts is not None else ""
        found = [ServiceStatus(x.name, _NODE, "tcp", x.address, x.port, "running", detail) for x in shown]
        if self._parts is not None and self._parts.external is not None:
            found.append(self._parts.external.health(_NODE))
        return [*found, *(self._cluster.health(_NODE) if self._cluster is not None else ())]

    @property
    def hosts(self) -> Sequence[str]:
        """The domains that this service answers for, the users' own first. Raises UsageError while stopped."""
        return self._started().hosts

    @property
    def services(self) -> Sequence[str]:
        """Those of them that belong to parts of it, and to components. Raises UsageError while stopped."""
        return self.hosts[len(self._hosts) :]

    def _served(self) -> list[str]:
        """The domains of people, as addresses have them and as the DNS does."""
        return list(dict.fromkeys((*self._hosts, *self._site.domains)))

    @property
    def servers(self) -> ServerPlane:
        """The plane's half for streams between servers. Raises UsageError while stopped."""
        return self._started().plane.servers

    def remote_stanza(self, stanza: Element, over: Callable[[bool], None] | None = None) -> None:
        """Takes a stanza of another domain whose addresses are proven, or the error that answers one to it.

        ``over`` is called once when a message is dealt with: with True when its server may be told so, with False when
        it cannot be kept, and the stream has to end. While chat is stopped it is not called.
        """
        if self._parts is not None:
            self._parts.remote_stanzas.take(stanza, over)

    @staticmethod
    def hold() -> Callable[[], None] | None:
        """Lets the message that is being worked on count as not dealt with until the result is called; None when nobody
        waits for it."""
        held = custody.hold()
        return held.release if held is not None else None

    def _started(self) -> Parts:
        if self._parts is None:
            raise UsageError("the chat service is not started")
        return self._parts

    def stats(self) -> dict[str, int]:
        """The plane's counters, and what was refused and reported; empty while stopped."""
        return {**self._parts.plane.stats(), **self._parts.counts} if self._parts is not None else {}

    def _secret(self) -> bytes:
        """What made-up salts are derived from: kept, because salts that change would tell which accounts are not."""
        path = self._site.node_dir(_NODE) / "chat.secret"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            pass
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            return path.read_bytes()
        except OSError as error:
            raise Unavailable(f"{path} cannot be written: {error.strerror or error}") from error

    async def _load_certificate(self) -> None:
        if self._parts is None:
            return
        files = await asyncio.to_thread(self._credential, _PURPOSE)
        self._parts.plane.use_certificate(files.chain, files.key)

    async def _certificate_changed(self, fact: CertificateChanged) -> None:
        if fact.purpose == _PURPOSE:
            await self._load_certificate()
            _log.info("the certificate for XMPP was replaced; new connections see the new one")

    async def _user_changed(self, fact: UserChanged) -> None:
        bare = self._bare(fact.address)
        if self._parts is None or bare is None:
            return
        if fact.password_changed:
            await self._parts.changes.password_changed(bare)
        await self._parts.changes.look_at_policy(bare)
        await self._parts.changes.tell(await self._parts.people.changed(bare))

    async def _bus_changed(self, fact: BusChanged) -> None:
        if fact.up and self._parts is not None:
            await self._parts.changes.look_at_policies()

    async def _user_removed(self, fact: UserRemoved) -> None:
        bare = self._bare(fact.address)
        if self._parts is not None and bare is not None:
            await self._parts.changes.remove(bare)

    def _bare(self, address: Address) -> str | None:
        bare = bare_jid(address)
        return bare if bare is not None and bare.rpartition("@")[2] in self._hosts else None


def web_origins(site: Site) -> tuple[str, ...]:
    """The origins of the site's own web app, on both nodes."""
    ports, nodes = site.settings.ports, site.settings.nodes

    def https(host: str, port: int) -> str:
        return f"https://{host}" if port == 443 else f"https://{host}:{port}"

    inside = [f"[{a}]" if ":" in a else a for a in (nodes.inside.address, nodes.inside.public_address) if a]
    edge = [f"[{a}]" if ":" in a else a for a in (nodes.edge.address, nodes.edge.public_address) if a]
    origins = [https(host, ports.bind(443)) for host in (*site.domains, site.host("inside"), *inside)]
    if nodes.inside.loopback:
        origins += [f"http://{host}:{ports.bind(8080)}" for host in ("localhost", *inside)]
    for port in (ports.bind(443), ports.bind(8443)):
        origins += [https(host, port) for host in (*site.domains, site.host("edge"), *edge)]
    return tuple(dict.fromkeys(origins))
