"""Passes queries for foreign names on to other resolvers, message by message, without looking into the answers.

UDP stays UDP and TCP stays TCP: a truncated answer goes back as it is and the client comes again over TCP.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from dns.rcode import Rcode

from moim.errors import MoimError
from moim.names.answer import refusal
from moim.net.resolver import exchange, parse_server

_MAX_WAITING = 256
_log = logging.getLogger("moim.names")


class Forwarder:
    """Asks ``resolvers`` (as in ``Settings.forwarders``) in order until one answers."""

    def __init__(self, resolvers: tuple[str, ...], seconds: float) -> None:
        self._resolvers = [parse_server(text) for text in resolvers]
        self._seconds = seconds
        self._waiting = 0

    async def ask(self, query: bytes, *, stream: bool) -> Sequence[bytes]:
        """The answer of the first resolver that gives one, under the query's own ID; else SERVFAIL."""
        if self._waiting >= _MAX_WAITING:
            return (refusal(query, Rcode.SERVFAIL),)
        self._waiting += 1
        try:
            for resolver in self._resolvers:
                ours = secrets.token_bytes(2) + query[2:]
                try:
                    reply = await exchange(ours, resolver, timeout=self._seconds, stream=stream)
                except MoimError as error:
                    _log.warning("forwarding: %s", error.message)
                    continue
                return (query[:2] + reply[2:],)
        finally:
            self._waiting -= 1
        return (refusal(query, Rcode.SERVFAIL),)
