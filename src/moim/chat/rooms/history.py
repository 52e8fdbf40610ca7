"""What a room remembers, and how much of it somebody who enters asks for (XEP-0045 section 7.2.13)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from moim.proto.xmpp import Element, Jid, StanzaError, delay, ns


@dataclass(eq=False, slots=True)
class Entry:
    """A message as the room sent it, without ``to``; ``identifier`` is its stanza-id, which it carries as well.

    ``author`` is the real address of whoever said it, where it is still known.
    """

    sent_at: datetime
    message: Element
    identifier: str = ""
    author: Jid | None = None
    replay: Element | None = field(default=None, repr=False)
    """The message with its delay note, made when it is first shown to somebody who enters."""
    size: int = 0
    """Characters of ``message``."""

    def __post_init__(self) -> None:
        if not self.identifier:
            mark = self.message.find("stanza-id", ns.STANZA_IDS)
            self.identifier = (mark.get("id") or "") if mark is not None else ""
        if not self.size:
            self.size = len(self.message.to_xml())

    def rewrite(self, message: Element) -> None:
        """Puts another message in its place: a tombstone."""
        self.message, self.replay, self.size = message, None, len(message.to_xml())


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is to stand in the place of the message with the stanza-id ``identifier``.

    ``author`` is the occupant-id that the message must have, or empty for any.
    """

    identifier: str
    retracted: Element
    author: str = ""
    older: Element | None = None
    """The same as older clients read it."""

    def apply(self, message: Element) -> Element | None:
        """The message without what was said; None when it is somebody else's, or taken back already."""
        mark = message.find("occupant-id", ns.OCCUPANT_ID)
        wrong = self.author and (mark is None or mark.get("id") != self.author)
        if wrong or message.find("retracted", ns.RETRACTION) is not None:
            return None
        kept = [
            c for c in message.elements() if c.ns == ns.OCCUPANT_ID or (c.ns, c.name) == (ns.STANZA_IDS, "stanza-id")
        ]
        said = (self.retracted,) if self.older is None else (self.retracted, self.older)
        return message.with_children((*kept, *said))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; None is no limit. ``since`` already includes ``seconds``."""

    max_chars: int | None = None
    max_stanzas: int | None = None
    since: datetime | None = None


class History:
    """The newest messages: at most as many as the configuration says, and not more than ``max_bytes`` in all."""

    def __init__(self, limit: int, entries: Iterable[Entry] = (), *, max_bytes: int = 1_048_576) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._size = 0
        for entry in entries:
            self.add(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def resize(self, limit: int) -> None:
        """Keeps at most ``limit`` from now on."""
        self._limit = limit
        self._trim()

    def add(self, entry: Entry) -> None:
        """Takes the newest message."""
        self._entries.append(entry)
        self._size += entry.size
        self._trim()

    def _trim(self) -> None:
        while self._entries and (len(self._entries) > self._limit or self._size > self._max_bytes):
            self._size -= self._entries.popleft().size

    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries)

    def find(self, identifier: str) -> Entry | None:
        """The message with a stanza-id."""
        return next((entry for entry in reversed(self._entries) if entry.identifier == identifier), None)

    def rewrite(self, entry: Entry, message: Element) -> None:
        """Puts another message in the place of one that it has."""
        self._size -= entry.size
        entry.rewrite(message)
        self._size += entry.size

    def select(self, wanted: Wanted, room: str) -> list[Element]:
        """Messages with their delay notes, oldest first; the newest are kept where a limit cuts."""
        chosen: list[Element] = []
        left = wanted.max_chars
        for entry in reversed(self._entries):
            if wanted.max_stanzas is not None and len(chosen) >= wanted.max_stanzas:
                break
            if wanted.since is not None and entry.sent_at < wanted.since:
                break
            if entry.replay is None:
                entry.replay = entry.message.with_children((*entry.message.children, delay(entry.sent_at, room)))
            if left is not None:
                left -= len(entry.replay.to_xml())
                if left < 0:
                    break
            chosen.append(entry.replay)
        chosen.reverse()
        return chosen


def read_wanted(entry: Element, now: datetime) -> Wanted:
    """The limits in the ``<x/>`` of somebody who enters. Raises StanzaError bad-request when they are no limits."""
    history = entry.find("history", ns.MUC)
    if history is None:
        return Wanted()
    seconds = _number(history, "seconds")
    since = _moment(history.get("since"))
    if seconds is not None:
        # Longer than any history: without the bound, dates before the year 1 would be asked for.
        recent = now - timedelta(seconds=min(seconds, 10**9))
        since = recent if since is None else max(since, recent)
    return Wanted(_number(history, "maxchars"), _number(history, "maxstanzas"), since)


def _number(history: Element, name: str) -> int | None:
    text = history.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 12:
        raise StanzaError("bad-request", f"{name} is not a number")
    return int(text)


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        if len(text) > 40:
            raise ValueError
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise StanzaError("bad-request", "since is not a moment as XEP-0082 writes it") from None
