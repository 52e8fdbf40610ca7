"""What a room remembers, and how much of it somebody who enters asks for (XEP-0045 section 7.2.13)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from moim.proto.xmpp import Element, StanzaError, delay, ns


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as the room sent it, without ``to``."""

    sent_at: datetime
    message: Element


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; None is no limit. ``since`` already includes ``seconds``."""

    max_chars: int | None = None
    max_stanzas: int | None = None
    since: datetime | None = None


class History:
    """The newest messages, at most as many as the configuration says."""

    def __init__(self, limit: int, entries: Iterable[Entry] = ()) -> None:
        self._entries = deque(entries, maxlen=limit)

    def __len__(self) -> int:
        return len(self._entries)

    def resize(self, limit: int) -> None:
        """Keeps at most ``limit`` from now on."""
        self._entries = deque(self._entries, maxlen=limit)

    def add(self, entry: Entry) -> None:
        """Takes the newest message."""
        self._entries.append(entry)

    def entries(self) -> tuple[Entry, ...]:
        """Oldest first."""
        return tuple(self._entries)

    def select(self, wanted: Wanted, room: str) -> list[Element]:
        """Messages with their delay notes, oldest first; the newest are kept where a limit cuts."""
        chosen: list[Element] = []
        left = wanted.max_chars
        for entry in reversed(self._entries):
            if wanted.max_stanzas is not None and len(chosen) >= wanted.max_stanzas:
                break
            if wanted.since is not None and entry.sent_at < wanted.since:
                break
            message = entry.message.with_children((*entry.message.children, delay(entry.sent_at, room)))
            if left is not None:
                left -= len(message.to_xml())
                if left < 0:
                    break
            chosen.append(message)
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
