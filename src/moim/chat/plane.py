"""The chat room's face of the XMPP plane: the only file that touches ``moim._native.XmppServer``.

The plane frames, encrypts, stamps ``from``, and delivers messages between available local sessions by itself. What
its table has no row for comes up here, in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from moim._native import ArchiveIds, XmppServer
from moim.chat import custody
from moim.chat.custody import Custody, Word
from moim.chat.s2s_plane import ServerPlane
from moim.errors import ConfigError, MoimError
from moim.net.pump import Pump
from moim.net.tls import end_point
from moim.proto.xmpp import Element

if TYPE_CHECKING:
    from moim._native import _XmppEvent

    PlaneEvent: TypeAlias = _XmppEvent
    MovedOut: TypeAlias = tuple[Literal["moved"], int, int, int, list[tuple[Element, bool]], list[Element]]
    """Number, counts of what was taken and acknowledged, what was sent, and what was held back."""

Mode = Literal["starttls", "tls", "websocket", "websocket-tls"]
Batch = Sequence[tuple[int, Element]]


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound listener. ``needs_tls``: clients must use STARTTLS before anything else."""

    number: int
    name: str
    mode: Mode
    address: str
    port: int

    @property
    def needs_tls(self) -> bool:
        """Whether the connection begins without TLS and has to change that."""
        return self.mode == "starttls"

    @property
    def sheltered(self) -> bool:
        """Whether nobody on the way can read it though it has no TLS here: loopback, or the tunnel from the edge."""
        return self.mode == "websocket"


class Elsewhere(Protocol):
    """The way to sessions of other nodes, which have negative numbers here."""

    def send(self, batch: Batch) -> None:
        """Sends elements to sessions, in order."""
        ...

    def fan_out(self, element: Element, sids: Sequence[int]) -> None:
        """Sends one element to many sessions, each with its own full JID as ``to``."""
        ...

    def copy(self, messages: Sequence[Element]) -> Sequence[Element]:
        """Sends the carbons of messages to sessions there; those whose carbons are to be made here now as well."""
        ...


class Plane:
    """One engine. Every call returns at once; calls about a session that is gone do nothing.

    ``domain`` is the domain as addresses have it; ``also`` are other spellings that a stream may be opened to.
    ``node`` is this node's number in those of archived messages, which archives call by ``archive_ids``.
    """

    def __init__(
        self,
        domain: str,
        *,
        also: Sequence[str],
        max_stanza: int,
        handshake_timeout: float,
        archive_ids: ArchiveIds,
        node: int = 0,
    ) -> None:
        self._engine = XmppServer(
            domain,
            domains=also,
            max_stanza=max_stanza,
            handshake_timeout=handshake_timeout,
            node=node,
            archive_ids=archive_ids,
        )
        self.archive_ids = archive_ids
        self._word = Word(self._engine.done)
        self.servers = ServerPlane(self._engine, self._word)
        self._delivered: dict[int, Custody] = {}
        self._pump: Pump[PlaneEvent] | None = None
        self.elsewhere: Elsewhere | None = None
        self._end_point = b""
        self._tapped: dict[int, set[str]] = {}

    def serve(self, domains: Sequence[str], services: Sequence[str]) -> None:
        """The names that streams may be opened to: ``domains`` by anybody, ``services`` by other servers alone."""
        self._engine.set_domains(domains, services=services)

    def start(self, handle: Callable[[Sequence[PlaneEvent]], None]) -> None:
        """Begins to pass batches of events to ``handle`` in the running event loop.

        What a batch asks of sessions is handed over when it is worked off: a thread woken for each word costs more
        than the words.
        """
        engine, split = self._engine, self.servers.split(handle)

        def gathered(batch: Sequence[PlaneEvent]) -> None:
            engine.gather(True)
            try:
                split(batch)
            finally:
                self._word.say()
                engine.gather(False)

        self._pump = Pump(engine, gathered)
        self._pump.start()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is asked of sessions inside is handed over when it ends."""
        self._engine.gather(True)
        try:
            yield
        finally:
            self._engine.gather(False)

    def stop(self) -> None:
        """Ends every stream with system-shutdown; takes up to a second, so keep it off the event loop."""
        self._engine.stop()

    def unread(self) -> list[Element]:
        """Stanzas that clients had not acknowledged when the engine stopped; call after ``stop``, once."""
        left: list[Element] = []
        while batch := self._engine.drain(4096):
            for event in batch:
                if event[0] == "unacknowledged":
                    left += event[2]
                elif event[0] == "missed":
                    left.append(event[2])
        return left

    def detach(self) -> None:
        """Stops passing events; call in the event loop, before ``stop``."""
        if self._pump is not None:
            self._pump.stop()
            self._pump = None

    def listen(
        self,
        name: str,
        address: str,
        port: int,
        mode: Mode,
        *,
        proxy_protocol: bool = False,
        origins: Sequence[str] = (),
    ) -> Listener:
        """Binds a listener; an ``address`` that begins with ``/`` is a Unix socket. Raises Unavailable."""
        number, bound = self._engine.listen(address, port, mode, proxy_protocol=proxy_protocol, origins=tuple(origins))
        return Listener(number, name, mode, address, bound)

    def use_certificate(self, chain: Path, key: Path) -> None:
        """Presents this certificate in new handshakes. Raises ConfigError, keeping the old one, when it cannot."""
        try:
            pem = chain.read_bytes()
            self._engine.set_tls(pem, key.read_bytes())
            self._end_point = end_point(pem)
        except (OSError, MoimError) as error:
            raise ConfigError(f"the certificate {chain} or its key cannot be used for XMPP: {error}") from error

    def open_stream(self, sid: int, attrs: Mapping[str, str]) -> None:
        """Answers the client's stream header."""
        self._engine.open_stream(sid, attrs)

    def send(self, sid: int, elements: Sequence[Element]) -> None:
        """Sends elements to one session, in order."""
        if sid < 0:
            if self.elsewhere is not None:
                self.elsewhere.send([(sid, element) for element in elements])
            return
        self._engine.send(sid, elements)

    def send_many(self, batch: Batch) -> None:
        """Sends elements to many sessions; the same element for many is serialised once."""
        if self.elsewhere is not None and any(sid < 0 for sid, _ in batch):
            self.elsewhere.send([part for part in batch if part[0] < 0])
            batch = [part for part in batch if part[0] >= 0]
        if batch:
            self._engine.send_many(batch)

    def fan_out(self, element: Element, sids: Sequence[int]) -> None:
        """Sends one element to many bound sessions, each with its own full JID as ``to``."""
        if self.elsewhere is not None and sids and min(sids) < 0:
            self.elsewhere.fan_out(element, [sid for sid in sids if sid < 0])
            sids = [sid for sid in sids if sid >= 0]
        self._engine.fan_out(element, sids)

    def start_tls(self, sid: int) -> None:
        """Tells the client to proceed and begins the handshake."""
        self._engine.starttls(sid)

    def authenticated(
        self, sid: int, bare: str, success: Element, header: Mapping[str, str], features: Element
    ) -> None:
        """Sends ``success``, lifts the bounds of strangers, and expects a new stream.

        One that the client opens as it opened the last is answered with ``header`` and ``features``, and no event
        tells of it.
        """
        self._engine.send(sid, [success])
        self._engine.authenticated(sid, bare)
        self._engine.restart(sid, header, features)

    def signed_in(self, sid: int, bare: str) -> None:
        """Lifts the bounds of strangers; the stream goes on as it is (XEP-0388)."""
        self._engine.authenticated(sid, bare)

    def bind(self, sid: int, full: str) -> None:
        """Routes the full JID to the session."""
        self._engine.bind(sid, full)

    def unbind(self, sid: int) -> None:
        """Takes the session out of the route table."""
        self._tapped.pop(sid, None)
        self._engine.unbind(sid)

    def presence(self, sid: int, priority: int | None) -> None:
        """Makes the session available with a priority, or unavailable."""
        if sid >= 0:
            self._engine.presence(sid, priority)

    def tap(self, sid: int, on: bool, why: str) -> None:
        """Makes every message from the session and to its account come up here, as long as there is a reason to."""
        if sid < 0:
            return
        reasons = self._tapped.setdefault(sid, set())
        before = bool(reasons)
        if on:
            reasons.add(why)
        else:
            reasons.discard(why)
        if not reasons:
            del self._tapped[sid]
        if bool(reasons) != before:
            self._engine.tap(sid, bool(reasons))

    def archive(self, bare: str, on: bool) -> None:
        """Makes records of the messages that are delivered from and to an account, or not."""
        self._engine.archive(bare, on)

    def postpone(self, sid: int) -> None:
        """What came of a session is worked on for longer than this batch: until ``caught_up``, no message of it takes
        the short way past that."""
        self._engine.postpone(sid)

    def caught_up(self, sid: int) -> None:
        """All that was postponed is worked off."""
        self._engine.caught_up(sid)

    def committed(self, ticket: int, kept: bool = True) -> None:
        """The records of a ticket are on disk: their senders may be acknowledged. Or they never will be ``kept``: then
        the streams of servers that sent some of them end, and the sessions of clients have been ended."""
        held = self._delivered.pop(ticket, None)
        if held is not None:
            held.release() if kept else held.refuse()
        self._engine.committed(ticket, kept=kept)

    def done(self, sid: int, number: int) -> None:
        """A message that came up with this number is dealt with: its sender may be acknowledged."""
        self._word.done(sid, number)

    def next_id(self) -> int:
        """The number of the next archived message: records get theirs from the same source."""
        return self._engine.next_id()

    def deliver(self, messages: Sequence[Element]) -> list[Element]:
        """Delivers messages as if local sessions had sent them; those that the table does not decide come back.

        The message that is being worked on is held until the records that this makes are on disk.
        """
        missed, ticket = self._engine.deliver(messages)
        if ticket is not None and (held := custody.hold()) is not None:
            self._delivered[ticket] = held
        return missed

    def copy(self, messages: Sequence[Element]) -> None:
        """Sends the carbons (XEP-0280) of messages that are delivered otherwise."""
        if self.elsewhere is not None:
            messages = self.elsewhere.copy(messages)
        self.copy_here(messages)

    def copy_here(self, messages: Sequence[Element]) -> None:
        """The same for sessions of this node alone."""
        self._engine.copy(messages)

    def carbons(self, sid: int, on: bool) -> None:
        """Makes the session get copies of its account's other conversations (XEP-0280), or not."""
        self._engine.carbons(sid, on)

    def inactive(self, sid: int, on: bool) -> None:
        """Holds back what the client need not hear at once (XEP-0352), or no more."""
        self._engine.inactive(sid, on)

    def manage(self, sid: int, answer: Element | None, resume: bool) -> None:
        """Begins stream management (XEP-0198) behind ``answer``; ``resume``: the session may outlive its connection."""
        self._engine.manage(sid, answer, resume=resume)

    def resume(self, sid: int, old: int, handled: int, token: str, answer: Sequence[Element]) -> None:
        """Makes the connection ``sid``, whose client has ``handled`` stanzas, that of the session ``old``. An event
        says whether."""
        self._engine.resume(sid, old, handled, token, answer)

    def part(self, sid: int, error: Element) -> None:
        """Ends the connection of a session that can be resumed; an event says when the session waits without one."""
        self._engine.part(sid, error)

    def move_out(self, sid: int) -> bool:
        """Takes a session out that waits for its client; an event brings it. Whether it gets carbons."""
        self._tapped.pop(sid, None)
        return self._engine.move_out(sid)

    def move_in(self, full: str, received: int, acknowledged: int) -> int:
        """Takes in a session of another node, with the counts of stream management; its number. ``bind`` comes after
        what is to come to it first."""
        return self._engine.move_in(full, received, acknowledged)

    def restore(self, sid: int, sent: Sequence[tuple[Element, bool]]) -> None:
        """What the client of a session that was taken in may not have got, each with whether nobody else has it."""
        self._engine.restore(sid, sent)

    def close(self, sid: int, error: Element | None = None) -> None:
        """Ends the stream."""
        self._word.say()
        self._engine.close(sid, error)

    def channel_bindings(self, sid: int) -> dict[str, bytes]:
        """What binds a sign-in to a connection with TLS, by type, the strongest first; ask right after the handshake.

        ``tls-server-end-point`` is that of the certificate in use now.
        """
        bindings = {"tls-server-end-point": self._end_point} if self._end_point else {}
        exported = self._engine.exporter(sid)
        return {"tls-exporter": exported, **bindings} if exported is not None else bindings

    def stats(self) -> dict[str, int]:
        """The plane's counters."""
        return self._engine.stats()
