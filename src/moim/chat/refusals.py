"""Refusals to other domains: written to the log and answered at a bounded rate, so that a flood costs neither disk nor
traffic (RFC 6120 section 13.12 asks for both)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from moim.net.rate import RateLimit
from moim.proto.xmpp import Element, Jid, StanzaError

_LINES_PER_DOMAIN = 6
_LINES = 120
_ANSWERS_PER_DOMAIN = 30
_MINUTE = 60.0

_log = logging.getLogger("moim.chat.refusals")


class Refusals:
    """``reply`` answers a stanza with an error, where one may be sent. ``clock`` is monotonic, in seconds."""

    def __init__(
        self, reply: Callable[[Element, StanzaError], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reply = reply
        self._clock = clock
        self._lines = RateLimit(per_s=_LINES_PER_DOMAIN / _MINUTE, burst=_LINES_PER_DOMAIN)
        self._all_lines = RateLimit(per_s=_LINES / _MINUTE, burst=_LINES)
        self._answers = RateLimit(per_s=_ANSWERS_PER_DOMAIN / _MINUTE, burst=_ANSWERS_PER_DOMAIN)
        self._unwritten = 0
        self.counts: Counter[str] = Counter()
        """Refusals by kind since the start."""

    def refuse(self, kind: str, sender: Jid, stanza: Element, error: StanzaError, why: str) -> None:
        """Counts and logs a refusal, and answers messages and requests. Presence is dropped: nobody waits for more."""
        self.note(kind, sender, stanza, why)
        if stanza.name != "presence":
            self.answer(sender, stanza, error)

    def note(self, kind: str, sender: Jid, stanza: Element, why: str) -> None:
        """Counts and logs a refusal."""
        now = self._clock()
        self.counts[kind] += 1
        if self._lines.take(sender.domain, now) and self._all_lines.take("", now):
            more, self._unwritten = self._unwritten, 0
            rest = f"; {more} refusals before this one are not in the log" if more else ""
            _log.warning("%s from %s to %s refused: %s%s", stanza.name, sender, stanza.get("to"), why, rest)
        else:
            self._unwritten += 1

    def answer(self, sender: Jid, stanza: Element, error: StanzaError) -> None:
        """Answers with the error, unless the sender's domain got enough of these."""
        if self._answers.take(sender.domain, self._clock()):
            self._reply(stanza, error)
