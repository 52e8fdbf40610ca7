"""Federation on one node: binds its parts together, listens for other servers, and is the chat room's way to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from moim.bus import Bus
from moim.errors import ConfigError, MoimError, Unavailable, UsageError
from moim.federation import status
from moim.federation.chains import Anchors, load_files, system_anchors
from moim.federation.checking import Checker, Own
from moim.federation.nodes import Nodes
from moim.federation.outbox import returned
from moim.federation.plane import Chat, ServerPlane
from moim.federation.policies import Override, Policies
from moim.federation.running import Running
from moim.federation.settings import Settings, pattern
from moim.model import CertificateChanged, ServiceStatus
from moim.net.resolver import Resolver, parse_server
from moim.proto.xmpp import Element
from moim.settings import Site
from moim.store import Store

SERVER_PORT, SERVER_TLS_PORT = 5269, 5270
_PURPOSE = "cup-xmpp-s2s"
_NODE = "inside"
_REFRESH_SECONDS = 30.0
_POLICY_CHANGED = "the policy for this domain changed"

_log = logging.getLogger("moim.federation")


class CertificateFiles(Protocol):
    """Paths of a certificate chain and its key, both PEM."""

    @property
    def chain(self) -> Path:
        """Leaf first."""
        ...

    @property
    def key(self) -> Path:
        """The private key."""
        ...


class Service:
    """Messages and presence between this site's domains and others.

    ``credential`` gives the certificate files of a purpose; ``anchors`` the site's own authorities; both may touch the
    disk. ``use`` tells it of the chat room before ``start``.
    """

    def __init__(
        self,
        site: Site,
        store: Store,
        bus: Bus,
        *,
        credential: Callable[[str], CertificateFiles],
        anchors: Callable[[], Sequence[x509.Certificate]],
    ) -> None:
        self.site = site
        self.settings = site.section(Settings)
        self.policies = Policies(self.settings, store)
        self._bus = bus
        self._credential = credential
        self._anchors = anchors
        self._chat: Chat | None = None
        self._running: Running | None = None
        self._listeners: list[ServiceStatus] = []
        self._numbers: list[int] = []
        self._nodes = Nodes(bus, site.here, site.peers, rows=self._rows, reset=self._reset)
        self._cancel: list[Callable[[], None]] = []
        self._refresher: asyncio.Task[None] | None = None

    def use(self, chat: Chat) -> None:
        """The chat room whose domains these are."""
        self._chat = chat

    @property
    def running(self) -> Running | None:
        """What runs; None while stopped or switched off."""
        return self._running

    def send(self, stanza: Element) -> None:
        """Takes a stanza for another domain, with both addresses; failures come back as error stanzas."""
        if self._running is not None:
            try:
                self._running.peers.send(stanza)
            except MoimError as error:
                self._return(stanza, "jid-malformed", error.message)
        else:
            self._return(stanza, "remote-server-timeout", "this server is starting or stopping")

    def _return(self, stanza: Element, condition: str, text: str) -> None:
        answer = returned(stanza, condition, text)
        if answer is not None and self._chat is not None:
            self._chat.remote_stanza(answer)

    async def start(self) -> None:
        """Listens; the chat room must run. Raises Unavailable or ConfigError naming the port or file."""
        if not self.settings.enabled:
            return
        if self._chat is None or self._running is not None:
            raise UsageError("federation needs the chat room, and starts once")
        await self.policies.load()
        keys = await self.policies.keys()
        anchors = await asyncio.to_thread(self._load_anchors)
        servers = [parse_server(text) for text in self.settings.resolvers]
        running = Running(
            self._chat, self.settings, self.policies, keys, anchors, self._own_places, dns=Resolver(servers or None)
        )
        await self._load_certificate()
        running.streams.start()
        self._running = running
        node, ports = self.site.settings.nodes.inside, self.site.settings.ports
        try:
            self._listen("xmpp-server", node.address, ports.bind(SERVER_PORT), tls=False)
            self._listen("xmpp-server-tls", node.address, ports.bind(SERVER_TLS_PORT), tls=True)
        except BaseException:
            await self.stop()
            raise
        self._cancel = [self._bus.subscribe(CertificateChanged, self._certificate_changed), self._nodes.start()]
        self._refresher = asyncio.create_task(self._refresh(), name="federation:policies")

    async def refresh(self) -> None:
        """Reads the policies again: another node may have set one. Streams under one that changed end.

        Raises Unavailable.
        """
        for name in await self.policies.load():
            self._end(name, _POLICY_CHANGED)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await self.refresh()
            except MoimError as error:
                _log.warning("the policies for other domains could not be read again: %s", error.message)

    def _load_anchors(self) -> Anchors:
        own = [*self._anchors(), *load_files(Path(self.site.root, text) for text in self.settings.trusted)]
        return Anchors([*own, *(system_anchors() if self.settings.system_authorities else ())])

    def _listen(self, name: str, address: str, port: int, *, tls: bool) -> None:
        plane = self._plane()
        number, bound = plane.listen(name, address, port, "server-tls" if tls else "server")
        self._numbers.append(number)
        self._listeners.append(ServiceStatus(name, _NODE, "tcp", address, bound, "running"))
        _log.info("%s listens on %s:%d", name, address, bound)

    async def listen_edge(self, path: Path) -> None:
        """Takes what comes through the tunnel on a Unix socket, each connection with a PROXY header first."""
        if self._running is None:
            return
        self._listen_unix(path)

    def _listen_unix(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        number, _ = self._plane().listen("edge-xmpp-server", str(path), 0, "server", proxy_protocol=True)
        self._numbers.append(number)
        path.chmod(0o600)

    def _plane(self) -> ServerPlane:
        if self._chat is None:
            raise UsageError("federation needs the chat room")
        return self._chat.servers

    def _own_places(self) -> Iterable[tuple[str, int]]:
        nodes, ports = self.site.settings.nodes, self.site.settings.ports
        for address in (
            nodes.inside.address,
            nodes.edge.address,
            nodes.inside.public_address,
            nodes.edge.public_address,
        ):
            for standard in (SERVER_PORT, SERVER_TLS_PORT):
                if address:
                    yield address, ports.bind(standard)
        if nodes.edge.public_address and self.settings.advertised_port:
            yield nodes.edge.public_address, self.settings.advertised_port

    async def stop(self) -> None:
        """Ends every stream; what waits goes back to its senders."""
        while self._cancel:
            self._cancel.pop()()
        if self._refresher is not None:
            self._refresher.cancel()
            self._refresher = None
        running, self._running = self._running, None
        if running is None:
            return
        for number in self._numbers:
            self._plane().unlisten(number)
        self._numbers.clear()
        self._listeners.clear()
        await running.stop()
        self._plane().detach()

    def health(self) -> list[ServiceStatus]:
        """The listeners that other servers reach directly."""
        if self._running is None:
            return []
        waiting = sum(self._running.outbox.count(peer.domain) for peer in self._running.peers)
        detail = f"{len(self._running.streams)} streams" + (f", {waiting} stanzas wait" if waiting else "")
        return [
            ServiceStatus(one.name, one.node, one.transport, one.address, one.port, one.state, detail)
            for one in self._listeners
        ]

    async def _load_certificate(self) -> None:
        """The general certificate is the chat room's, for people's domains; their services have one that names them."""
        if self._chat is None:
            return
        files = await asyncio.to_thread(self._credential, _PURPOSE)
        for host in self._chat.services:
            try:
                self._plane().use_certificate(host, files.chain, files.key)
            except ConfigError as error:
                raise Unavailable(f"streams for {host} have no certificate: {error.message}") from error

    async def _certificate_changed(self, fact: CertificateChanged) -> None:
        if fact.purpose == _PURPOSE:
            await self._load_certificate()

    def check(self, domain: str, sender: str = "") -> AsyncIterator[dict[str, Any]]:
        """Tries everything with a domain (see ``Checker``), for one of the site's own, by default the service domain.

        For a domain of the site itself: whether others find it. Raises Unavailable while federation does not run, and
        UsageError for a ``sender`` that is not hosted here.
        """
        own = sender or (domain if domain in self.site.domains else self.site.domain)
        if own not in self.site.domains:
            raise UsageError(f"{own} is not a domain of this site", hint=f"one of: {', '.join(self.site.domains)}")
        if domain in self.site.domains and own != domain:
            raise UsageError(f"nothing goes out from {own} to {domain}: both are domains of this site")
        running = self._running
        if running is None:
            raise Unavailable("federation does not run", hint="start the site: moim up, with federation.enabled")
        checker = Checker(
            lambda: self._own(own),
            locator=running.locator,
            streams=running.streams,
            connector=running.connector,
            verifier=running.verifier,
            proofs=running.proofs,
            policies=self.policies,
            keys=running.keys,
            clock=running.clock,
            patience=self.settings.connect_seconds,
        )
        return checker.check(domain)

    def _own(self, domain: str) -> Own:
        nodes, ports = self.site.settings.nodes, self.site.settings.ports
        leaves = set()
        for purpose in ("cup-xmpp", _PURPOSE):
            found = load_files([self._credential(purpose).chain])
            leaves.add(found[0].public_bytes(Encoding.DER))
        return Own(
            domain,
            self.settings.advertised_host or self.site.host("edge"),
            (nodes.edge.public_address or nodes.edge.address,),
            self.settings.advertised_port or ports.bind(SERVER_PORT),
            frozenset(leaves),
        )

    # --- for administrators -------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """What is on, and how much of it."""
        return status.overview(self)

    async def peers(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Every peer that there is something to say about, on any inside node; and the nodes that did not answer."""
        return await self._nodes.peers() if self._running is not None else ([], [])

    def _rows(self) -> list[dict[str, Any]]:
        return status.peers(self._running, self.policies) if self._running is not None else []

    async def set_policy(self, domain: str, override: Override) -> dict[str, Any]:
        """Sets what counts for a domain; its streams end, so that it counts at once."""
        await self.refresh()
        name = await self.policies.put(domain, override)
        await self._follow(name)
        return self.policy(name)

    async def drop_policy(self, domain: str) -> None:
        """Leaves a domain to the settings. Raises NotFound."""
        await self.refresh()
        await self._follow(await self.policies.delete(domain))

    async def _follow(self, name: str) -> None:
        """Each node reads the policies again before it ends streams; one that does not answer does so by itself."""
        if self._running is not None:
            await self._nodes.reset(name, _POLICY_CHANGED)

    def policy(self, domain: str) -> dict[str, Any]:
        """What counts for a domain, and what of it is set for it alone."""
        name = pattern(domain)
        override = self.policies.overrides().get(name)
        counts = self.policies.of(name.removeprefix("*."))
        return {"domain": name, "set": override.as_json() if override else {}, "counts": counts.as_json()}

    async def reset(self, domain: str, reason: str) -> tuple[int, list[str]]:
        """Ends the streams with a domain (or ``*.`` domains) on every inside node, and lets it be tried again at once.

        Gives how many ended, and the nodes that did not answer. Raises Unavailable while federation does not run.
        """
        if self._running is None:
            raise Unavailable("federation does not run", hint="start the site: moim up, with federation.enabled")
        return await self._nodes.reset(domain, reason)

    async def _reset(self, domain: str, reason: str) -> int:
        await self.refresh()
        return self._end(domain, reason)

    def _end(self, domain: str, reason: str) -> int:
        """Ends the streams of this node with a domain, and lets it be tried again."""
        running = self._running
        if running is None:
            return 0

        def matches(remote: str) -> bool:
            try:
                name = pattern(remote)
            except MoimError:
                return False
            return name == domain or (domain.startswith("*.") and name.endswith(domain[1:]))

        for peer in running.peers:
            if matches(peer.domain):
                running.peers.forget(peer.domain)
                running.verifier.forget(peer.domain)
        return running.streams.close_all(matches, reason)
