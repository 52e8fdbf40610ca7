"""The inside node's half of the edge: dials the tunnel, says what the edge is to do, answers clients that sign in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from moim.bus import Bus
from moim.edge.allow import ManualRules, automatic_inside, edge_rules
from moim.edge.control import AllowedPeer, DesiredState, Status, TcpRoute, TurnState
from moim.edge.dialer import Dialer
from moim.edge.ice import IceServers, TurnSecrets
from moim.edge.keys import inside_keys
from moim.edge.mra import InternalSrv, MraApp, PasswordVerifier
from moim.edge.mra_proxy import InsideProxy
from moim.edge.node import TUNNEL_PORT
from moim.edge.rules import Rule, RuleTable
from moim.edge.sessions import Sessions
from moim.edge.settings import Settings
from moim.model import CertificateChanged, ServiceState, ServiceStatus, TunnelChanged, UserChanged, UserRemoved
from moim.net.http_server import HttpServer
from moim.net.streams import Target
from moim.net.tunnel_client import ClientTunnel, dial
from moim.proto import mra
from moim.settings import Site

_ROTATE_S = 300.0
_log = logging.getLogger("moim.edge")


class Signer(Protocol):
    """Signs the edge's certificate requests: trust."""

    def sign_edge(self, csr_pem: bytes) -> bytes:
        """The chain (PEM, leaf first) for a request (PKCS #10, PEM). Raises MoimError when it is refused."""
        ...


class EdgeInsideService:
    """The connector. ``targets`` are what the edge may open, by name: ``web``, ``xmpp-websocket``, ``xmpp``.

    ``mra`` is added here. ``media`` lists (IP address, UDP port) of the media plane, which TURN may relay to although
    they are private; ``set_media`` replaces them.
    """

    def __init__(
        self,
        *,
        site: Site,
        bus: Bus,
        signer: Signer,
        verifier: PasswordVerifier,
        internal_srv: InternalSrv,
        targets: Mapping[str, Target],
        media: Iterable[tuple[str, int]] = (),
    ) -> None:
        self._site = site
        self._bus = bus
        self._signer = signer
        self._settings = site.section(Settings)
        self._edge = site.host("edge")
        self._domains = tuple(self._settings.domains) or site.domains
        self._media = tuple(media)
        nodes, bind = site.settings.nodes, site.settings.ports.bind
        addresses = {site.host("inside"): nodes.inside.address, site.host("edge"): nodes.edge.address}
        folder = inside_keys(site.root).client_key.parent
        self._automatic = automatic_inside(site)
        hosts = frozenset((site.host("inside"), nodes.inside.address))
        self.manual = ManualRules(folder / "allow-list.csv", hosts, self._automatic)
        self._secrets = TurnSecrets(folder / "turn-secrets.json", self._settings.ice)
        self.ice = IceServers(
            self._secrets,
            public=nodes.edge.public_address or nodes.edge.address,
            private=nodes.edge.address,
            port=bind(3478),
            inside=self._settings.ice.relay_inside,
            enabled=self._settings.turn.enabled,
        )
        self._sessions = Sessions(lifetime_s=self._settings.mra.session_s, most=self._settings.mra.sessions)
        self._proxy = InsideProxy(addresses=addresses, ca_file=site.ca_file, settings=self._settings.mra)
        self._mra = MraApp(
            site_domains=site.domains,
            domains=self._domains,
            base=_base_config(site, turn=self._settings.turn.enabled),
            verifier=verifier,
            internal_srv=internal_srv,
            sessions=self._sessions,
            proxy=self._proxy,
        )
        mra_socket = site.run / "edge-mra.sock"
        self._mra_server = HttpServer(self._mra.asgi, path=mra_socket)
        self._targets = {**targets, "mra": Target(path=mra_socket)}
        self._dialer = Dialer(
            open_tunnel=self._dial,
            desired=self.desired,
            sign=self._sign,
            changed=self._tunnel_changed,
            settings=self._settings.tunnel,
        )
        self._upkeep: asyncio.Task[None] | None = None
        # From the beginning: trust finds out about an outdated certificate before this service starts.
        self._subscriptions: list[Callable[[], None]] = [
            bus.subscribe(CertificateChanged, self._certificate_changed),
            bus.subscribe(UserRemoved, self._user_removed),
            bus.subscribe(UserChanged, self._user_changed),
        ]

    async def start(self) -> None:
        """Serves sign-in on its socket and begins to dial; the tunnel itself may come later."""
        self._site.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._secrets.load()
        self.manual.load()
        self._apply_rules()
        self._proxy.start()
        await self._mra_server.start()
        self._dialer.start()
        self._upkeep = asyncio.get_running_loop().create_task(self._keep_up(), name="edge:upkeep")

    async def stop(self) -> None:
        """Closes the tunnel and the sign-in service."""
        for cancel in self._subscriptions:
            cancel()
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        await self._dialer.stop()
        await self._mra_server.stop()
        await self._proxy.stop()

    def health(self) -> list[ServiceStatus]:
        """The tunnel as this side sees it."""
        node, port = self._site.settings.nodes.edge, self._site.settings.ports.bind(TUNNEL_PORT)
        dialer = self._dialer
        if not dialer.up:
            detail = f"{self._edge} is not connected: {dialer.detail}"
            return [ServiceStatus("tunnel", "inside", "tcp", node.address, port, "degraded", detail)]
        since = f"{dialer.since:%Y-%m-%d %H:%M:%S} UTC" if dialer.since else "now"
        state_is = dialer.applied[:12] if dialer.applied == dialer.pushed else "on its way"
        detail = f"{self._edge}, up since {since}, state {state_is}"
        if dialer.problems:
            detail += "; the edge could not do all of it: " + "; ".join(dialer.problems)
        state: ServiceState = "degraded" if dialer.problems else "running"
        return [ServiceStatus("tunnel", "inside", "tcp", node.address, port, state, detail)]

    # -- what other rooms and the admin API use

    @property
    def up(self) -> bool:
        """Whether the tunnel is up."""
        return self._dialer.up

    @property
    def edge_status(self) -> Status:
        """The edge's latest snapshot: listeners, counters, refusals, relays; empty while the tunnel is down."""
        return self._dialer.status

    @property
    def counters(self) -> dict[str, int]:
        """What happened on this side: sign-ins through the edge, proxied requests."""
        return {**self._mra.counters, "sessions": len(self._sessions)}

    async def set_media(self, media: Iterable[tuple[str, int]]) -> None:
        """Replaces the media addresses that TURN may relay to, and tells the edge."""
        self._media = tuple(media)
        await self._dialer.push()

    async def renew_certificate(self) -> None:
        """Has the edge ask for a new certificate."""
        await self._dialer.renew()

    async def settled(self) -> None:
        """Returns when the edge has taken over the latest state."""
        await self._dialer.settled()

    async def replace_manual_rules(self, text: str) -> tuple[Rule, ...]:
        """Replaces the administrator's rows by those of a CSV text and tells the edge. Raises UsageError."""
        rules = self.manual.replace(text)
        self._apply_rules()
        await self._dialer.push()
        return rules

    def inside_rules(self) -> tuple[Rule, ...]:
        """Which servers inside signed-in clients may reach: automatic rows, then the administrator's."""
        return (*self._automatic, *self.manual.rules)

    def desired(self, certificate: str = "") -> DesiredState:
        """The whole state that the edge is to have."""
        return DesiredState(
            domains=self._domains,
            hosts=(self._edge, *self._site.domains, *self._settings.names),
            http=edge_rules(self._domains, self.inside_rules()),
            tcp=tuple(
                TcpRoute(listener=listener, target=target)
                for listener, target in (("edge-xmpp", "xmpp"), ("edge-xmpp-server", "xmpp-server"))
                if target == "xmpp" or target in self._targets
            ),
            turn=TurnState(
                secrets=self._secrets.values(),
                allow_peers=tuple(AllowedPeer(address=address, port=port) for address, port in self._media),
            ),
            certificate=certificate,
        )

    # -- inner workings

    def _apply_rules(self) -> None:
        self._proxy.rules = RuleTable(self.inside_rules())

    async def _dial(self) -> ClientTunnel:
        keys = inside_keys(self._site.root)
        tunnel = self._settings.tunnel
        return await dial(
            address=self._site.settings.nodes.edge.address,
            port=self._site.settings.ports.bind(TUNNEL_PORT),
            client_key=keys.client_key,
            host_key=keys.known_host,
            lend=lambda: self._targets,
            idle_s=self._settings.limits.stream_idle_s * 2,  # the edge's own limit comes first
            timeout=tunnel.connect_s,
            keepalive_s=tunnel.keepalive_s,
            keepalive_missed=tunnel.keepalive_missed,
        )

    async def _sign(self, request: bytes) -> bytes:
        return await asyncio.to_thread(self._signer.sign_edge, request)

    async def _tunnel_changed(self, up: bool, detail: str) -> None:
        await self._bus.publish(TunnelChanged(self._edge, up, detail))

    async def _certificate_changed(self, fact: CertificateChanged) -> None:
        if fact.purpose == "edge":
            await self._dialer.renew()

    async def _user_removed(self, fact: UserRemoved) -> None:
        self._sessions.close_for(fact.address)

    async def _user_changed(self, fact: UserChanged) -> None:
        if fact.password_changed:
            self._sessions.close_for(fact.address)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_S)
            try:
                if self._secrets.rotate():
                    _log.info("the shared secret of TURN was replaced")
                    await self._dialer.push()
            except Exception:
                _log.exception("the secrets of TURN could not be replaced; trying again")


def _base_config(site: Site, *, turn: bool) -> mra.EdgeConfig:
    bind = site.settings.ports.bind
    edge, inside = site.host("edge"), site.host("inside")
    return mra.EdgeConfig(
        services=(mra.Service("tftpServer", addresses=(inside,)),),
        xmpp=(mra.EdgeServer(edge, bind(5222)),),
        http=(mra.EdgeServer(edge, bind(8443)),),
        turn=(mra.EdgeServer(edge, bind(3478)),) if turn else (),
        user_uds=(mra.EdgeServer(inside, bind(8443)),),
    )
