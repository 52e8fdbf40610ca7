"""BOSH on the server's side (XEP-0124, XEP-0206): requests and answers of one session, without any I/O.

Rules it keeps: requests are worked off in the order of their ``rid``, whatever order they come in; every request is
answered once, and a copy of it gets the same answer again; at most ``hold`` requests wait; a client that stays away
for longer than ``inactivity`` is gone.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import quoteattr

from moim.errors import ProtocolError
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.stanza import as_client

MAX_BODY: Final = 262_144
VERSION: Final = "1.11"
_MAX_RID = 2**53 - 1
_RESTART = f"{{{ns.XBOSH}}}restart"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server grants, in seconds; ``hold`` is how many requests may wait, ``pause`` 0 for no pauses."""

    wait: int = 50
    hold: int = 1
    inactivity: int = 60
    polling: int = 2
    pause: int = 120


@dataclass(frozen=True, slots=True)
class Body:
    """One request. ``sid`` is empty in the one that begins a session."""

    attrs: Mapping[str, str]
    payload: tuple[Element, ...]
    rid: int
    sid: str

    @property
    def restart(self) -> bool:
        """Whether the client wants a new stream, after signing in."""
        return self.attrs.get(_RESTART) in ("true", "1")

    @property
    def terminate(self) -> bool:
        """Whether it ends the session."""
        return self.attrs.get("type") == "terminate"

    @property
    def key(self) -> str:
        """What shows that it comes from whoever sent the one before; empty for none."""
        return self.attrs.get("key", "")

    def number(self, name: str, default: int) -> int:
        """A small number among the attributes."""
        text = self.attrs.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


def read_body(data: bytes) -> Body:
    """Reads a request's ``<body/>``. Raises ProtocolError when it is none."""
    if len(data) > MAX_BODY:
        raise ProtocolError("the body is too large")
    root = Element.parse(data)
    if (root.ns, root.name) != (ns.HTTP_BIND, "body"):
        raise ProtocolError("that is not a body of BOSH")
    attrs = root.attrs
    rid = attrs.get("rid", "")
    if not (rid.isascii() and rid.isdigit() and len(rid) <= 16) or int(rid) > _MAX_RID:
        raise ProtocolError("the body has no request number")
    # Some clients let their stanzas stand in the body's namespace.
    payload = tuple(as_client(child, (ns.HTTP_BIND,)) for child in root.elements())
    return Body(attrs, payload, int(rid), attrs.get("sid", ""))


def write_body(attrs: Mapping[str, str], payload: Sequence[str] = ()) -> bytes:
    """A ``<body/>`` around elements that are written already, each with its namespace."""
    text = "".join(f" {name}={quoteattr(value)}" for name, value in attrs.items())
    spaces = f"xmlns='{ns.HTTP_BIND}' xmlns:xmpp='{ns.XBOSH}' xmlns:stream='{ns.STREAMS}'"
    return f"<body {spaces}{text}>{''.join(payload)}</body>".encode()


def ending(condition: str = "", payload: Sequence[str] = ()) -> bytes:
    """The body that ends a session, with a binding condition when it is an error (XEP-0124 section 17.2)."""
    return write_body({"type": "terminate"} | ({"condition": condition} if condition else {}), payload)


# --- what a session says -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the request that came with this ticket."""

    ticket: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """Pass an element on to the stream."""

    element: Element


@dataclass(frozen=True, slots=True)
class Restart:
    """Open the stream anew."""


@dataclass(frozen=True, slots=True)
class Over:
    """The session is over: close its stream. ``condition`` is empty for a proper end."""

    condition: str


Output = Answer | Pass | Restart | Over


@dataclass(slots=True)
class _Held:
    rid: int
    tickets: list[int]
    until: float
    key: str = ""


class Session:
    """One session. ``receive`` takes requests, each with a ticket of the caller's; ``push`` takes what the stream says.

    ``now`` is seconds on one monotonic scale.
    """

    def __init__(self, sid: str, first: Body, ticket: int, limits: Limits, now: float) -> None:
        self.sid = sid
        self.over = False
        self.queued = 0
        self._limits = limits
        self._wait = min(limits.wait, first.number("wait", limits.wait))
        self._hold = min(limits.hold, first.number("hold", 1))
        self._acks = first.attrs.get("ack") == "1"
        self._polling = self._hold == 0 or self._wait == 0
        self._window = self._hold + 1 if not self._polling else 2
        self._from = ""
        self._lang = first.attrs.get("xml:lang", "")
        self._key = first.attrs.get("newkey", "")
        self._next = first.rid + 1
        self._waiting: dict[int, tuple[Body, list[int]]] = {}
        self._held: deque[_Held] = deque([_Held(first.rid, [ticket], now + max(self._wait, 10))])
        self._answered: deque[tuple[_Held, bytes]] = deque(maxlen=self._window)
        self._queue: deque[str] = deque()
        self._output: deque[Output] = deque()
        self._created = False
        self._stream = ""
        self._silent_since = now
        self._patience = float(limits.inactivity)
        self._polled = float("-inf")

    # --- in -----------------------------------------------------------------------------------------------------

    def opened(self, attrs: Mapping[str, str], now: float) -> None:
        """The stream was opened, or opened anew."""
        if not self._created:
            self._from, self._stream = attrs.get("from", ""), attrs.get("id", "")

    def receive(self, body: Body, ticket: int, now: float) -> None:
        """A request of the session."""
        if self.over:
            self._output.append(Answer(ticket, ending("item-not-found")))
            return
        known = next((held for held in self._held if held.rid == body.rid), None)
        waits = self._waiting.get(body.rid)
        answered = next((pair for pair in self._answered if pair[0].rid == body.rid), None)
        keys = [known and known.key, waits and waits[0].key, answered and answered[0].key]
        if any(key is not None and key != body.key for key in keys):
            self._fail("item-not-found", ticket, now)  # whoever has no key gets no answer by asking once more
        elif known is not None:
            self._copy(known.tickets, ticket, now)
        elif waits is not None:
            self._copy(waits[1], ticket, now)
        elif answered is not None:
            self._silent_since = now
            self._output.append(Answer(ticket, answered[1]))
        elif body.rid < self._next or body.rid >= self._next + self._window:
            self._fail("item-not-found", ticket, now)
        elif len(self._held) + len(self._waiting) > self._window:
            self._fail("policy-violation", ticket, now)
        else:
            self._waiting[body.rid] = (body, [ticket])
            while not self.over and (due := self._waiting.pop(self._next, None)) is not None:
                self._take(*due, now)
        self._settle(now)

    def _copy(self, tickets: list[int], ticket: int, now: float) -> None:
        """A copy of a request that waits: both get the answer; one of several is enough to tell a flood."""
        tickets.append(ticket)
        if len(tickets) > 3:
            self._end("policy-violation", (), now)

    def _take(self, body: Body, tickets: list[int], now: float) -> None:
        self._next = body.rid + 1
        self._silent_since, self._patience = now, float(self._limits.inactivity)
        self._held.append(_Held(body.rid, tickets, now + self._wait, body.key))
        if not self._right_key(body):
            self._end("item-not-found", (), now)
            return
        if (lang := body.attrs.get("xml:lang")) is not None:
            self._lang = lang
        for element in body.payload:
            self._output.append(Pass(self._with_language(element)))
        if body.terminate:
            self._end("", (), now)
            return
        if body.restart:
            self._output.append(Restart())
        pause = body.number("pause", 0)
        if pause and self._limits.pause:
            self._patience = float(min(pause, self._limits.pause))
            while self._held:
                self._answer(now, [])
        elif self._polling and not body.payload and not body.restart:
            if now - self._polled < self._limits.polling and not self._queue:
                self._end("policy-violation", (), now)
                return
            self._polled = float("-inf") if self._queue else now

    def _with_language(self, element: Element) -> Element:
        """The language of the body is that of its stanzas (XEP-0124 section 7.1)."""
        if not self._lang or element.get("xml:lang") or element.ns != ns.CLIENT:
            return element
        return element.with_attrs({"xml:lang": self._lang})

    def _right_key(self, body: Body) -> bool:
        """Key sequencing (XEP-0124 section 15), for clients that began with it."""
        if not self._key:
            return True
        # SHA-1 as the protocol has it: it keeps others off a session on a connection without TLS, nothing more.
        digest = hashlib.sha1(body.key.encode(), usedforsecurity=False).hexdigest()
        right = hmac.compare_digest(digest.encode(), self._key.lower().encode())
        self._key = body.attrs.get("newkey") or body.key
        return right

    def push(self, text: str, now: float) -> None:
        """An element that the stream sent, written with its namespace."""
        if self.over:
            return
        self._queue.append(text)
        self.queued += len(text)
        self._settle(now)

    def closed(self, condition: str, now: float, payload: Sequence[str] = ()) -> None:
        """The stream is over; ``payload`` is a stream error, if there was one."""
        if not self.over:
            self._end(condition, payload, now)

    # --- time ---------------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When ``tick`` wants to be called next."""
        if self.over:
            return None
        if self._held:
            return min(held.until for held in self._held)
        return self._silent_since + self._patience

    def tick(self, now: float) -> None:
        """Answers what waited long enough, and ends a session whose client stays away."""
        if self.over:
            return
        while self._held and self._held[0].until <= now:
            if not self._created:
                self._end("remote-connection-failed", (), now)
                return
            self._answer(now, [])
        if not self._held and self._silent_since + self._patience <= now:
            self._end("", (), now)

    # --- out ----------------------------------------------------------------------------------------------------

    def next_output(self) -> Output | None:
        """What to do next, or None."""
        return self._output.popleft() if self._output else None

    def _settle(self, now: float) -> None:
        """Answers whatever can be answered now."""
        while self._held and not self.over:
            spare = len(self._held) > self._hold or self._polling
            if not self._queue and (not spare or not self._created):
                return
            payload = list(self._queue)
            self._queue.clear()
            self.queued = 0
            self._answer(now, payload)

    def _answer(self, now: float, payload: list[str]) -> None:
        held = self._held.popleft()
        attrs: dict[str, str] = {}
        if not self._created:
            self._created = True
            attrs = self._grant()
        elif self._acks and self._next - 1 > held.rid:
            attrs["ack"] = str(self._next - 1)
        self._send(held, write_body(attrs, payload), now)

    def _grant(self) -> dict[str, str]:
        limits = self._limits
        granted = {
            "sid": self.sid,
            "wait": str(self._wait),
            "hold": str(self._hold),
            "requests": str(self._window),
            "inactivity": str(limits.inactivity),
            "polling": str(limits.polling),
            "ver": VERSION,
            "from": self._from,
            "authid": self._stream,
            "xmpp:version": "1.0",
            "xmpp:restartlogic": "true",
        }
        if limits.pause:
            granted["maxpause"] = str(limits.pause)
        if self._acks:
            granted["ack"] = str(self._next - 1)
        return granted

    def _send(self, held: _Held, body: bytes, now: float) -> None:
        self._answered.append((held, body))
        self._silent_since = now
        self._output.extend(Answer(ticket, body) for ticket in held.tickets)

    def _fail(self, condition: str, ticket: int, now: float) -> None:
        self._output.append(Answer(ticket, ending(condition)))
        self._end(condition, (), now)

    def _end(self, condition: str, payload: Sequence[str], now: float) -> None:
        """Ends the session: the newest request hears how and what is left, older ones and the rest that it is over."""
        self.over = True
        last = [*self._queue, *payload]
        self._queue.clear()
        self.queued = 0
        while self._held:
            held = self._held.popleft()
            self._send(held, ending(condition, last if not self._held else ()), now)
        for _, tickets in self._waiting.values():
            self._output.extend(Answer(ticket, ending(condition)) for ticket in tickets)
        self._waiting.clear()
        self._output.append(Over(condition))
