"""The compiled extension: codecs and engines of the plane. Only the facades in ``proto``, ``net`` and the rooms import it."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, final

# --- XMPP: the element tree, the framer and the server engine ---------------------------------------------------------

@final
class Element:
    """An immutable XML element; trees are shared, not copied. Equal when name, namespace, attributes (in any order) and
    children are.

    ``attrs`` keys are ``local``, ``xml:lang`` or ``{namespace}local``. Raises UsageError when a name or a character cannot
    stand in XML, or when the tree would be deeper than 256 elements. Neighbouring texts are joined, empty ones dropped.
    """

    def __new__(
        cls, name: str, ns: str, attrs: Mapping[str, str] | None = None, children: Sequence[Element | str] | None = None
    ) -> Element: ...
    @property
    def name(self) -> str:
        """Local name."""
    @property
    def ns(self) -> str:
        """Namespace; empty when there is none."""
    @property
    def attrs(self) -> dict[str, str]:
        """The attributes, as a fresh dict."""
    def get(self, attr: str, default: str | None = None) -> str | None:
        """The value of one attribute."""
    @property
    def text(self) -> str:
        """The direct texts, joined."""
    @property
    def children(self) -> list[Element | str]:
        """Children in order."""
    def elements(self) -> list[Element]:
        """Child elements in order."""
    def find(self, name: str, ns: str | None = None) -> Element | None:
        """The first child element with this name; in this element's namespace unless ``ns`` is given."""
    def with_attrs(self, attrs: Mapping[str, str | None]) -> Element:
        """A copy with attributes set, or removed where the value is None; children are shared."""
    def with_children(self, children: Sequence[Element | str]) -> Element:
        """A copy with other children."""
    def to_xml(self, default_ns: str = "jabber:client") -> str:
        """The canonical text, to stand where ``default_ns`` is the default namespace."""
    @staticmethod
    def parse(data: bytes | str) -> Element:
        """Reads one document with the bounds of a stanza (256 KiB). Raises ProtocolError with ``condition``."""
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

StreamEvent: TypeAlias = (
    tuple[Literal["open"], dict[str, str]] | tuple[Literal["element"], Element] | tuple[Literal["close"]]
)

@final
class XmlStream:
    """A push framer for ``<stream:stream>`` without I/O. ``max_stanza`` is bytes of one top-level element."""

    def __new__(cls, max_stanza: int = 262144) -> XmlStream: ...
    def feed(self, data: bytes) -> list[StreamEvent]:
        """Reads bytes in any pieces. The attributes of ``open`` have the default namespace as ``xmlns``.

        Raises ProtocolError, whose ``condition`` is the stream error that answers it (RFC 6120 §4.9.3).
        """

XmppEvent: TypeAlias = (
    tuple[Literal["connected"], int, int, str, int, bool]
    | tuple[Literal["open"], int, dict[str, str]]
    | tuple[Literal["tls"], int, dict[str, str | None]]
    | tuple[Literal["stanza"], int, Element]
    | tuple[Literal["close"], int]
    | tuple[Literal["closed"], int, str]
)

@final
class XmppServer:
    """The XMPP engine: listeners, sessions and the route table. Every method returns at once; calls about a session take
    effect in the order they are made, and do nothing when the session is gone.

    Sizes are bytes, times are seconds. ``max_stanza`` and ``max_stanza_unauthenticated`` bound one stanza;
    ``handshake_timeout`` is the time from accepting a connection to ``authenticated``; ``linger`` the time a closed stream
    may take to say goodbye; ``write_queue`` the bytes that may wait for a slow reader before it is closed, and
    ``write_timeout`` the time it may take none of them; ``idle_timeout`` closes a session that sends nothing (0: never;
    TCP keep-alive finds dead peers anyway); ``pending_events`` is how many events of one session may wait to be drained
    before it is not read any more; ``max_sessions`` and ``max_unauthenticated`` bound connections; ``threads`` is 0 for
    one per core, at most 4. ``domains`` are further names that a stream may be opened to.
    """

    def __new__(
        cls,
        domain: str,
        *,
        domains: Sequence[str] = (),
        max_stanza: int = 262144,
        max_stanza_unauthenticated: int = 10240,
        handshake_timeout: float = 30.0,
        linger: float = 3.0,
        write_queue: int = 4194304,
        write_timeout: float = 60.0,
        idle_timeout: float = 0.0,
        pending_events: int = 64,
        max_sessions: int = 200000,
        max_unauthenticated: int = 4096,
        threads: int = 0,
    ) -> XmppServer: ...
    def listen(
        self,
        address: str,
        port: int,
        mode: Literal["starttls", "tls", "websocket", "websocket-tls"],
        *,
        proxy_protocol: bool = False,
        origins: Sequence[str] = (),
        path: str = "/xmpp-websocket",
    ) -> tuple[int, int]:
        """Binds a listener; ``(listener id, bound port)``. An ``address`` that begins with ``/`` is a Unix socket's path.

        ``proxy_protocol`` requires a PROXY header (v1 or v2) first on every connection. ``origins`` are the web origins
        that may connect; ``*`` is any; with none, only the origin that the request is addressed to, and clients without
        one. Raises Unavailable when the address cannot be bound, UsageError for arguments that make no sense.
        """
    def unlisten(self, listener: int) -> None:
        """Stops accepting; established sessions stay."""
    def set_tls(self, chain_pem: bytes, key_pem: bytes) -> None:
        """Sets the certificate of new handshakes. Raises ConfigError-like UsageError when chain and key do not fit."""
    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""
    def drain(self, limit: int) -> list[XmppEvent]:
        """Takes up to ``limit`` events, oldest first.

        ``('connected', sid, listener id, peer address, peer port, whether TLS is on from the start)``,
        ``('open', sid, attributes of the stream header)``, ``('tls', sid, {'version', 'cipher', 'sni', 'alpn'})``,
        ``('stanza', sid, element)``, ``('close', sid)`` when the peer ended its stream,
        ``('closed', sid, reason)`` last.
        """
    def open_stream(self, sid: int, attrs: Mapping[str, str]) -> None:
        """Sends the stream header, or ``<open/>`` over WebSocket, with ``from``, ``id``, ``version`` … as given."""
    def send(self, sid: int, elements: Sequence[Element]) -> None:
        """Sends elements in order."""
    def send_many(self, batch: Sequence[tuple[int, Element]]) -> None:
        """Sends many elements to many sessions; one element for many is serialised once."""
    def starttls(self, sid: int) -> None:
        """Sends ``<proceed/>`` and begins the TLS handshake."""
    def restart(self, sid: int) -> None:
        """Expects a new stream header; call after SASL ``<success/>`` was sent."""
    def authenticated(self, sid: int, bare: str) -> None:
        """Lifts the bounds that hold before authentication. ``bare`` is the prepared JID."""
    def bind(self, sid: int, full: str) -> None:
        """Adds the session's row to the route table; from now on its stanzas are stamped. Call before the result is sent."""
    def presence(self, sid: int, priority: int | None) -> None:
        """Sets the row's priority; None is unavailable."""
    def unbind(self, sid: int) -> None:
        """Removes the row."""
    def tap(self, sid: int, on: bool) -> None:
        """Makes every message from and to the session a 'stanza' event of its sender."""
    def close(self, sid: int, error: Element | None = None) -> None:
        """Ends the stream, after a stream error if one is given; then the connection, within the linger time."""
    def exporter(self, sid: int) -> bytes | None:
        """The tls-exporter channel binding (RFC 9266) of a session that is not authenticated yet; None before TLS 1.3."""
    def stats(self) -> dict[str, int]:
        """Counters since the start, and gauges: sessions, unauthenticated, events, routed, missed …"""
    def stop(self) -> None:
        """Closes every stream with system-shutdown and ends the engine's threads, within a second."""
