"""Plain TCP through the edge: a listener leads to a named target, with a header that says who the client is."""

from __future__ import annotations

import logging
from collections import Counter

from moim.edge.control import DesiredState
from moim.edge.refusals import Refusals
from moim.edge.upstream import OpenTarget
from moim.errors import MoimError
from moim.net.streams import SocketStream, relay

_log = logging.getLogger("moim.edge.tcp")


class TcpForwarder:
    """Carries the connections of the edge's TCP listeners to the targets that the desired state gives them."""

    def __init__(self, *, refusals: Refusals, open_target: OpenTarget, idle_s: float) -> None:
        self.counters: Counter[str] = Counter()
        self._refusals = refusals
        self._open = open_target
        self._idle_s = idle_s
        self._targets: dict[str, str] = {}

    def apply(self, state: DesiredState) -> None:
        """Takes over the listeners of a new desired state; connections stay."""
        self._targets = {route.listener: route.target for route in state.tcp}

    async def serve(self, stream: SocketStream, listener: str) -> None:
        """Carries one connection. Without a target or tunnel it is closed at once, and the reason reported."""
        target = self._targets.get(listener)
        if target is None:
            self._refusals.add(stream.peer[0], listener, "no target is set for this listener yet")
            stream.abort()
            return
        try:
            upstream = await self._open(target, stream.peer)
        except MoimError as error:
            self._refusals.add(stream.peer[0], listener, error.message)
            stream.abort()
            return
        self.counters[f"{listener}.connections"] += 1
        moved = await relay(stream, upstream, idle_s=self._idle_s)
        self.counters[f"{listener}.bytes_in"] += moved.forward
        self.counters[f"{listener}.bytes_out"] += moved.backward
        if moved.end == "idle":
            _log.info("%s closed an idle connection of %s", listener, stream.peer[0])
