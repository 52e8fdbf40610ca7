"""Through the edge: its configuration, then the steps of the inside with every request going by way of it (D6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from moim.discovery.actions import Failed, Response, Srv
from moim.discovery.inside import refusal, sign_in_at
from moim.discovery.outcome import Failure
from moim.discovery.run import Flow, Got, Run, Stop, Url, failure_of, worst
from moim.discovery.signin import Place
from moim.discovery.srv import order
from moim.errors import ProtocolError
from moim.proto import mra


@dataclass(frozen=True, slots=True)
class ThroughEdge:
    """Servers of the inside by way of an edge; its session cookie goes with each request."""

    edge: mra.Edge
    cookie: mra.EdgeCookie

    def get(self, run: Run, url: Url, *, auth: bool) -> Flow[Got]:
        """GETs an inside URL. The edge itself wants the credentials with every request, so ``auth`` adds nothing."""
        path = mra.proxied_path(self.edge.domain, url.scheme, url.host, url.port, url.path)
        headers = (run.basic(), ("Cookie", self.cookie.header()))
        url_at_edge = Url("https", self.edge.host, self.edge.port, path)
        got = yield from run.get(url_at_edge, headers, name=certificate_name(self.edge))
        return Got(got.result, f"{url.place} via {got.where}", got.ms)


def certificate_name(edge: mra.Edge) -> str:
    """The name that the edge's certificate must hold.

    The edge's own name came from the public DNS, which anybody on the way may forge. Only below the domain does it say
    something about the domain; else the certificate must be for the domain itself.
    """
    return edge.host if f".{edge.host}".endswith(f".{edge.domain}") else edge.domain


def sign_in_through(run: Run, edges: Sequence[Srv]) -> Flow[None]:
    """Finds an edge that answers, takes its configuration and goes on inside. Raises Stop with the failure to show."""
    for record in edges:
        run.service("edge", record.target, record.port, "https")
    known = yield from run.credentials()
    failures: list[Failure] = []
    for index, record in enumerate(edges):
        edge = mra.Edge(record.target, record.port, run.target.voice_domain)
        result = yield from _configuration(run, edge, known=known, more=index + 1 < len(edges))
        if isinstance(result, Failure):
            failures.append(result)
            if result.kind == "credentials":
                raise Stop(result)
            continue
        run.service("edge", record.target, record.port, "https", used=True)
        if result is None:
            run.step("password", "no-password", "skipped", why="why-stop-without-password")
            return
        yield from _go_in(run, edge, *result)
        return
    raise Stop(worst(failures))


def _configuration(
    run: Run, edge: mra.Edge, *, known: bool, more: bool
) -> Flow[tuple[mra.EdgeConfig, mra.EdgeCookie] | Failure | None]:
    """The edge's configuration and session; None when it answers but there is no password to show."""
    path = mra.edge_config_url(edge).removeprefix(edge.origin)
    where = f"{edge.host}:{edge.port}"
    while True:
        url = Url("https", edge.host, edge.port, path)
        got = yield from run.get(url, (run.basic(),) if known else (), name=certificate_name(edge))
        what = f"GET {path}"
        failure: Failure
        if isinstance(got.result, Failed):
            failure = failure_of(got.result, service="edge", where=where)
        elif got.result.status == 401 and not known:
            run.step("edge", "edge-answers", "ok", what=what, where=got.where, ms=got.ms)
            return None
        elif got.result.status == 200:
            try:
                config = mra.parse_edge_config(got.result.body)
                cookie = mra.parse_set_cookie(
                    got.result.headers.get("set-cookie", ()), edge.host, datetime.fromtimestamp(run.wall, UTC)
                )
            except ProtocolError as error:
                failure = Failure.of(
                    "server-rubbish", "rubbish", service="edge", where=where, detail=error.message[:300]
                )
            else:
                names = ", ".join(service.name for service in config.services)
                why = "why-edge-config"
                run.step("edge", "edge-config", "ok", what=what, where=got.where, ms=got.ms, why=why, services=names)
                return config, cookie
        else:
            failure = _edge_refusal(got.result, edge, where)
        again = failure.code == "wrong-password"
        why = "why-next-edge" if more and failure.kind != "credentials" else ""
        run.failed("edge", failure, what=what, where=got.where, ms=got.ms, why=why)
        if not again or not (yield from run.credentials(again=True)):
            return failure


def _edge_refusal(response: Response, edge: mra.Edge, where: str) -> Failure:
    if response.status == 403:
        return Failure.of("edge-domain-not-enabled", "refused", where=where, domain=edge.domain)
    if response.status == 404:
        return Failure.of("edge-not-an-edge", "rubbish", where=where)
    if response.status >= 500:
        return Failure.of("edge-inside-unreachable", "network", where=where, status=response.status)
    return refusal(response, service="edge", where=where)


def _go_in(run: Run, edge: mra.Edge, config: mra.EdgeConfig, cookie: mra.EdgeCookie) -> Flow[None]:
    answer = config.service("_cisco-uds")
    where = f"{edge.host}:{edge.port}"
    if answer is None or not answer.servers:
        reason = answer.error if answer is not None and answer.error else "no answer"
        failure = Failure.of("edge-without-uds", "rubbish", where=where, domain=edge.domain, reason=reason)
        run.failed("edge", failure, what="_cisco-uds", where=where)
        raise Stop(failure)
    records = [Srv(s.priority, s.weight, s.port, s.address) for s in answer.servers]
    ordered = order(records, run.pick)
    listed = ", ".join(f"{r.priority} {r.weight} {r.target}:{r.port}" for r in ordered[:6])
    run.step("edge", "edge-uds", "ok", what="_cisco-uds", where=where, why="why-through-edge", records=listed)
    for server in config.xmpp:
        run.service("edge-xmpp", server.address, server.port, "xmpp")
    for server in config.sip:
        run.service("edge-sip", server.address, server.port, "sips")
    for server in config.turn:
        run.service("edge-turn", server.address, server.port, "turn")
    xmpp = [Place(server.address, server.port, direct=False) for server in config.xmpp]
    yield from sign_in_at(run, ThroughEdge(edge, cookie), [(r.target, r.port) for r in ordered], xmpp)
