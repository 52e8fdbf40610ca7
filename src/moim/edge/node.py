"""The edge node: public listeners, the tunnel's listening end, TURN. It does what the inside says, and nothing before.

Everything the inside wants arrives as one state over the control channel. Losing the tunnel changes nothing but this:
requests get 503, connections are closed at once, until it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from moim.bus import Bus
from moim.edge.certificate import EdgeCertificate
from moim.edge.control import (
    Applied,
    ControlChannel,
    Csr,
    DesiredState,
    Hello,
    Listening,
    Push,
    Renew,
    Status,
    from_inside,
)
from moim.edge.keys import edge_keys
from moim.edge.proxy import HttpProxy
from moim.edge.refusals import Refusals
from moim.edge.settings import Settings
from moim.edge.tcp import TcpForwarder
from moim.edge.turn import Turn
from moim.errors import MoimError, Unavailable
from moim.model import ServiceState, ServiceStatus, TunnelChanged
from moim.net.listener import Limits, Listener
from moim.net.streams import ByteStream, SocketStream
from moim.net.tunnel_server import ServerTunnel, TunnelServer
from moim.settings import Site

TUNNEL_PORT = 2222
HTTP_LISTENERS = (("edge-https", 8443), ("edge-web", 443))
TCP_LISTENERS = (("edge-xmpp", 5222), ("edge-xmpp-server", 5269))
_STATUS_S = 5.0
_CERTIFICATE_S = 3600.0
_log = logging.getLogger("moim.edge")


class EdgeNodeService:
    """Everything that runs on the edge node."""

    def __init__(self, *, site: Site, bus: Bus) -> None:
        node = site.settings.nodes.edge
        self._site = site
        self._bus = bus
        self._settings = site.section(Settings)
        self._address = node.address
        self._refusals = Refusals()
        self._certificate = EdgeCertificate(site.node_dir("edge") / "trust", site.host("edge"))
        limits = self._settings.limits
        names = {
            site.host("edge"),
            *site.domains,
            node.address,
            *([node.public_address] if node.public_address else []),
        }
        self._proxy = HttpProxy(limits=limits, refusals=self._refusals, open_target=self._open, names=names)
        self._tcp = TcpForwarder(refusals=self._refusals, open_target=self._open, idle_s=limits.stream_idle_s)
        self._turn = Turn(site=site, settings=self._settings.turn)
        self._listeners = [self._listener(name, port, self._proxy) for name, port in HTTP_LISTENERS]
        self._listeners += [self._listener(name, port, self._tcp) for name, port in TCP_LISTENERS]
        self._server: TunnelServer | None = None
        self._tunnel: ServerTunnel | None = None
        self._state: DesiredState | None = None
        self._down = "the inside has not connected yet"
        self._up_since: datetime | None = None
        self._changed = asyncio.Event()

    @property
    def certificate(self) -> EdgeCertificate:
        """The edge's certificate."""
        return self._certificate

    async def start(self) -> None:
        """Binds everything. Raises Unavailable for a port that cannot be had, ConfigError for keys that are missing."""
        self._certificate.load()
        keys = edge_keys(self._site.root)
        self._server = TunnelServer(
            self._converse,
            address=self._address,
            port=self._site.settings.ports.bind(TUNNEL_PORT),
            host_key=keys.host_key,
            client_key=keys.authorized,
            on_refused=self._refusals.for_listener("tunnel"),
            keepalive_s=self._settings.tunnel.keepalive_s,
            keepalive_missed=self._settings.tunnel.keepalive_missed,
        )
        try:
            for listener in self._listeners:
                listener.start()
            await self._turn.start()
            await self._server.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Closes the listeners, the tunnel and every connection."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners))
        if self._server is not None:
            await self._server.stop()
        self._proxy.pool.clear()
        await self._turn.stop()

    def health(self) -> list[ServiceStatus]:
        """The tunnel, the public listeners and TURN."""
        certificate = "" if self._certificate.context is not None else "waits for its certificate from the inside"
        statuses = [self._tunnel_status()]
        for listener in self._listeners:
            state: ServiceState = "running" if listener.listening else "stopped"
            detail = "" if listener.listening else "not bound"
            if state == "running" and listener.secure and certificate:
                state, detail = "starting", certificate
            elif state == "running" and self._tunnel is None:
                state, detail = "degraded", f"the tunnel is down: {self._down}"
            statuses.append(ServiceStatus(listener.name, "edge", "tcp", listener.address, listener.port, state, detail))
        return [*statuses, *self._turn.health()]

    def _tunnel_status(self) -> ServiceStatus:
        port = self._server.port if self._server is not None else self._site.settings.ports.bind(TUNNEL_PORT)
        if self._tunnel is None:
            return ServiceStatus("tunnel", "edge", "tcp", self._address, port, "degraded", self._down)
        since = f"{self._up_since:%Y-%m-%d %H:%M:%S} UTC" if self._up_since else "now"
        state = f"state {self._state.digest()[:12]}" if self._state is not None else "no state yet"
        lent = ", ".join(sorted(self._tunnel.names))
        detail = f"inside at {self._tunnel.peer}, up since {since}, {state}, targets {lent}"
        return ServiceStatus("tunnel", "edge", "tcp", self._address, port, "running", detail)

    # -- listeners

    def _listener(self, name: str, port: int, proxy: HttpProxy | TcpForwarder) -> Listener:
        async def serve(stream: SocketStream) -> None:
            await proxy.serve(stream, name)

        return Listener(
            serve,
            name=name,
            address=self._address,
            port=self._site.settings.ports.bind(port),
            limits=self._limits(),
            on_refused=self._refusals.for_listener(name),
            tls=(lambda: self._certificate.context) if proxy is self._proxy else None,
        )

    def _limits(self) -> Limits:
        limits = self._settings.limits
        return Limits(limits.connections, limits.connections_per_client, limits.handshake_s)

    async def _open(self, target: str, client: tuple[str, int]) -> ByteStream:
        if self._tunnel is None:
            raise Unavailable("the tunnel to the inside is down, try again in a moment")
        return await self._tunnel.open(target, client)

    # -- the control channel

    async def _converse(self, tunnel: ServerTunnel) -> None:
        channel = ControlChannel(tunnel.control)
        self._tunnel = tunnel
        self._up_since = datetime.now(UTC)
        _log.info("the tunnel is up: the inside at %s", tunnel.peer)
        await self._bus.publish(TunnelChanged(self._site.host("edge"), True, f"inside at {tunnel.peer}"))
        reporter = asyncio.get_running_loop().create_task(self._report(channel), name="edge:report")
        reason = ""
        try:
            await channel.send(Hello(version=_version()))
            if self._certificate.due():
                await channel.send(Csr(pem=self._certificate.request().decode()))
            while (message := await channel.receive(from_inside)) is not None:
                await self._take(channel, message)
            reason = "the inside closed it"
        except (OSError, EOFError) as error:
            reason = f"it broke: {error or type(error).__name__}"
        except MoimError as error:
            reason = str(error)
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)
            if self._tunnel is tunnel:
                self._tunnel = None
                self._up_since = None
                self._down = tunnel.reason or reason
                self._proxy.pool.clear()
                _log.warning("the tunnel is down: %s", self._down)
                await self._bus.publish(TunnelChanged(self._site.host("edge"), False, self._down))

    async def _take(self, channel: ControlChannel, message: Push | Renew) -> None:
        if isinstance(message, Renew):
            await channel.send(Csr(pem=self._certificate.request().decode()))
            return
        problems = await self._apply(message.state)
        await channel.send(Applied(serial=message.serial, digest=message.state.digest(), problems=tuple(problems)))
        self._changed.set()

    async def _apply(self, state: DesiredState) -> list[str]:
        """Makes a state rule; each part alone, so that one that fails keeps no other from it. Returns sentences."""
        problems: list[str] = []
        self._proxy.apply(state)
        self._tcp.apply(state)
        try:
            self._turn.apply(
                secrets=state.turn.secrets,
                users={user.name: user.password for user in state.turn.users},
                allow_peers=[(peer.address, peer.port) for peer in state.turn.allow_peers],
            )
        except MoimError as error:
            problems.append(f"TURN: {error}"[:500])
        if state.certificate:
            try:
                if self._certificate.install(state.certificate.encode()):
                    _log.info("a new certificate is in use, valid until %s", self._certificate.expires)
            except (MoimError, OSError) as error:
                problems.append(f"certificate: {error}"[:500])
        self._state = state
        return problems

    async def _report(self, channel: ControlChannel) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            while True:
                await channel.send(self._status())
                self._changed.clear()
                try:
                    async with asyncio.timeout(_STATUS_S):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                if loop.time() - asked > _CERTIFICATE_S and self._certificate.due():
                    asked = loop.time()
                    await channel.send(Csr(pem=self._certificate.request().decode()))
        except (OSError, MoimError) as error:
            _log.info("the status could not be sent: %s", error)

    def _status(self) -> Status:
        counters: Counter[str] = self._refusals.counters + self._proxy.counters + self._tcp.counters
        for listener in self._listeners:
            counters[f"{listener.name}.accepted"] = listener.accepted
            counters[f"{listener.name}.open"] = listener.connections
        listening = [
            Listening(
                name=status.name,
                transport=status.transport,
                address=status.address,
                port=status.port,
                state=status.state,
                detail=status.detail[:500],
            )
            for status in self.health()
        ]
        return Status(
            listeners=tuple(listening),
            counters=dict(counters),
            refusals=self._refusals.list()[:100],
            relays=tuple(self._turn.relays()[:1024]),
        )


def _version() -> str:
    try:
        return version("moim")
    except PackageNotFoundError:
        return ""
