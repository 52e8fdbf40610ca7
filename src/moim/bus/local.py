"""The bus of one process: facts for rooms, and subjects for messages to other nodes.

Handlers of facts run in the publisher's event loop, in order. A ``Hub`` joins several buses of one process, so that
tests have several nodes without a server between them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from moim.bus import facts
from moim.errors import MoimError, NotFound, PeerTimeout
from moim.model import ServiceStatus

Fact = TypeVar("Fact")
Handler = Callable[[Fact], Awaitable[None]]
Listener = Callable[[bytes], None]
Answerer = Callable[[bytes], Awaitable[bytes]]

_log = logging.getLogger("moim.bus")


@dataclass(frozen=True, slots=True)
class BusChanged:
    """The way to other nodes opened or closed. When it opens, facts may have been missed: look at the store."""

    up: bool


class Hub:
    """Joins the buses of several nodes in one process. ``cut`` loses everything between them, as a dead server does."""

    def __init__(self) -> None:
        self.buses: list[Bus] = []
        self.up = True

    async def cut(self) -> None:
        """Nothing gets through from here on."""
        self.up = False
        for bus in self.buses:
            await bus.deliver(BusChanged(up=False))

    async def heal(self) -> None:
        """Everything gets through again; what was said meanwhile is lost."""
        self.up = True
        for bus in self.buses:
            await bus.deliver(BusChanged(up=True))


class Bus:
    """Facts by their class. A handler that fails is logged and does not keep others from the fact."""

    def __init__(self, hub: Hub | None = None) -> None:
        self._handlers: dict[type[Any], list[Handler[Any]]] = {}
        self._listeners: dict[str, Listener] = {}
        self._answerers: dict[str, Answerer] = {}
        self._hub = hub
        if hub is not None:
            hub.buses.append(self)

    @property
    def connected(self) -> bool:
        """Whether messages to other nodes get through at the moment, as far as is known."""
        return self._hub is None or self._hub.up

    async def start(self) -> None:
        """Connects. Returns when connected, or after a while without: what runs locally does not wait."""

    async def stop(self) -> None:
        """Lets go of the connection."""
        if self._hub is not None and self in self._hub.buses:
            self._hub.buses.remove(self)

    def health(self) -> list[ServiceStatus]:
        """The connection to other nodes, if there is one."""
        return []

    # --- facts --------------------------------------------------------------------------------------------------

    def subscribe(self, kind: type[Fact], handler: Handler[Fact]) -> Callable[[], None]:
        """Calls ``handler`` with every later fact of exactly this class. The result ends the subscription."""
        handlers = self._handlers.setdefault(kind, [])
        handlers.append(handler)

        def cancel() -> None:
            if handler in handlers:
                handlers.remove(handler)

        return cancel

    async def publish(self, fact: object) -> None:
        """Delivers one fact and returns when every handler of this node has seen it; then other nodes are told."""
        await self.deliver(fact)
        if facts.travels(fact):
            await self._spread(facts.dump(fact))

    async def deliver(self, fact: object) -> None:
        """Shows a fact to the handlers of this node alone."""
        for handler in tuple(self._handlers.get(type(fact), ())):
            try:
                await handler(fact)
            except Exception:
                _log.exception("a handler of %s failed", type(fact).__name__)

    async def _spread(self, body: bytes) -> None:
        for bus in self._others():
            await bus._received(body)

    async def _received(self, body: bytes) -> None:
        fact = facts.load(body)
        if fact is not None:
            await self.deliver(fact)

    # --- messages -----------------------------------------------------------------------------------------------

    def send(self, subject: str, body: bytes) -> bool:
        """Sends to the node that listens to ``subject``; messages for one subject keep their order.

        One that cannot be sent is lost: False when that is known at once.
        """
        if not self.connected:
            return False
        for bus in self._others():
            listener = bus._listeners.get(subject)
            if listener is not None:
                asyncio.get_running_loop().call_soon(listener, body)
                return True
        return False

    def listen(self, subject: str, listener: Listener) -> Callable[[], None]:
        """Takes what others send to ``subject``; one listener each. The result ends it."""
        self._listeners[subject] = listener

        def cancel() -> None:
            if self._listeners.get(subject) is listener:
                del self._listeners[subject]

        return cancel

    async def request(self, subject: str, body: bytes, *, within: float = 5.0) -> bytes:
        """Asks whoever answers for ``subject``, this node too. Raises NotFound or PeerTimeout."""
        for bus in (self, *self._others()):
            answerer = bus._answerers.get(subject)
            if answerer is not None:
                try:
                    return await asyncio.wait_for(answerer(body), within)
                except TimeoutError:
                    raise PeerTimeout(f"'{subject}' was not answered within {within:.0f} s") from None
        raise NotFound(f"nobody answers '{subject}' on the bus")

    def answer(self, subject: str, answerer: Answerer) -> Callable[[], None]:
        """Answers requests for ``subject``. The result ends it."""
        self._answerers[subject] = answerer

        def cancel() -> None:
            if self._answerers.get(subject) is answerer:
                del self._answerers[subject]

        return cancel

    async def _ask(self, answerer: Answerer, subject: str, body: bytes) -> bytes | None:
        """What an answerer of this node says; a failure is logged and stays unanswered."""
        try:
            return await answerer(body)
        except MoimError as error:
            _log.error("a request for '%s' could not be answered: %s", subject, error)
        except Exception:
            _log.exception("a request for '%s' could not be answered", subject)
        return None

    def _others(self) -> list[Bus]:
        if self._hub is None or not self._hub.up:
            return []
        return [bus for bus in self._hub.buses if bus is not self]
