"""HTTP connections that cannot be held for ever: uvicorn's protocols, and a look at all of them every few seconds.

uvicorn bounds sizes, and the pause between two requests. Whoever says nothing, sends a head or a body byte by byte, or
does not read the answer would stay; here they are cut off. Handlers may take as long as they like. And a request that
frames its body in two ways is none: whatever stands in front of this server may have read the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

_MAX_HEAD = 32 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: ``head`` for a request's head, ``body`` before a body has to keep up ``rate`` (bytes per second),
    ``unread`` in which the client takes nothing of what is written. Noticed up to ``look`` seconds late."""

    head: float = 20.0
    body: float = 60.0
    rate: float = 1024.0
    unread: float = 60.0
    look: float = 5.0


def _nothing() -> None:
    """Nobody has to know."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket; ``on_lost`` is called once at its end."""

    on_lost: Callable[[], None] = staticmethod(_nothing)

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio has it."""
        super().connection_lost(exc)
        self.on_lost()


class _Framing(h11.Connection):
    """HTTP/1.1 without the one leniency of h11 by which requests are smuggled (RFC 9112 section 6.3)."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = [name for name, _ in event.headers]
            if b"transfer-encoding" in names and b"content-length" in names:
                raise h11.RemoteProtocolError("the body has two framings")
        return event


class HttpProtocol(H11Protocol):
    """One connection; ``on_lost`` is called once at its end, also when it became a WebSocket."""

    on_lost: Callable[[], None] = staticmethod(_nothing)
    received = 0
    """Bytes so far."""

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self.conn = _Framing(h11.SERVER, _MAX_HEAD)

    def data_received(self, data: bytes) -> None:
        """As asyncio has it."""
        self.received += len(data)
        super().data_received(data)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """The connection goes on as a WebSocket."""
        super().handle_websocket_upgrade(event)
        became = self.transport.get_protocol()
        if isinstance(became, WebSocketProtocol):
            became.on_lost = self.on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio has it."""
        super().connection_lost(exc)
        self.on_lost()

    def waits_for(self) -> tuple[str, object]:
        """What the client owes, ``head``, ``body`` or nothing; and its last exchange, to tell one from the next."""
        theirs = self.conn.their_state
        if theirs is h11.IDLE and self.timeout_keep_alive_task is None:
            return "head", self.cycle
        if theirs is h11.SEND_BODY and not self.flow.read_paused:
            return "body", self.cycle
        return "", self.cycle


@dataclass(slots=True)
class _Seen:
    owes: tuple[str, object]
    since: float
    received: int
    unread: int
    unread_since: float


class Watch:
    """Remembers what every connection was like at the last look. ``now`` is monotonic, in seconds."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._seen: dict[Any, _Seen] = {}

    def look(self, connections: Iterable[Any], now: float) -> int:
        """Cuts off those whose time is over; gives how many."""
        before, self._seen = self._seen, {}
        count = 0
        for connection in tuple(connections):
            self._seen[connection] = seen = self._noted(before.get(connection), connection, now)
            if self._is_over(seen, getattr(connection, "received", 0), now):
                connection.transport.abort()
                count += 1
        return count

    @staticmethod
    def _noted(seen: _Seen | None, connection: Any, now: float) -> _Seen:
        owes = connection.waits_for() if isinstance(connection, HttpProtocol) else ("", None)
        unread = connection.transport.get_write_buffer_size()
        if seen is None:
            return _Seen(owes, now, getattr(connection, "received", 0), unread, now)
        if owes != seen.owes:
            seen.owes, seen.since, seen.received = owes, now, connection.received
        if unread != seen.unread or not unread:
            seen.unread, seen.unread_since = unread, now
        return seen

    def _is_over(self, seen: _Seen, received: int, now: float) -> bool:
        patience, waited = self._patience, now - seen.since
        if now - seen.unread_since > patience.unread:
            return True
        if seen.owes[0] == "head":
            return waited > patience.head
        late = waited - patience.body
        return seen.owes[0] == "body" and late > 0 and received - seen.received < late * patience.rate
