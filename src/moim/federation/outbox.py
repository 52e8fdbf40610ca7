"""Stanzas that wait for a stream: bounded in count, bytes and time, in order, and never lost without a word."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moim.errors import LimitExceeded
from moim.proto.xmpp import Element, StanzaError, error_reply

Release = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one domain: stanzas, bytes; of all domains: bytes."""

    stanzas: int
    bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Stanzas that waited, and what to call once they are under way or their senders know that they are not."""

    stanzas: list[Element]
    held: list[Release]

    def release(self) -> None:
        """They are."""
        for release in self.held:
            release()


class Outbox:
    """What waits, by (local, remote) domain."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._waiting: dict[tuple[str, str], deque[tuple[Element, int, Release | None]]] = {}
        self._count: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self.total_bytes = 0

    def put(
        self, local: str, remote: str, stanza: Element, hold: Callable[[], Release | None], *, first: bool = False
    ) -> None:
        """Adds one, behind the others or before them, which is held while it waits: a crash would lose it.

        Raises LimitExceeded when too much waits.
        """
        size = len(stanza.to_xml().encode())
        if self._count.get(remote, 0) >= self._bounds.stanzas or self.size(remote) + size > self._bounds.bytes:
            raise LimitExceeded(f"too much waits for {remote} already")
        if self.total_bytes + size > self._bounds.total_bytes:
            raise LimitExceeded("too much waits for other domains already")
        waiting = self._waiting.setdefault((local, remote), deque())
        (waiting.appendleft if first else waiting.append)((stanza, size, hold()))
        self._count[remote] = self._count.get(remote, 0) + 1
        self._bytes[remote] = self.size(remote) + size
        self.total_bytes += size

    def take(self, local: str, remote: str) -> Taken:
        """Everything that waits for one pair, in order."""
        taken = self._waiting.pop((local, remote), deque())
        size = sum(bytes_of for _, bytes_of, _ in taken)
        self._count[remote] = self._count.get(remote, 0) - len(taken)
        self._bytes[remote] = self.size(remote) - size
        self.total_bytes -= size
        if self._count[remote] <= 0:
            self._count.pop(remote, None)
            self._bytes.pop(remote, None)
        return Taken([stanza for stanza, _, _ in taken], [held for _, _, held in taken if held is not None])

    def count(self, remote: str) -> int:
        """How many wait for a domain."""
        return self._count.get(remote, 0)

    def size(self, remote: str) -> int:
        """Bytes that wait for a domain."""
        return self._bytes.get(remote, 0)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """The pairs that something waits for."""
        return iter(tuple(self._waiting))


def returned(stanza: Element, condition: str, text: str) -> Element | None:
    """The error that a stanza comes back with; None for those whose sender expects nothing to come back.

    Probes and goodbyes are the server's own doing: an answer would only tell people what they did not ask.
    """
    kind = stanza.get("type")
    if stanza.name == "presence" and kind not in (None, "subscribe"):
        return None
    return error_reply(stanza, StanzaError(condition, text))
