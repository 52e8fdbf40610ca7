"""One view of the site's zones on one node: binds the socket pair to the responder, the limiter and the forwarder."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Final

from moim.errors import ConfigError, Unavailable
from moim.model import NodeName, ServiceState, ServiceStatus
from moim.names.answer import Address, Forward, Responder, truncated
from moim.names.forward import Forwarder
from moim.names.limiter import Limiter, Verdict
from moim.names.settings import Settings
from moim.names.zone import Servers, View, build
from moim.net.dns_server import DnsServer
from moim.net.resolver import parse_server
from moim.settings import Site

PORT: Final = 53
_QUIET = 60.0
_CODES = {0: "answered", 1: "malformed", 3: "no_such_name", 4: "not_implemented", 5: "refused"}
_log = logging.getLogger("moim.names")


class Service:
    """Answers DNS for a site on ``node``'s address with one ``view`` of its zones.

    ``port`` overrides the catalogue's (0: any free one, for tests). ``servers`` says how other XMPP servers find it.
    """

    def __init__(
        self, site: Site, *, view: View, node: NodeName, port: int | None = None, servers: Servers | None = None
    ) -> None:
        self.name = f"dns-{view}"
        self._servers = servers
        self.view = view
        self._site = site
        self._node = node
        self._settings = site.section(Settings)
        self._address = (site.settings.nodes.inside if node == "inside" else site.settings.nodes.edge).address
        self._port = site.settings.ports.bind(PORT) if port is None else port
        self._server: DnsServer | None = None
        self._responder: Responder | None = None
        self._forwarder: Forwarder | None = None
        self._limiter = Limiter(self._settings.rate, self._settings.rate_burst, self._settings.rate_exempt)
        self.counters: Counter[str] = Counter()
        self._limited_at = -_QUIET
        self._state: ServiceState = "starting"
        self._detail = ""

    @property
    def port(self) -> int:
        """The port in use."""
        return self._server.port if self._server is not None else self._port

    async def start(self) -> None:
        """Builds the zone and binds. Raises ConfigError for records that cannot be served, Unavailable for the port."""
        if not self._settings.enabled:
            self._state, self._detail = "stopped", "switched off in moim.toml"
            return
        serial = self._settings.serial or int(time.time())
        for record in self._settings.records:
            if record.domain and record.domain not in self._site.domains:
                raise ConfigError(
                    f"moim.toml: names.records: {record.domain} is not a domain of this site",
                    hint="name one of domain and hosted_domains",
                )
        zones = [
            build(self._site, self._settings, self.view, serial=serial, servers=self._servers, domain=domain)
            for domain in self._site.domains
        ]
        if self.view == "inside" and self._settings.forwarders:
            self._refuse_loop()
            self._forwarder = Forwarder(self._settings.forwarders, self._settings.forward_timeout)
        self._responder = Responder(zones, self._settings, forwarding=self._forwarder is not None)
        self._server = DnsServer(
            self._handle,
            self._address,
            self._port,
            connections=self._settings.tcp_connections,
            per_source=self._settings.tcp_per_source,
            queries=self._settings.tcp_queries,
            idle=self._settings.tcp_idle,
        )
        try:
            await self._server.start()
        except Unavailable as error:
            self._state, self._detail = "failed", error.message
            raise
        self._state, self._detail = "running", ""
        _log.info(
            "%s answers for %s on %s:%d", self.name, ", ".join(self._site.domains), self._address, self._server.port
        )

    async def stop(self) -> None:
        """Closes the sockets."""
        if self._server is not None:
            await self._server.stop()
        if self._state != "failed":
            self._state = "stopped"

    def health(self) -> list[ServiceStatus]:
        """One entry."""
        return [ServiceStatus(self.name, self._node, "udp+tcp", self._address, self.port, self._state, self._detail)]

    def _handle(self, message: bytes, source: Address, *, stream: bool) -> Sequence[bytes] | Awaitable[Sequence[bytes]]:
        assert self._responder is not None
        if len(message) < 12 or message[2] & 0x80:
            return ()
        if not stream and (verdict := self._limiter.judge(source, now := time.monotonic())) is not Verdict.SEND:
            self._note_limit(source, now)
            return (truncated(message),) if verdict is Verdict.TRUNCATE else ()
        reply = self._responder.answer(message, source, stream=stream)
        if isinstance(reply, Forward):
            assert self._forwarder is not None
            self.counters["forwarded"] += 1
            return self._forwarder.ask(reply.query, stream=stream)
        if reply:
            self.counters[_CODES.get(reply[0][3] & 0xF, "other")] += 1
        return reply

    def _note_limit(self, source: Address, now: float) -> None:
        self.counters["limited"] += 1
        if now - self._limited_at >= _QUIET:
            self._limited_at = now
            _log.warning("%s limits its answers to the network of %s: more than names.rate", self.name, source)

    def _refuse_loop(self) -> None:
        for text in self._settings.forwarders:
            if parse_server(text) == (self._address, self._port):
                raise ConfigError(
                    f"moim.toml: names.forwarders names this name server itself ({text})",
                    hint="name the resolvers that your network had before",
                )
