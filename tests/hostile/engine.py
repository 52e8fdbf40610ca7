"""The plane without sockets: what Python asks of ``moim._native.XmppServer`` is kept in lists, for tests to see.

It stamps, delivers and records messages by the same rules as the engine, roughly, as far as Python depends on it.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from moim.proto.xmpp import Element, archivable, ns

FIRST_SERVER = 1 << 48


class Engine:
    """Stands in for ``XmppServer``. ``sent`` and ``closed`` are what clients would have been told."""

    def __init__(self, domain: str, **options: Any) -> None:
        self.domain = domain
        self.sent: list[tuple[int, Element]] = []
        self.closed: dict[int, Element | None] = {}
        self.opened: set[int] = set()
        self.rows: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.ever: set[str] = set()
        """Every address that was bound."""
        self.tickets: set[int] = set()
        self.undone: set[tuple[int, int]] = set()
        """Messages whose senders wait for a word, by session and number."""
        self._priorities: dict[int, int] = {}
        self._archived: set[str] = set()
        self._managed: set[int] = set()
        self.tokens: list[tuple[str, str]] = []
        """Tokens of sessions that may be resumed, and their full JIDs."""
        self._events: deque[Any] = deque()
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1 << 40)
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # --- events ---------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._ready

    def emit(self, *event: Any) -> None:
        """Hands an event up, as the engine does from its threads."""
        if event[0] == "stanza":
            event = (*event, self._number(event[1], event[2]))
        self._events.append(event)
        if self._ready >= 0:
            os.eventfd_write(self._ready, 1)

    def _number(self, sid: int, element: Element) -> int:
        if sid not in self.names or (element.ns, element.name) != (ns.CLIENT, "message"):
            return 0
        number = next(self._numbers)
        self.undone.add((sid, number))
        return number

    def done(self, done: Sequence[tuple[int, int]]) -> None:
        for sid, number in done:
            if sid not in self.closed:
                self.undone.discard((sid, number))

    def drain(self, limit: int) -> list[Any]:
        batch = [self._events.popleft() for _ in range(min(limit, len(self._events)))]
        if not self._events and self._ready >= 0:
            with suppress(BlockingIOError):
                os.eventfd_read(self._ready)
        return batch

    @property
    def idle(self) -> bool:
        """Whether no event waits."""
        return not self._events

    # --- what is asked of it ----------------------------------------------------------------------------------------

    def listen(self, address: str, port: int, mode: str, **options: Any) -> tuple[int, int]:
        if address.startswith("/"):
            open(address, "w").close()
        return next(self._numbers), port or 1

    def unlisten(self, listener: int) -> None: ...

    def connect(self, address: str, port: int, **options: Any) -> int:
        return FIRST_SERVER + next(self._numbers)

    def gather(self, on: bool) -> None: ...

    def postpone(self, sid: int) -> None: ...

    def caught_up(self, sid: int) -> None: ...

    def set_tls(self, chain_pem: bytes, key_pem: bytes, domain: str | None = None) -> None: ...

    def forget_tls(self, domain: str) -> None: ...

    def set_domains(self, domains: Sequence[str], *, services: Sequence[str] = ()) -> None: ...

    def open_stream(self, sid: int, attrs: Mapping[str, str]) -> None:
        self.opened.add(sid)

    def send(self, sid: int, elements: Sequence[Element]) -> None:
        if sid not in self.closed:
            self.sent += [(sid, element) for element in elements]

    def send_many(self, batch: Sequence[tuple[int, Element]]) -> None:
        for sid, element in batch:
            self.send(sid, [element])

    def fan_out(self, element: Element, sids: Sequence[int]) -> None:
        for sid in sids:
            if sid in self.names:
                self.send(sid, [element.with_attrs({"to": self.names[sid]})])

    def starttls(self, sid: int) -> None:
        self.emit("tls", sid, {"version": "TLSv1.3", "cipher": "", "sni": None, "alpn": None, "chain": []})

    def restart(self, sid: int, attrs: Mapping[str, str] | None = None, features: Element | None = None) -> None:
        self.opened.discard(sid)

    def authenticated(self, sid: int, bare: str) -> None: ...

    def pair(self, sid: int, local: str, remote: str, *, direct: bool = False) -> None: ...

    def unpair(self, sid: int, local: str, remote: str) -> None: ...

    def route_domain(self, sid: int, local: str, remote: str, on: bool) -> None: ...

    def bind(self, sid: int, full: str) -> None:
        self.rows[full], self.names[sid] = sid, full
        self.ever.add(full)

    def unbind(self, sid: int) -> None:
        full = self.names.pop(sid, None)
        if full is not None and self.rows.get(full) == sid:
            del self.rows[full]
        self._priorities.pop(sid, None)

    def presence(self, sid: int, priority: int | None) -> None:
        if priority is not None and not -128 <= priority <= 127:
            raise OverflowError("out of range")
        if priority is None:
            self._priorities.pop(sid, None)
        else:
            self._priorities[sid] = priority

    def tap(self, sid: int, on: bool) -> None: ...

    def carbons(self, sid: int, on: bool) -> None: ...

    def inactive(self, sid: int, on: bool) -> None: ...

    def manage(self, sid: int, answer: Element | None, *, resume: bool) -> None:
        self._managed.add(sid)
        if answer is not None:
            self.send(sid, [answer])
            self.tokens.append((answer.get("id") or "", self.names.get(sid, "")))

    def part(self, sid: int, error: Element) -> None:
        self.emit("detached", sid, "", [])

    def move_out(self, sid: int) -> bool:
        self.unbind(sid)
        self.emit("moved", sid, 1, 1, [], [])
        return False

    def move_in(self, full: str, received: int, acknowledged: int) -> int:
        if max(received, acknowledged) >= 1 << 32:
            raise OverflowError("out of range")
        sid = next(self._numbers) + (1 << 40)
        self._managed.add(sid)
        return sid

    def restore(self, sid: int, sent: Sequence[tuple[Element, bool]]) -> None: ...

    def resume(self, sid: int, old: int, handled: int, previd: str, answer: Sequence[Element] = ()) -> None:
        if old in self._managed and old not in self.closed and handled < 1000:
            self.send(old, answer)
            self.emit("resumed", old, sid)
        else:
            self.emit("unresumed", sid, "item-not-found")

    def archive(self, bare: str, on: bool) -> None:
        (self._archived.add if on else self._archived.discard)(bare)

    def committed(self, ticket: int, kept: bool = True) -> None:
        self.tickets.remove(ticket)

    def next_id(self) -> int:
        return next(self._ids)

    def deliver(self, messages: Sequence[Element]) -> tuple[list[Element], int | None]:
        before = set(self.tickets)
        missed = [message for message in messages if not self._deliver(message)]
        return missed, next(iter(self.tickets - before), None)

    def _deliver(self, message: Element) -> bool:
        to, sender = message.get("to") or "", message.get("from") or ""
        if to in self.rows:
            sids = [self.rows[to]]
        else:
            bare = to.partition("/")[0]
            available = [self.rows[full] for full in self.rows if full.partition("/")[0] == bare]
            sids = [sid for sid in available if self._priorities.get(sid, -1) >= 0]
        if not sids:
            return False
        for sid in sids:
            self.send(sid, [message])
        sides = {sender.partition("/")[0], to.partition("/")[0]}
        owners = sorted(sides & self._archived)
        if owners and archivable(message):
            ticket = next(self._numbers)
            self.tickets.add(ticket)
            self.emit("records", ticket, [(self.next_id(), sender, to, owners, message)])
        return True

    def copy(self, messages: Sequence[Element]) -> None: ...

    def close(self, sid: int, error: Element | None = None) -> None:
        if sid not in self.closed:
            self.closed[sid] = error
            self.undone = {one for one in self.undone if one[0] != sid}
            if sid in self._managed:
                self.emit("unacknowledged", sid, [], 0)
            self.emit("closed", sid, "closed")

    def exporter(self, sid: int) -> bytes | None:
        return b"e" * 32

    def stats(self) -> dict[str, int]:
        return {"sessions": len(self.names)}

    def stop(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
