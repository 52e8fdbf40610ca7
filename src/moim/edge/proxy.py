"""The edge's reverse proxy: which request from outside goes to which named target inside, under the allow-list.

``exchange`` carries one request and its answer; this file decides: rate, rules, and the refusals that sign-in through
the edge has its own form for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

from moim.edge.control import DesiredState
from moim.edge.exchange import RETRY, Exchange
from moim.edge.refusals import Refusals
from moim.edge.requests import Rejected, RequestHead
from moim.edge.rules import Rule, RuleTable
from moim.edge.settings import LimitSettings
from moim.edge.upstream import OpenTarget, Pool
from moim.errors import MoimError
from moim.model import domain_name
from moim.net.listener import client_key
from moim.net.rate import RateLimit
from moim.net.streams import SocketStream
from moim.proto import mra

_SIGN_IN = ("get_edge_config", "get_edge_sso")


class HttpProxy:
    """Serves the streams that the HTTPS listeners accept. ``names`` are the edge's own names and addresses."""

    def __init__(
        self, *, limits: LimitSettings, refusals: Refusals, open_target: OpenTarget, names: Iterable[str]
    ) -> None:
        self.limits = limits
        self.refusals = refusals
        self.counters: Counter[str] = Counter()
        self.pool = Pool(open_target)
        self.rules = RuleTable()
        self.hosts: frozenset[str] | None = None  # before the first state the honest answer is 503, whatever the host
        self._names = frozenset(names)
        self._domains: frozenset[str] = frozenset()
        self._rate = RateLimit(per_s=limits.requests_per_s, burst=limits.requests_burst)

    def apply(self, state: DesiredState) -> None:
        """Takes over the rules of a new desired state; requests under way go on under the old ones."""
        self.rules = RuleTable(state.http)
        self.hosts = self._names | {host.lower() for host in state.hosts} | {*state.domains}
        self._domains = frozenset(state.domains)

    async def serve(self, stream: SocketStream, listener: str) -> None:
        """Answers the requests of one connection until it ends."""
        left = b""
        while True:
            exchange = Exchange(self, stream, listener)
            again, left = await exchange.run(left)
            if not again:
                return

    def admit(self, peer: str) -> None:
        """Counts a request of a client. Raises Rejected (429)."""
        self.counters["requests"] += 1
        if not self._rate.take(client_key(peer), asyncio.get_running_loop().time()):
            raise Rejected(429, "this client sends too many requests", [("Retry-After", "1")])

    def route(self, head: RequestHead) -> Rule:
        """The row that allows a request. Raises Rejected: 403, 404, 405, 503."""
        if self.hosts is None:
            raise Rejected(503, "this edge waits for the inside to connect", [RETRY])
        self._check_sign_in(head)
        rule = self.rules.find(head.scheme, head.host, 0, head.path, head.method)
        if rule is not None:
            return rule
        allowed = self.rules.methods(head.scheme, head.host, 0, head.path)
        place = f"{head.scheme} {head.path[:100]!r}"
        if allowed:
            raise Rejected(405, f"no rule allows {head.method} for {place}", [("Allow", ", ".join(allowed))])
        raise Rejected(404, f"no rule covers {place}")

    def _check_sign_in(self, head: RequestHead) -> None:
        """Refuses what has the form of a sign-in through the edge and names a domain or server that is not offered."""
        token, _, rest = head.path[1:].partition("/")
        if not token or not rest:
            return
        try:
            named = mra.decode_token(token).split("/")
            domain = domain_name(named[0])
        except MoimError:
            return
        if rest.rstrip("/") in _SIGN_IN or len(named) == 4:
            server = ("Server", mra.SERVER_BORDER)
            if domain not in self._domains:
                raise Rejected(403, f"the domain {domain!r} is not enabled on this edge", [server])
            rule = self.rules.find(head.scheme, head.host, 0, head.path, head.method)
            if rule is None or rule.prefix == "/":
                raise Rejected(403, f"no rule lets clients reach {'/'.join(named)[:100]!r}", [server])
