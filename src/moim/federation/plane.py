"""What federation needs of others: the plane's half for streams between servers, and the chat room behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from moim.proto.xmpp import Element

Event = tuple[Any, ...]
"""An event of ``moim._native.XmppServer`` about a stream between servers."""
Mode = Literal["server", "server-tls"]


class ServerPlane(Protocol):
    """Streams between servers. Every call returns at once; calls about a stream that is gone do nothing."""

    def attach(self, handle: Callable[[Sequence[Event]], None]) -> None:
        """Passes every event about streams between servers to ``handle`` from now on."""
        ...

    def detach(self) -> None:
        """Passes no more events."""
        ...

    def listen(
        self, name: str, address: str, port: int, mode: Mode, *, proxy_protocol: bool = False
    ) -> tuple[int, int]:
        """Binds a listener, or a Unix socket for an ``address`` with ``/``: its number and port. Raises Unavailable."""
        ...

    def unlisten(self, number: int) -> None:
        """Accepts no more there."""
        ...

    def use_certificate(self, domain: str, chain: Path, key: Path) -> None:
        """Presents this certificate for one hosted domain. Raises ConfigError when it cannot."""
        ...

    def connect(self, address: str, port: int, *, tls: bool, server_name: str, local: str, timeout: float) -> int:
        """Begins to connect: the stream's number. An empty ``local`` shows no certificate."""
        ...

    def open_stream(self, sid: int, attrs: Mapping[str, str]) -> None:
        """Sends our stream header."""
        ...

    def send(self, sid: int, elements: Sequence[Element]) -> None:
        """Sends elements in order."""
        ...

    def start_tls(self, sid: int) -> None:
        """Begins the handshake."""
        ...

    def restart(self, sid: int) -> None:
        """Expects a new stream header."""
        ...

    def count(self, sid: int) -> None:
        """Sends ``<enable/>`` and counts from there on: what the peer does not acknowledge is 'undelivered'."""
        ...

    def authenticated(self, sid: int, remote: str) -> None:
        """The time for signing in is over."""
        ...

    def pair(self, sid: int, local: str, remote: str) -> None:
        """Lets stanzas from ``remote`` to ``local`` in; messages of those need not come up here."""
        ...

    def route(self, sid: int, local: str, remote: str) -> None:
        """Lets messages from ``local`` to ``remote`` out without a word from here, until the stream ends."""
        ...

    def done(self, sid: int, number: int) -> None:
        """A stanza that came with this number is dealt with: the peer may be acknowledged."""
        ...

    def close(self, sid: int, error: Element | None = None) -> None:
        """Ends the stream, then the connection."""
        ...


class Chat(Protocol):
    """The chat room of this node."""

    @property
    def hosts(self) -> Sequence[str]:
        """The domains that it answers for, the users' own first; prepared."""
        ...

    @property
    def services(self) -> Sequence[str]:
        """Those of them that belong to its parts, not to people."""
        ...

    @property
    def servers(self) -> ServerPlane:
        """The plane. Raises UsageError while chat is not started."""
        ...

    def remote_stanza(self, stanza: Element, over: Callable[[bool], None] | None = None) -> None:
        """Takes a stanza of another domain, or the error that answers one to it; addresses are proven.

        ``over`` is called when a message is dealt with: True when its server may be told so, False when the stream has
        to end because it cannot be kept.
        """
        ...

    def hold(self) -> Callable[[], None] | None:
        """Lets the message that is being worked on count as not dealt with until the result is called; None when nobody
        waits for it."""
        ...
