"""The composition root: the only file that knows every room. Makes a site, and builds what each kind of node runs."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, get_args

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from moim import (
    chat,
    console,
    directory,
    discovery,
    edge,
    federation,
    meetings,
    names,
    portal,
    provisioning,
    settings,
    trust,
)
from moim.bus import Bus, NatsBus
from moim.bus import Settings as BusSettings
from moim.chat import moving
from moim.errors import ConfigError, Conflict, UsageError
from moim.model import Address, CertificateChanged, NodeName, ServiceStatus, domain_name
from moim.net.http_server import HttpServer
from moim.net.resolver import Resolver
from moim.net.streams import Target
from moim.settings import Section, Site
from moim.store import Settings as StoreSettings
from moim.store import Store, Where, migrate

NODES: tuple[NodeName, ...] = get_args(NodeName)
_DEMO_USERS = (("alice", "앨리스 Alice"), ("bob", "밥 Bob"), ("carol", "캐럴 Carol"))

ROOMS: dict[str, type[Section]] = {
    "bus": BusSettings,
    "chat": chat.Settings,
    "console": console.Settings,
    "directory": directory.Settings,
    "edge": edge.Settings,
    "federation": federation.Settings,
    "meetings": meetings.Settings,
    "names": names.Settings,
    "portal": portal.Settings,
    "provisioning": provisioning.Settings,
    "store": StoreSettings,
    "trust": trust.Settings,
}


class Part(Protocol):
    """A room's service, as a node runs it."""

    async def start(self) -> None:
        """Returns when its listeners are bound."""
        ...

    async def stop(self) -> None:
        """Returns within a second or so, everything closed."""
        ...

    def health(self) -> list[ServiceStatus]:
        """Its listeners and connections now."""
        ...


def open_site(root: Path) -> Site:
    """Reads the site in ``root``. Raises ConfigError with the file, the key and the next step."""
    return settings.load(root, ROOMS)


def create_site(root: Path, *, domain: str, demo: bool, ports: str, inside: str, edge_address: str) -> Site:
    """Makes a site in ``root``: whole, or nothing. Secrets get mode 0600. Raises Conflict when something is there."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise Conflict(f"{root} holds something that is not a site", hint="name another directory with --site")
    name = domain_name(domain)
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        for node in NODES:
            (draft / node).mkdir(mode=0o700)
        (draft / "moim.toml").write_text(_toml(name, ports, inside, edge_address), encoding="utf-8")
        (draft / "moim.toml").chmod(0o600)
        site = open_site(draft)
        trust.create_authority(draft, name)
        edge.create_keys(draft)
        console.write_token(draft)
        if demo:
            asyncio.run(_add_demo_users(site))
        os.rename(draft, root)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return open_site(root)


def _toml(domain: str, ports: str, inside: str, edge_address: str) -> str:
    return (
        "# This site. Every key with its meaning and default: docs/settings.md.\n"
        f'domain = "{domain}"\n\n[ports]\nprofile = "{ports}"\n\n'
        f'[nodes.inside]\naddress = "{inside}"\n\n[nodes.edge]\naddress = "{edge_address}"\n'
    )


async def _add_demo_users(site: Site) -> None:
    store = _open_store(site)
    try:
        users = directory.Service(site, store, Bus(), credential=trust.Service(site, Bus()).credential).users
        made = []
        for local, shown in _DEMO_USERS:
            password = secrets.token_urlsafe(9)
            await users.add(Address(local, site.domain), password, display_name=shown)
            made.append({"address": f"{local}@{site.domain}", "password": password})
    finally:
        store.close()
    path = site.root / "demo-users.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _open_store(site: Site) -> Store:
    settings = site.section(StoreSettings)
    where: Where = settings.database(site.root) or site.node_dir("inside") / "moim.db"
    store = Store(where, readers=settings.connections) if settings.url else Store(where)
    rooms = (
        *(chat, chat.archive, chat.cluster, chat.fast, moving, chat.push, chat.rooms, chat.uploads),
        *(directory, federation, meetings),
    )
    migrate(where, [Path(room.__path__[0]) / "migrations" for room in rooms])
    return store


def _open_bus(site: Site) -> Bus:
    settings = site.section(BusSettings)
    if site.peers and not (settings.url and site.section(StoreSettings).url):
        raise ConfigError(
            "moim.toml: several inside nodes need one database and one bus",
            hint="set store.url to a PostgreSQL database and bus.url to a NATS server",
        )
    if not settings.url:
        return Bus()
    return NatsBus(settings, root=site.root, domain=site.domain, node=site.here)


def build(node: str, site: Site) -> Sequence[Part]:
    """The parts of a node in the order in which they start; they stop in the other order."""
    if node in site.inside_nodes:
        return _inside(site.as_node(node))
    if node == "edge":
        return _edge(site)
    raise UsageError(f"there is no node called '{node}'", hint=f"nodes are: {', '.join((*site.inside_nodes, 'edge'))}")


def _edge(site: Site) -> Sequence[Part]:
    return [
        edge.EdgeNodeService(site=site, bus=Bus()),
        names.Service(site, view="outside", node="edge", servers=_servers(site)),
    ]


def _inside(site: Site) -> Sequence[Part]:
    bus, ports, here = _open_bus(site), site.settings.ports, site.settings.nodes.inside
    store = _StorePart(site)
    certificates = trust.Service(site, bus)
    people = directory.Service(
        site, store.store, bus, credential=certificates.credential, policies=site.section(chat.Settings).policies
    )
    files = provisioning.Service(site, bus, credential=certificates.credential, devices=people.users)
    inside_names = names.Service(site, view="inside", node="inside", servers=_servers(site))
    others = federation.Service(
        site,
        store.store,
        bus,
        credential=certificates.credential,
        anchors=lambda: [certificates.authority.certificate],
    )
    others_socket = site.run / "xmpp-server.sock"
    web_sessions = portal.make_sessions(site.section(portal.Settings))
    web_socket = site.run / "web.sock"
    chat_socket, chat_web_socket = site.run / "xmpp.sock", site.run / "xmpp-websocket.sock"
    connector = edge.EdgeInsideService(
        site=site,
        bus=bus,
        signer=certificates,
        verifier=people.users,
        internal_srv=_InternalSrv(site),
        targets={
            "web": Target(path=web_socket),
            "xmpp": Target(path=chat_socket, announce=True),
            "xmpp-websocket": Target(path=chat_web_socket, announce=True),
            "xmpp-server": Target(path=others_socket, announce=True),
        },
    )
    chat_rooms = chat.Service(
        site,
        store.store,
        bus,
        users=people.users,
        credential=certificates.credential,
        relays=connector.ice,
        web_base=lambda: _public_base(site),
        registrar=people.users,
        federation=others if others.settings.enabled else None,
    )
    others.use(chat_rooms)
    spaces = meetings.Service(
        site, store.store, bus, sessions=web_sessions, ice=connector.ice, links=lambda: _public_base(site)
    )
    scheme, standard = ("ws", 5280) if here.loopback else ("wss", 5281)
    host = here.address if here.loopback else site.host("inside")
    websocket = f"{scheme}://{host}:{ports.bind(standard)}/xmpp-websocket"
    web = portal.Service(
        site,
        bus,
        users=people.users,
        discover=_Discover(site),
        websocket_url=websocket,
        files_origin=lambda: chat_rooms.files_origin,
        credential=certificates.credential,
        extra_routes=[*meetings.public_routes(spaces), *chat.public_routes(chat_rooms, websocket_url=websocket)],
        sessions=web_sessions,
    )
    api = console.Service(
        site,
        routes=[*_admin_routes(people, certificates, spaces, others, chat_rooms), *edge.admin_routes(connector)],
        credential=certificates.credential,
    )
    # The edge has one tunnel: the first inside node's.
    border: list[Part] = (
        [_EdgeWeb(web.asgi, web_socket), _MediaPart(connector, spaces)] if site.here == "inside" else []
    )
    return [
        store,
        bus,
        certificates,
        inside_names,
        people,
        files,
        _ChatPart(chat_rooms, chat_socket, chat_web_socket),
        _FederationPart(others, others_socket),
        spaces,
        web,
        *border,
        _ConsolePart(api, bus),
    ]


def _servers(site: Site) -> names.Servers:
    """What the name server says to other XMPP servers: the users' domains, and those of the chat service's parts."""
    rules = site.section(federation.Settings)
    hosts = chat.hosts(site.domains, site.section(chat.Settings))
    return names.Servers(hosts, rules.enabled, rules.advertised_host, rules.advertised_port)


def _admin_routes(
    people: directory.Service,
    certificates: trust.Service,
    spaces: meetings.Service,
    others: federation.Service,
    chat_rooms: chat.Service,
) -> Sequence[BaseRoute]:
    return [
        *chat.admin_routes(chat_rooms, people.users),
        *federation.admin_routes(others),
        *directory.admin_routes(people),
        *trust.admin_routes(certificates),
        *meetings.admin_routes(spaces),
    ]


@asynccontextmanager
async def offline_admin(site: Site) -> AsyncIterator[str]:
    """Serves the admin API of a site that does not run, on a free loopback port of this process; gives its base URL."""
    store = _open_store(site)
    bus = Bus()
    certificates = trust.Service(site, bus)
    people = directory.Service(
        site, store, bus, credential=certificates.credential, policies=site.section(chat.Settings).policies
    )
    sessions = portal.make_sessions(site.section(portal.Settings))
    spaces = meetings.Service(site, store, bus, sessions=sessions, ice=_NoRelays(), links=lambda: _public_base(site))
    others = federation.Service(site, store, bus, credential=certificates.credential, anchors=list)
    rooms = chat.Service(site, store, bus, users=people.users, credential=certificates.credential)
    routes = _admin_routes(people, certificates, spaces, others, rooms)
    server = HttpServer(
        console.admin_application(console.read_token(site.root), routes),
        address="127.0.0.1",
    )
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()
        store.close()


def _public_base(site: Site) -> str:
    """Where links for guests point: the edge; on a site that only this machine reaches, the inside's plain listener."""
    ports, here, border = site.settings.ports, site.settings.nodes.inside, site.settings.nodes.edge
    if here.loopback and border.loopback:
        return f"http://{here.address}:{ports.bind(8080)}"
    port = ports.bind(443)
    return f"https://{site.host('edge')}" + ("" if port == 443 else f":{port}")


class _NoRelays:
    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        return []


class _StorePart:
    """The store as the first part of the inside node: open before the rooms, closed after them."""

    def __init__(self, site: Site) -> None:
        self.store = _open_store(site)

    async def start(self) -> None:
        """Already open."""

    async def stop(self) -> None:
        """Finishes the writes that are queued."""
        self.store.close()

    def health(self) -> list[ServiceStatus]:
        """Listens nowhere."""
        return []


class _ChatPart:
    """Chat with its two listeners for the tunnel."""

    def __init__(self, service: chat.Service, xmpp: Path, websocket: Path) -> None:
        self._service, self._xmpp, self._websocket = service, xmpp, websocket
        self.stop = service.stop
        self.health = service.health

    async def start(self) -> None:
        await self._service.start()
        await self._service.listen_edge(self._xmpp, self._websocket)


class _FederationPart:
    """Federation with its listener for the tunnel; after chat, whose plane it uses."""

    def __init__(self, service: federation.Service, path: Path) -> None:
        self._service, self._path = service, path
        self.stop = service.stop
        self.health = service.health

    async def start(self) -> None:
        await self._service.start()
        await self._service.listen_edge(self._path)


class _EdgeWeb:
    """The web app once more, for what comes through the tunnel: marked as from outside."""

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        self._server = HttpServer(self._outside, path=path)
        self.start = self._server.start
        self.stop = self._server.stop

    async def _outside(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["outside"] = True
        await self._app(scope, receive, send)

    def health(self) -> list[ServiceStatus]:
        return []


class _MediaPart:
    """The connector, told where the media plane is once that is bound."""

    def __init__(self, connector: edge.EdgeInsideService, spaces: meetings.Service) -> None:
        self._connector, self._spaces = connector, spaces
        self.stop = connector.stop
        self.health = connector.health

    async def start(self) -> None:
        await self._connector.set_media(self._spaces.media)
        await self._connector.start()


class _ConsolePart:
    """The admin API, with its certificate kept fresh."""

    def __init__(self, service: console.Service, bus: Bus) -> None:
        self._service, self._bus = service, bus
        self.stop = service.stop
        self.health = service.health

    async def start(self) -> None:
        self._bus.subscribe(CertificateChanged, self._reload)
        await self._service.start()

    async def _reload(self, fact: CertificateChanged) -> None:
        if fact.purpose == "tomcat":
            self._service.reload()


class _InternalSrv:
    """SRV records as the inside name server gives them, for clients that ask through the edge."""

    def __init__(self, site: Site) -> None:
        self._resolver = Resolver([(site.settings.nodes.inside.address, site.settings.ports.bind(53))])

    async def __call__(self, name: str) -> Sequence[tuple[int, int, int, str]]:
        answer = await self._resolver.services(name)
        return [(r.priority, r.weight, r.port, r.target) for r in answer.services]


class _Discover:
    """The web app's discovery: the engine of ``moim discover``, asking the name server of the caller's side."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, address: Address, *, outside: bool) -> AsyncIterator[Mapping[str, Any]]:
        node = self._site.settings.nodes.edge if outside else self._site.settings.nodes.inside
        told: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()

        async def run() -> Mapping[str, Any]:
            try:
                outcome = await discovery.discover(
                    str(address),
                    dns=[(node.address, self._site.settings.ports.bind(53))],
                    ca=self._site.ca_file,
                    on_step=lambda step: told.put_nowait(step.to_json()),
                )
                return outcome.to_json()
            finally:
                told.put_nowait(None)

        running = asyncio.create_task(run())
        try:
            while (step := await told.get()) is not None:
                yield step
            yield await running
        finally:
            running.cancel()
