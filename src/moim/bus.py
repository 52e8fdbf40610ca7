"""Publish and subscribe between rooms. In-process: handlers run in the publisher's event loop, in order.

Commit first, publish second: a fact is a hint that something changed; the store is the truth.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Fact = TypeVar("Fact")
Handler = Callable[[Fact], Awaitable[None]]

_log = logging.getLogger("moim.bus")


class Bus:
    """Facts by their class. A handler that fails is logged and does not keep others from the fact."""

    def __init__(self) -> None:
        self._handlers: dict[type[Any], list[Handler[Any]]] = {}

    def subscribe(self, kind: type[Fact], handler: Handler[Fact]) -> Callable[[], None]:
        """Calls ``handler`` with every later fact of exactly this class. The result ends the subscription."""
        handlers = self._handlers.setdefault(kind, [])
        handlers.append(handler)

        def cancel() -> None:
            if handler in handlers:
                handlers.remove(handler)

        return cancel

    async def publish(self, fact: object) -> None:
        """Delivers one fact and returns when every handler has seen it."""
        for handler in tuple(self._handlers.get(type(fact), ())):
            try:
                await handler(fact)
            except Exception:
                _log.exception("a handler of %s failed", type(fact).__name__)
