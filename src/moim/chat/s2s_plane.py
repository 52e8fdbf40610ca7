"""The plane's half for streams between servers, as the federation room is given it: the same engine, its own events.

The engine numbers streams between servers from 2⁴⁸ on; so one look at the number tells whose an event is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moim._native import XmppServer
from moim.chat.custody import Word
from moim.errors import ConfigError, MoimError
from moim.proto.xmpp import Element, ns

if TYPE_CHECKING:
    from moim.chat.plane import PlaneEvent

FIRST_SERVER = 1 << 48

Handler = Callable[[Sequence[Any]], None]


class ServerPlane:
    """Streams between servers of one engine. Every call returns at once."""

    def __init__(self, engine: XmppServer, word: Word) -> None:
        self._engine = engine
        self._word = word
        self._handle: Handler | None = None
        self._pairs: dict[str, dict[tuple[int, str], None]] = {}
        self.short_way: Callable[[str], bool] = lambda remote: True
        """Whether messages of a domain go to local sessions at once, or are judged first."""
        self.open: Callable[[str], bool] = lambda local: True
        """Whether the people of a hosted domain may talk with others, so that nobody has to look at each message."""

    def attach(self, handle: Handler) -> None:
        """Passes every event about streams between servers to ``handle`` from now on."""
        self._handle = handle

    def detach(self) -> None:
        """Passes no more events."""
        self._handle = None

    def split(self, clients: Callable[[Sequence[PlaneEvent]], None]) -> Callable[[Sequence[PlaneEvent]], None]:
        """A handler of whole batches that leaves the rest to ``clients``; each side's events stay in order."""

        def handle(batch: Sequence[PlaneEvent]) -> None:
            if all(event[1] < FIRST_SERVER for event in batch):
                clients(batch)
                return
            servers = [event for event in batch if event[1] >= FIRST_SERVER]
            for event in servers:
                if event[0] == "closed":
                    self._forget(event[1])
            if len(servers) < len(batch):
                clients([event for event in batch if event[1] < FIRST_SERVER])
            if self._handle is not None:
                self._handle(servers)

        return handle

    def listen(
        self,
        name: str,
        address: str,
        port: int,
        mode: Literal["server", "server-tls"],
        *,
        proxy_protocol: bool = False,
    ) -> tuple[int, int]:
        """Binds a listener, or a Unix socket for an ``address`` with ``/``: its number and port. Raises Unavailable."""
        return self._engine.listen(address, port, mode, proxy_protocol=proxy_protocol)

    def unlisten(self, number: int) -> None:
        """Accepts no more there."""
        self._engine.unlisten(number)

    def use_certificate(self, domain: str, chain: Path, key: Path) -> None:
        """Presents this certificate for one hosted domain. Raises ConfigError when it cannot."""
        try:
            self._engine.set_tls(chain.read_bytes(), key.read_bytes(), domain)
        except (OSError, MoimError) as error:
            raise ConfigError(f"the certificate {chain} or its key cannot be used for {domain}: {error}") from error

    def connect(self, address: str, port: int, *, tls: bool, server_name: str, local: str, timeout: float) -> int:
        """Begins to connect: the stream's number. An empty ``local`` shows no certificate."""
        return self._engine.connect(address, port, tls=tls, server_name=server_name, local=local, timeout=timeout)

    def open_stream(self, sid: int, attrs: Mapping[str, str]) -> None:
        """Sends our stream header."""
        self._engine.open_stream(sid, attrs)

    def send(self, sid: int, elements: Sequence[Element]) -> None:
        """Sends elements in order."""
        self._engine.send(sid, elements)

    def start_tls(self, sid: int) -> None:
        """Begins the handshake."""
        self._engine.starttls(sid)

    def restart(self, sid: int) -> None:
        """Expects a new stream header."""
        self._engine.restart(sid)

    def count(self, sid: int) -> None:
        """Sends ``<enable/>`` and counts from there on: what the peer does not acknowledge is 'undelivered'."""
        self._engine.manage(sid, Element("enable", ns.SM), resume=False)

    def authenticated(self, sid: int, remote: str) -> None:
        """The time for signing in is over."""
        self._engine.authenticated(sid, remote)

    def pair(self, sid: int, local: str, remote: str) -> None:
        """Lets stanzas from ``remote`` to ``local`` in; messages that the table decides may go to sessions at once."""
        self._pairs.setdefault(remote, {})[sid, local] = None
        self._engine.pair(sid, local, remote, direct=self.open(local) and self.short_way(remote))

    def look_again(self, remote: str) -> None:
        """What ``short_way`` says of a domain has changed: its streams follow."""
        for sid, local in self._pairs.get(remote, ()):
            self._engine.pair(sid, local, remote, direct=self.open(local) and self.short_way(remote))

    def _forget(self, sid: int) -> None:
        for remote, pairs in tuple(self._pairs.items()):
            for key in [key for key in pairs if key[0] == sid]:
                del pairs[key]
            if not pairs:
                del self._pairs[remote]

    def route(self, sid: int, local: str, remote: str) -> None:
        """Lets messages of sessions of ``local`` to ``remote`` out at once, where nobody has to look at them."""
        if self.open(local):
            self._engine.route_domain(sid, local, remote, True)

    def done(self, sid: int, number: int) -> None:
        """A stanza that came with this number is dealt with: the peer may be acknowledged."""
        self._word.done(sid, number)

    def close(self, sid: int, error: Element | None = None) -> None:
        """Ends the stream, then the connection."""
        self._word.say()
        self._engine.close(sid, error)
