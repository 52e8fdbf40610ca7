"""The chat room of one node: binds its parts together, listens, and hears the facts that concern it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moim.bus import Bus
from moim.chat import entity_time, ping, session_request, version
from moim.chat.accounts import Accounts, Session
from moim.chat.avatars import Avatars
from moim.chat.block_lists import BlockLists
from moim.chat.blocking import Blocking
from moim.chat.bookmarks import Bookmarks, bookmarks_config
from moim.chat.contact_addresses import contact_addresses
from moim.chat.contacts import Changes, People
from moim.chat.disco import Discovery
from moim.chat.external_services import ExternalServices, Relays
from moim.chat.negotiation import Policy
from moim.chat.offline import OfflineMessages
from moim.chat.pep import Pep
from moim.chat.pep_events import PepEvents
from moim.chat.pep_store import Bounds, PepStore
from moim.chat.plane import Listener, Mode, Plane
from moim.chat.presence import Presence
from moim.chat.private import PrivateStorage
from moim.chat.rooms import Rooms, RoomSettings
from moim.chat.roster import RosterPushes, RosterRequests
from moim.chat.rosters import Item, Roster, Rosters
from moim.chat.routing import Federation, Router
from moim.chat.sessions import Sessions
from moim.chat.settings import Settings
from moim.chat.subscribing import Subscriptions
from moim.chat.throttle import AuthThrottle
from moim.chat.users import CertificateFiles, Users
from moim.chat.vcard import VCards
from moim.chat.verifiers import Verifiers
from moim.errors import ConfigError, ProtocolError, Unavailable, UsageError
from moim.model import Address, CertificateChanged, ServiceStatus, UserChanged, UserRemoved
from moim.proto.xmpp import Element, Jid, StanzaError, ns, prepare_domain, prepare_local, stream_error
from moim.settings import Site
from moim.store import Store

_PURPOSE = "cup-xmpp"
_NODE = "inside"
_DRAIN_SECONDS = 3.0

_log = logging.getLogger("moim.chat")


class Service:
    """Instant messaging and presence for the site's domain.

    ``credential`` gives the certificate files of a purpose, and may touch the disk. ``origins`` are the web app's
    besides those that follow from the nodes' addresses. ``federation`` takes stanzas for other domains; without it
    they are refused. ``relays`` are the TURN servers that clients are told of.
    """

    def __init__(
        self,
        site: Site,
        store: Store,
        bus: Bus,
        *,
        users: Users,
        credential: Callable[[str], CertificateFiles],
        origins: Sequence[str] = (),
        federation: Federation | None = None,
        relays: Relays | None = None,
    ) -> None:
        self._site = site
        self._store = store
        self._bus = bus
        self._users = users
        self._credential = credential
        self._settings = site.section(Settings)
        self._origins = (*web_origins(site), *self._settings.websocket_origins, *origins)
        self._federation = federation
        self._relays = relays
        self._domain = prepare_domain(site.domain)
        self._listeners: list[Listener] = []
        self._cancels: list[Callable[[], None]] = []
        self._parts: _Parts | None = None

    async def start(self) -> None:
        """Listens; returns when every port is bound. Raises Unavailable or ConfigError naming the port or file."""
        if self._parts is not None:
            raise UsageError("the chat service runs already")
        self._parts = self._make_parts()
        try:
            await self._start(self._parts)
        except BaseException:
            await self.stop()
            raise

    def _make_parts(self) -> _Parts:
        plane = Plane(
            self._domain,
            also=[self._site.domain],
            max_stanza=self._settings.max_stanza_bytes,
            handshake_timeout=self._settings.handshake_seconds,
        )
        return _Parts(
            plane,
            self._domain,
            self._settings,
            self._store,
            self._users,
            self._federation,
            self._relays,
            self._secret(),
        )

    async def _start(self, parts: _Parts) -> None:
        await parts.people.refresh(time.monotonic())
        if parts.rooms is not None:
            await parts.rooms.start()
        await parts.verifiers.learn(bare.partition("@")[0] for bare in parts.people)
        for feature in parts.features:
            if feature.on_start is not None:
                await feature.on_start()
        await self._load_certificate()
        parts.plane.start(parts.sessions.handle)
        parts.sessions.start()
        node, ports = self._site.settings.nodes.inside, self._site.settings.ports
        self._listen("xmpp-client", node.address, ports.bind(5222), "starttls")
        self._listen("xmpp-client-tls", node.address, ports.bind(5223), "tls")
        if node.loopback:
            self._listen("xmpp-websocket", node.address, ports.bind(5280), "websocket")
        else:
            self._listen("xmpp-websocket", node.address, ports.bind(5281), "websocket-tls")
        self._cancels = [
            self._bus.subscribe(CertificateChanged, self._certificate_changed),
            self._bus.subscribe(UserChanged, self._user_changed),
            self._bus.subscribe(UserRemoved, self._user_removed),
        ]

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
        if parts is None:
            return
        parts.plane.detach()
        await parts.sessions.stop()
        try:
            await asyncio.wait_for(parts.offline.drain(), _DRAIN_SECONDS)
        except TimeoutError:
            _log.error("messages that were accepted are not on disk after %.0f s; they are lost", _DRAIN_SECONDS)
        if parts.rooms is not None:
            try:
                await asyncio.wait_for(parts.rooms.stop(), _DRAIN_SECONDS)
            except TimeoutError:
                _log.error("changes of rooms are not on disk after %.0f s; they are lost", _DRAIN_SECONDS)
        await asyncio.to_thread(parts.plane.stop)
        for listener in self._listeners:
            if listener.address.startswith("/"):
                await asyncio.to_thread(Path(listener.address).unlink, missing_ok=True)
        self._listeners.clear()

    def health(self) -> list[ServiceStatus]:
        """The listeners that clients reach directly."""
        shown = (listener for listener in self._listeners if not listener.address.startswith("/"))
        detail = f"{len(self._parts.sessions)} connections" if self._parts is not None else ""
        return [ServiceStatus(x.name, _NODE, "tcp", x.address, x.port, "running", detail) for x in shown]

    def stats(self) -> dict[str, int]:
        """The plane's counters; empty while stopped."""
        return self._parts.plane.stats() if self._parts is not None else {}

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
            error = stream_error("not-authorized", "the password of the account was changed")
            self._parts.sessions.end_account(bare, error)
        await self._parts.tell(await self._parts.people.changed(bare))

    async def _user_removed(self, fact: UserRemoved) -> None:
        bare = self._bare(fact.address)
        if self._parts is not None and bare is not None:
            await self._parts.remove(bare)

    def _bare(self, address: Address) -> str | None:
        try:
            jid = Jid(prepare_local(address.local), prepare_domain(address.domain))
        except ProtocolError:
            return None
        return str(jid) if jid.domain == self._domain else None


class _Parts:
    """The room's parts while it runs, made in the order in which they need each other."""

    def __init__(
        self,
        plane: Plane,
        domain: str,
        settings: Settings,
        store: Store,
        users: Users,
        federation: Federation | None,
        relays: Relays | None,
        secret: bytes,
    ) -> None:
        self.plane = plane
        self.accounts = Accounts()
        self.people = People(
            users,
            domain,
            default_contacts=settings.default_contacts,
            limit=settings.default_contacts_limit,
            max_age=settings.directory_refresh_seconds,
        )
        self.rosters = Rosters(store, self.people, group=settings.default_contacts_group)
        self.block_lists = BlockLists(domain, store)
        self.pushes = RosterPushes(self.accounts, self.plane)
        self.verifiers = Verifiers(users, secret)
        self.offline = OfflineMessages(
            domain,
            accounts=self.accounts,
            plane=self.plane,
            store=store,
            bounce=self._bounce,
            max_messages=settings.offline_messages,
            max_bytes=settings.offline_bytes,
        )
        subscriptions = Subscriptions(
            domain,
            accounts=self.accounts,
            people=self.people,
            plane=self.plane,
            rosters=self.rosters,
            block_lists=self.block_lists,
            pushes=self.pushes,
            remote=self._remote,
            max_items=settings.max_roster_items,
        )
        roster_requests = RosterRequests(
            self.rosters,
            self.pushes,
            max_items=settings.max_roster_items,
            after_removal=subscriptions.after_removal,
        )
        discovery = Discovery("Moim", accounts=self.accounts, rosters=self.rosters)
        blocking = Blocking(
            self.block_lists,
            accounts=self.accounts,
            plane=self.plane,
            visibility=self,
            max_items=settings.max_blocked,
        )
        pep_store = PepStore(
            store,
            Bounds(settings.pep_nodes, settings.pep_items, settings.pep_item_bytes, settings.pep_bytes),
        )
        events = PepEvents(
            pep_store, accounts=self.accounts, rosters=self.rosters, block_lists=self.block_lists, plane=self.plane
        )
        pep = Pep(
            domain,
            pep_store,
            events,
            plane=self.plane,
            max_caps=settings.caps_cache,
            defaults={ns.BOOKMARKS: bookmarks_config(settings.pep_items)},
        )
        avatars = Avatars(pep, pep_store, events, accounts=self.accounts, refresh=self._refresh)
        bookmarks = Bookmarks(pep, pep_store)
        private = PrivateStorage(
            store,
            elsewhere={(ns.STORAGE_BOOKMARKS, "storage"): bookmarks},
            max_items=settings.private_items,
            max_bytes=settings.private_bytes,
        )
        vcards = VCards(users=users, store=store, avatars=avatars, max_bytes=settings.vcard_bytes)

        # Every feature that clients can use. What is not listed here does not exist, and is not announced.
        self.features = (
            avatars.feature,
            blocking.feature,
            bookmarks.feature,
            contact_addresses(
                admin=settings.admin_addresses, abuse=settings.abuse_addresses, support=settings.support_addresses
            ),
            discovery.feature,
            pep.caps.feature,
            entity_time.feature,
            self.offline.feature,
            pep.feature,
            ping.feature,
            private.feature,
            roster_requests.feature,
            session_request.feature,
            vcards.feature,
            version.feature,
            *((ExternalServices(relays).feature,) if relays is not None else ()),
        )
        self.rooms = self._make_rooms(domain, settings, store) if settings.rooms else None
        components = {self.rooms.host: self.rooms} if self.rooms is not None else {}
        discovery.describe(self.features, [(host, component.name) for host, component in components.items()])

        self.presence = Presence(
            domain,
            accounts=self.accounts,
            plane=self.plane,
            rosters=self.rosters,
            block_lists=self.block_lists,
            features=self.features,
            remote=self._remote,
            max_directed=settings.max_directed_presence,
        )
        self.router = Router(
            domain,
            accounts=self.accounts,
            people=self.people,
            plane=self.plane,
            block_lists=self.block_lists,
            offline=self.offline,
            presence=self.presence,
            subscriptions=subscriptions,
            features=self.features,
            federation=federation,
            components=components,
        )
        policy = Policy(
            domain,
            allow_plain=settings.allow_plain,
            channel_binding=settings.channel_binding,
            attempts=settings.auth_failures_per_connection,
            stream_features=(
                *(element for feature in self.features for element in feature.stream_features),
                discovery.caps(f"xmpp:{domain}"),
            ),
        )
        self.sessions = Sessions(
            policy=policy,
            plane=self.plane,
            accounts=self.accounts,
            router=self.router,
            presence=self.presence,
            verifiers=self.verifiers,
            throttle=AuthThrottle(
                per_address=settings.auth_failures_per_address,
                per_account=settings.auth_failures_per_account,
                longest_wait=settings.auth_backoff_max_seconds,
            ),
            features=self.features,
            on_bound=self._bound,
            max_per_account=settings.max_sessions_per_user,
            max_pending=settings.max_pending_stanzas,
            bind_timeout=2 * settings.handshake_seconds,
        )

    def _make_rooms(self, domain: str, settings: Settings, store: Store) -> Rooms:
        limits = RoomSettings(
            host=rooms_host(domain, settings),
            creators=domain if settings.rooms_creation == "local" else "",
            occupants=settings.rooms_occupants,
            history=settings.rooms_history,
            rooms=settings.rooms_max,
            rooms_per_user=settings.rooms_per_user,
            rate=settings.rooms_stanzas_per_second,
            burst=settings.rooms_stanzas_burst,
            persistent=settings.rooms_persistent,
        )
        return Rooms(limits, store=store, deliver=lambda batch: self.router.deliver(batch))

    def _bounce(self, message: Element, error: StanzaError) -> None:
        self.router.reply(message, error)

    def _remote(self, stanza: Element) -> None:
        self.router.remote(stanza)

    def _refresh(self, owner: str) -> None:
        self.presence.refresh(owner)

    def hide(self, owner: str, addresses: frozenset[str]) -> None:
        """See ``Presence``, which is made after the features."""
        self.presence.hide(owner, addresses)

    def unhide(self, owner: str, addresses: frozenset[str]) -> None:
        """See ``Presence``, which is made after the features."""
        self.presence.unhide(owner, addresses)

    async def _bound(self, session: Session) -> None:
        await self.tell(await self.people.refresh(time.monotonic()))
        if session.bare not in self.people:
            await self.tell(await self.people.changed(session.bare))

    async def tell(self, changes: Changes) -> None:
        """Shows everybody who is connected what changed among their default contacts."""
        for account in self.accounts:
            if account.roster is None:
                continue
            for bare in changes.shown:
                if bare not in account.roster.stored and (item := account.roster.item(bare)).listed:
                    self.pushes.push(account.roster, item)
        for bare in changes.gone:
            # Only the directory's own word deletes what is stored: a list may come up short for other reasons.
            self._forget(bare, [])

    def _forget(self, bare: str, losing: list[Roster]) -> None:
        self.sessions.end_account(bare, stream_error("not-authorized", "the account was removed"))
        for account in self.accounts:
            roster = account.roster
            if roster is not None and roster not in losing and roster.item(bare).listed and bare not in roster.stored:
                losing.append(roster)
        self.people.removed(bare)
        for roster in losing:
            self.pushes.push(roster, Item(bare))

    async def remove(self, bare: str) -> None:
        """The account is gone: its sessions end, and everything that was stored for it or about it goes."""
        losing = await self.rosters.drop(bare)
        self._forget(bare, losing)
        for feature in self.features:
            if feature.on_account_removed is not None:
                await feature.on_account_removed(bare)
        if self.rooms is not None:
            await self.rooms.account_removed(bare)


def rooms_host(domain: str, settings: Settings) -> str:
    """The domain of group chat. Raises ConfigError when the setting is no domain, or the site's own."""
    try:
        host = prepare_domain(settings.rooms_host) if settings.rooms_host else f"rooms.{domain}"
    except ProtocolError as error:
        raise ConfigError(f"chat.rooms_host is not a domain: {error.message}") from error
    if host == domain:
        raise ConfigError("chat.rooms_host is the site's own domain", hint="give group chat a domain of its own")
    return host


def web_origins(site: Site) -> tuple[str, ...]:
    """The origins of the site's own web app, on both nodes."""
    ports, nodes = site.settings.ports, site.settings.nodes

    def https(host: str, port: int) -> str:
        return f"https://{host}" if port == 443 else f"https://{host}:{port}"

    inside = [f"[{a}]" if ":" in a else a for a in (nodes.inside.address, nodes.inside.public_address) if a]
    edge = [f"[{a}]" if ":" in a else a for a in (nodes.edge.address, nodes.edge.public_address) if a]
    origins = [https(host, ports.bind(443)) for host in (site.domain, site.host("inside"), *inside)]
    if nodes.inside.loopback:
        origins += [f"http://{host}:{ports.bind(8080)}" for host in ("localhost", *inside)]
    for port in (ports.bind(443), ports.bind(8443)):
        origins += [https(host, port) for host in (site.domain, site.host("edge"), *edge)]
    return tuple(dict.fromkeys(origins))
