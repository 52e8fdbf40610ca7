"""A world for the engine without sockets: name server, UDS, edge and XMPP servers as values, and a clock that jumps."""

from __future__ import annotations

import base64
import heapq
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from discovery_world import Authority, Live
from moim.discovery import Discovery, Memory, Outcome, Start, Step, parse_target
from moim.discovery.actions import (
    Addresses,
    AskPassword,
    Credentials,
    Failed,
    HttpGet,
    LoggedIn,
    NoCredentials,
    Nothing,
    QueryAddress,
    QuerySrv,
    Records,
    Request,
    Response,
    Result,
    Srv,
    XmppLogin,
)
from moim.discovery.messages import TEXT
from moim.proto import mra

_places = itertools.count(1)
NS = "192.0.2.53:53"
WALL = 1_900_000_000.0
PROFILE = (
    "<ServiceProfile><IMandPresence><ProductType>{product}</ProductType><PrimaryAddress>{im}</PrimaryAddress>"
    "<PrimaryPort>5222</PrimaryPort><PrimaryProtocol>TCP</PrimaryProtocol></IMandPresence>"
    "<Directory><UseUDS>true</UseUDS><BaseFilter/></Directory></ServiceProfile>"
)
CONFIG = "<config><Directory><BaseFilter>from-file</BaseFilter><UseUDS>false</UseUDS></Directory></config>"
COOKIE = "X-Auth=abc; Expires=Fri, 01 Jan 2038 00:00:00 GMT; Domain=.example.com"
Page = Response | Failed | Callable[[HttpGet], "Response | Failed"]


def page(text: str | bytes, status: int = 200, **headers: str) -> Response:
    body = text if isinstance(text, bytes) else text.encode()
    return Response(status, {name.replace("_", "-"): (value,) for name, value in headers.items()}, body)


@dataclass
class World:
    """What the outside of the engine answers. A value of None never answers."""

    srv: dict[str, Result | None] = field(default_factory=dict)
    hosts: dict[str, Result | None] = field(default_factory=dict)
    pages: dict[tuple[str, int, str], Page | None] = field(default_factory=dict)
    xmpp: dict[tuple[str, int], Result | None] = field(default_factory=dict)
    passwords: list[str] = field(default_factory=lambda: ["secret"])
    right: str = "secret"
    thinking: float = 5.0
    asked: list[Request] = field(default_factory=list)
    cancelled: int = 0
    memory: Memory = field(default_factory=Memory)
    wall: float = WALL
    elapsed: float = 0.0

    # -- furnishing

    def service(self, name: str, *targets: tuple[int, int, int, str], ttl: int = 60) -> None:
        self.srv[name] = Records(tuple(Srv(*target) for target in targets), ttl, NS)

    def host(self, *names: str) -> None:
        for name in names:
            self.hosts[name] = Addresses((f"192.0.2.{len(self.hosts) + 1}",), 60, NS)

    def uds(
        self, host: str, *, user: str = "alice", product: str = "IM and Presence", im: str = "", port: int = 8443
    ) -> None:
        """A UDS server with one user, their device and profile."""
        port = 8443
        base = f"https://{host}:{port}/cucm-uds"
        self.host(host)

        def cluster_user(request: HttpGet) -> Response:
            query = parse_qs(urlsplit(request.path).query)
            found = query.get("email") == [f"{user}@example.com"] or query.get("username") == [user]
            if not found:
                return page('<clusterUser><result found="false"/></clusterUser>')
            return page(
                f'<clusterUser><result found="true" uri="{base}/user/{user}"/>'
                f'<homeCluster serversUri="{base}/servers">{host}</homeCluster></clusterUser>'
            )

        def protected(text: str) -> Callable[[HttpGet], Response]:
            def answer(request: HttpGet) -> Response:
                expected = base64.b64encode(f"{user}:{self.right}".encode()).decode()
                allowed = dict(request.headers).get("Authorization") == f"Basic {expected}"
                return page(text) if allowed else page("", 401)

            return answer

        put = self.pages
        put[host, port, "/cucm-uds/clusterUser"] = cluster_user
        put[host, port, "/cucm-uds/servers"] = page(f"<servers><server>{host}</server></servers>")
        put[host, port, "/cucm-uds/version"] = page("<versionInformation><version>14.0</version></versionInformation>")
        put[host, port, f"/cucm-uds/user/{user}"] = protected(
            f"<user><id>42</id><userName>{user}</userName><displayName>Alice A</displayName>"
            f'<homeCluster enableImAndPresence="true">true</homeCluster>'
            f"<serviceProfile><uri>http://{host}:6970/SPDefault.cnf.xml</uri></serviceProfile></user>"
        )
        put[host, port, f"/cucm-uds/user/{user}/devices"] = protected(
            "<devices><device><name>CSFALICE</name><model>CSF</model><description>d</description></device></devices>"
        )
        put[host, 6972, "/SPDefault.cnf.xml"] = page(PROFILE.format(product=product, im=im or host))
        put[host, 6972, "/jabber-config.xml"] = page(CONFIG)
        self.xmpp.setdefault((im or host, 5222), LoggedIn(f"{user}@example.com/desk", "SCRAM-SHA-256"))

    def inside(self, **uds: Any) -> None:
        """The usual inside: one UDS server that is also the XMPP server."""
        self.service("_cisco-uds._tcp.example.com", (0, 0, 8443, "cucm.example.com"))
        self.uds("cucm.example.com", **uds)

    def edge(
        self, host: str = "edge.example.com", *, config: mra.EdgeConfig | None = None, cookie: str = COOKIE
    ) -> None:
        """The usual outside: an edge in front of the UDS server ``cucm.example.com``."""
        self.service("_collab-edge._tls.example.com", (0, 0, 8443, host))
        self.host(host)
        self.uds("cucm.example.com")
        self.hosts.pop("cucm.example.com")
        self.xmpp.clear()
        self.xmpp[host, 5222] = LoggedIn("alice@example.com/far", "SCRAM-SHA-256")
        config = config or mra.EdgeConfig(
            services=(
                mra.Service("_cuplogin", error="NameError"),
                mra.Service("_cisco-uds", (mra.Srv(0, 0, 8443, "cucm.example.com"),)),
            ),
            xmpp=(mra.EdgeServer(host, 5222),),
        )

        def edge_config(request: HttpGet) -> Response:
            expected = base64.b64encode(f"alice:{self.right}".encode()).decode()
            if dict(request.headers).get("Authorization") != f"Basic {expected}":
                return page("", 401, server="CE_C ECS", www_authenticate='Basic realm="Cisco-Edge"')
            headers = {"set-cookie": (cookie,)} if cookie else {}
            return Response(200, headers, mra.build_edge_config(config))

        self.pages[host, 8443, f"/{mra.encode_token('example.com')}/get_edge_config"] = edge_config

    # -- running

    def run(self, target: str = "alice@example.com", *, user: str = "", **options: Any) -> Outcome:
        options.setdefault("pick", lambda: 0.5)
        engine = Discovery(parse_target(target, user=user), memory=self.memory, wall=self.wall, **options)
        now, order = 1000.0, itertools.count()
        due: list[tuple[float, int, int, Result]] = []
        live: set[int] = set()
        engine.begin(now)
        steps: list[Step] = []
        for _ in range(1000):
            while (output := engine.next_output()) is not None:
                if isinstance(output, Start):
                    self.asked.append(output.request)
                    live.add(output.number)
                    result, delay = self._answer(output.request)
                    if result is not None:
                        heapq.heappush(due, (now + delay, next(order), output.number, result))
                else:
                    live.discard(output.number)
                    self.cancelled += 1
            while (event := engine.next_event()) is not None:
                if isinstance(event, Outcome):
                    assert engine.deadline() is None
                    self._check(event, steps)
                    self.elapsed = now - 1000.0
                    return event
                steps.append(event)
            deadline = engine.deadline()
            if due and (deadline is None or due[0][0] <= deadline):
                now, _, number, result = heapq.heappop(due)
                engine.receive((number, result), now)
            else:
                assert deadline is not None, "the engine waits for nothing"
                assert deadline >= now
                now = deadline
                engine.tick(now)
        raise AssertionError("the engine does not come to an end")

    def _answer(self, request: Request) -> tuple[Result | None, float]:
        match request:
            case QuerySrv(name):
                return self.srv.get(name, Nothing(False, 30, NS)), 0.01
            case QueryAddress(host):
                return self.hosts.get(host, Nothing(False, 30, NS)), 0.01
            case HttpGet():
                assert request.addresses
                return self._get(request), 0.02
            case XmppLogin():
                result = self.xmpp.get((request.host, request.port), Failed("refused"))
                if isinstance(result, LoggedIn) and request.password != self.right:
                    result = Failed("credentials")
                return result, 0.05
            case AskPassword():
                if not self.passwords:
                    return NoCredentials(), self.thinking
                return Credentials("" if request.address else "alice", self.passwords.pop(0)), self.thinking

    def _get(self, request: HttpGet) -> Response | Failed | None:
        path = request.path.partition("?")[0]
        found = self.pages.get((request.host, request.port, path), page("", 404))
        if (request.host, request.port, path) not in self.pages and request.host.startswith("edge"):
            target = mra.parse_proxied_path(request.path)
            assert target.domain == "example.com"
            assert dict(request.headers)["Cookie"] == "X-Auth=abc"
            inner = HttpGet(target.scheme, target.host, target.port, target.path, ("192.0.2.1",), request.headers)  # type: ignore[arg-type]
            found = self.pages.get((inner.host, inner.port, inner.path.partition("?")[0]), page("", 404))
            request = inner
        return found(request) if callable(found) else found

    def _check(self, outcome: Outcome, steps: list[Step]) -> None:
        """What holds for every outcome, whatever happened."""
        assert outcome.steps == tuple(steps)
        for step in steps:
            assert step.code in TEXT
            assert not step.why_code or step.why_code in TEXT
            assert "{" not in step.detail + step.why_next, step
            assert self.right not in repr(step)
        if outcome.error is not None:
            assert outcome.error.code in TEXT
            assert f"hint.{outcome.error.code}" in TEXT
            assert "{" not in outcome.error.message + outcome.error.hint
            assert outcome.error.hint
        json.dumps(outcome.to_json())
        assert self.right not in repr(outcome)
        assert self.right not in repr(self.asked)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_page() -> Callable[..., Response]:
    return page


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A site on loopback addresses of its own, empty at first."""
    number, process = next(_places), os.getpid()
    net = f"127.{210 + process % 40}.{(process // 40) % 250 + 1}"
    found = Live(Authority(tmp_path), f"{net}.{2 * number % 200 + 1}", f"{net}.{2 * number % 200 + 2}")
    async with found.stack:
        yield found
