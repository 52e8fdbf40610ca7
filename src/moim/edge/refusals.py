"""What the edge turned away: a bounded list for the administrator, log lines that a flood cannot multiply, counters."""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from moim.edge.control import Refusal

_KEPT = 200
_LOG_EVERY_S = 10.0
_LOG_LINES = 100  # in _LOG_EVERY_S, whoever and whatever they are about
_log = logging.getLogger("moim.edge.refused")


class Refusals:
    """Collects refusals. The same client, listener and reason are one entry that counts."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str, str], Refusal] = OrderedDict()
        self._logged: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._window = (float("-inf"), 0)

    def add(self, client: str, listener: str, reason: str) -> None:
        """Takes note of one refusal; ``reason`` is a sentence, cut at 300 characters."""
        plain = "".join(char if char.isprintable() else "?" for char in reason[:300])
        key = (client[:64], listener, plain)
        now = self._clock()
        self.counters[f"refused.{listener}"] += 1
        last = self._entries.pop(key, None)
        entry = Refusal(at=now, client=key[0], listener=key[1], reason=key[2], times=last.times + 1 if last else 1)
        self._entries[key] = entry
        while len(self._entries) > _KEPT:
            gone, _ = self._entries.popitem(last=False)
            self._logged.pop(gone, None)
        logged_at, logged_times = self._logged.get(key, (float("-inf"), 0))
        if now - logged_at >= _LOG_EVERY_S and self._may_log(now):
            more = entry.times - logged_times - 1
            again = f" ({more} more times since the last line)" if more > 0 else ""
            _log.warning("%s refused %s: %s%s", listener, key[0] or "a peer", plain, again)
            self._logged[key] = (now, entry.times)

    def for_listener(self, listener: str) -> Callable[[str, str], None]:
        """A function of client and reason, as listeners call it."""
        return lambda client, reason: self.add(client, listener, reason)

    def list(self) -> tuple[Refusal, ...]:
        """The latest refusals, newest first."""
        return tuple(reversed(self._entries.values()))

    def _may_log(self, now: float) -> bool:
        begun, lines = self._window
        if now - begun >= _LOG_EVERY_S:
            begun, lines = now, 0
        self._window = (begun, lines + 1)
        if lines == _LOG_LINES:
            _log.warning("more is refused than is logged; the counters go on")
        return lines < _LOG_LINES
