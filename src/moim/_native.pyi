"""The compiled extension: codecs and engines of the plane. Only the facades in ``proto``, ``net`` and the rooms
import it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, final

__all__ = ["ArchiveIds", "Element", "Sfu", "TurnServer", "XmlStream", "XmppServer", "archivable", "copied"]

# --- XMPP: the element tree, the framer and the server engine ---------------------------------------------------------

@final
class Element:
    """An immutable XML element; trees are shared, not copied. Equal when name, namespace, attributes (in any order) and
    children are.

    ``attrs`` keys are ``local``, ``xml:lang`` or ``{namespace}local``. Raises UsageError when a name or a character
    cannot stand in XML, or when the tree would be deeper than 256 elements. Neighbouring texts are joined, empty ones
    dropped.
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
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def archivable(message: Element) -> bool:
    """Whether a message belongs into archives (XEP-0313 section 5): chat or normal, with something worth keeping in it,
    and without a hint against it (XEP-0334)."""

def copied(message: Element) -> bool:
    """Whether whoever gets a message has copies of it (XEP-0280 section 6.1): what people say, invitations, and errors
    from bare addresses; not what an occupant of a room says in private, nor what is marked as private."""

_StreamEvent: TypeAlias = (
    tuple[Literal["open"], dict[str, str]] | tuple[Literal["element"], Element] | tuple[Literal["close"]]
)

@final
class XmlStream:
    """A push framer for ``<stream:stream>`` without I/O. ``max_stanza`` is bytes of one top-level element."""

    def __new__(cls, max_stanza: int = 262144) -> XmlStream: ...
    def feed(self, data: bytes) -> list[_StreamEvent]:
        """Reads bytes in any pieces. The attributes of ``open`` have the default namespace as ``xmlns``.

        Raises ProtocolError, whose ``condition`` is the stream error that answers it (RFC 6120 §4.9.3).
        """

class _TlsInfo(TypedDict):
    """What is known of a connection after its handshake. ``sni`` is the name the client asked for; ``chain`` another
    server's certificates in DER, leaf first, at most 10, empty when it showed none. Nothing but the handshake's
    signature has been checked of them."""

    version: str
    cipher: str
    sni: str | None
    alpn: str | None
    chain: list[bytes]

_XmppRecord: TypeAlias = tuple[int, str, str, list[str], Element]
"""A message for archives: its id, the sender's full JID, its ``to``, the accounts whose archives it belongs to (bare
JIDs, canonical), and the message as it was sent."""

_XmppEvent: TypeAlias = (
    tuple[Literal["connected"], int, int, str, int, bool]
    | tuple[Literal["open"], int, dict[str, str]]
    | tuple[Literal["tls"], int, _TlsInfo]
    | tuple[Literal["stanza"], int, Element, int]
    | tuple[Literal["missed"], int, Element]
    | tuple[Literal["detached"], int, str, list[Element]]
    | tuple[Literal["moved"], int, int, int, list[tuple[Element, bool]], list[Element]]
    | tuple[Literal["resumed"], int, int]
    | tuple[Literal["unresumed"], int, str]
    | tuple[Literal["unacknowledged"], int, list[Element], int]
    | tuple[Literal["records"], int, list[_XmppRecord]]
    | tuple[Literal["undelivered"], int, list[Element]]
    | tuple[Literal["carried"], int, int, int]
    | tuple[Literal["close"], int]
    | tuple[Literal["closed"], int, str]
)

@final
class ArchiveIds:
    """What archives call their messages on the wire (XEP-0359): 22 characters that tell nobody anything, made with a
    key of 16 bytes. Each archive has names of its own.
    """

    def __new__(cls, key: bytes) -> ArchiveIds: ...
    def write(self, owner: str, number: int) -> str:
        """What the archive of ``owner``, a bare JID in canonical form, calls message ``number`` (0 to 2**63 - 1)."""
    def read(self, owner: str, text: str) -> int | None:
        """The number of the message that the archive of ``owner`` calls so; None for what it calls nothing."""

@final
class XmppServer:
    """The XMPP engine: listeners, sessions and the route table. Every method returns at once; calls about a session
    take effect in the order they are made, and do nothing when the session is gone.

    Sizes are bytes, times are seconds. ``max_stanza`` and ``max_stanza_unauthenticated`` bound one stanza;
    ``handshake_timeout`` is the time from accepting a connection to ``authenticated``; ``linger`` the time a closed
    stream may take to say goodbye; ``write_queue`` the bytes that may wait for a slow reader before it is closed, and
    ``write_timeout`` the time it may take none of them; ``idle_timeout`` closes a session that sends nothing (0:
    never; TCP keep-alive finds dead peers anyway); ``pending_events`` is how many events of one session may wait to
    be drained before it is not read any more; ``rate`` and ``burst`` are the bytes per second one session may send in
    the long run (0: any) and at once; ``max_sessions`` and ``max_unauthenticated`` bound connections; ``threads`` is
    0 for one per core, at most 4. ``domains`` are further names that a stream may be opened to.
    ``server_write_queue`` and ``max_unauthenticated_servers`` are the same bounds for streams between servers, which
    carry the stanzas of many people and are counted apart.

    ``unacked_stanzas`` and ``unacked_bytes`` bound what may wait for one client's acknowledgement; ``ack_timeout`` is
    how long a client that can resume may leave a request for one unanswered before its connection counts as broken (0:
    for ever). ``node`` (0 to 511) is this node's number in those of archived messages; ``archive_ids`` is what archives
    call them (by default something that nobody else can read).

    Inside Moim every stanza is in ``jabber:client``; on a stream between servers it is in ``jabber:server``, and the
    engine translates.
    """

    def __new__(
        cls,
        domain: str,
        *,
        domains: Sequence[str] = ...,
        max_stanza: int = 262144,
        max_stanza_unauthenticated: int = 10240,
        handshake_timeout: float = 30.0,
        linger: float = 3.0,
        write_queue: int = 4194304,
        write_timeout: float = 60.0,
        idle_timeout: float = 0.0,
        pending_events: int = 64,
        rate: int = 0,
        burst: int = 1048576,
        max_sessions: int = 200000,
        max_unauthenticated: int = 4096,
        server_write_queue: int = 33554432,
        max_unauthenticated_servers: int = 1024,
        unacked_stanzas: int = 2000,
        unacked_bytes: int = 2097152,
        ack_timeout: float = 90.0,
        node: int = 0,
        archive_ids: ArchiveIds | None = None,
        threads: int = 0,
    ) -> XmppServer: ...
    def listen(
        self,
        address: str,
        port: int,
        mode: Literal["starttls", "tls", "websocket", "websocket-tls", "server", "server-tls"],
        *,
        proxy_protocol: bool = False,
        origins: Sequence[str] = ...,
        path: str = "/xmpp-websocket",
    ) -> tuple[int, int]:
        """Binds a listener; ``(listener id, bound port)``. An ``address`` that begins with ``/`` is a Unix socket's
        path.

        ``proxy_protocol`` requires a PROXY header (v1 or v2) first on every connection. ``origins`` are the web origins
        that may connect; ``*`` is any; with none, only the origin that the request is addressed to, and clients without
        one. ``server`` (STARTTLS) and ``server-tls`` (direct TLS, XEP-0368) are for other servers: they are asked for a
        certificate, and any or none is accepted. Raises Unavailable when the address cannot be bound, UsageError for
        arguments that make no sense.
        """
    def connect(
        self,
        address: str,
        port: int,
        *,
        tls: bool,
        server_name: str,
        local: str | None = None,
        source: str | None = None,
        timeout: float = 10.0,
    ) -> int:
        """Begins one attempt to connect to another server at one IP address; the new session's number.

        ``('connected', sid, 0, address, port, tls)`` follows when TCP, and TLS if ``tls`` asks for it at once (ALPN
        ``xmpp-server``), are up; else ``('closed', sid, reason)``, at the latest after ``timeout``. ``server_name`` is
        sent as SNI, there and after STARTTLS; an IP address sends none. The certificate of the hosted domain ``local``
        is shown to a peer that asks for one; an empty ``local`` shows none. ``source`` is the local address to connect
        from. The numbers of streams between servers, in both directions, begin at 2**48.

        ``open_stream`` sends our header. Input after ``<proceed/>`` waits for ``starttls``, input after SASL's
        ``<success/>`` for ``restart``. ``authenticated`` stops the time for signing in, which starts with 'connected'.
        Raises UsageError for addresses and names that make no sense.
        """
    def unlisten(self, listener: int) -> None:
        """Stops accepting; established sessions stay."""
    def gather(self, on: bool) -> None:
        """Gathers what is asked of sessions from now on; ``False`` hands all of it over at once, and says that the
        batch that was drained last is worked on."""
    def postpone(self, sid: int) -> None:
        """What the session sent is not routed when the batch that was drained last is worked on, but when ``caught_up``
        says so: until then its messages come up."""
    def caught_up(self, sid: int) -> None:
        """All that was postponed is routed."""
    def set_tls(self, chain_pem: bytes, key_pem: bytes, domain: str | None = None) -> None:
        """Sets the certificate of new handshakes: of those that name ``domain`` by SNI, or of all others. Raises
        UsageError when chain and key do not fit."""
    def forget_tls(self, domain: str) -> None:
        """Removes the certificate of a domain; the general one stands in for it."""
    def set_domains(self, domains: Sequence[str], *, services: Sequence[str] = ...) -> None:
        """Replaces the names that streams may be opened to: ``domains`` by clients and servers, ``services`` (rooms and
        the like) by servers alone. Open streams stay."""
    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""
    def drain(self, limit: int) -> list[_XmppEvent]:
        """Takes up to ``limit`` events, oldest first.

        ``('connected', sid, listener id, peer address, peer port, whether TLS is on from the start)``,
        ``('open', sid, attributes of the stream header)``, ``('tls', sid, info)``,
        ``('stanza', sid, element, number)``: when the number is not 0, the element is a message, and not acknowledged
        before ``done`` gives the number back; ``('close', sid)`` when the peer ended its stream,
        ``('undelivered', sid, elements)`` with the stanzas that another server did not get, ``('closed', sid, reason)``
        last. ``('carried', sid, received, sent)`` counts the messages that went through a stream between servers
        without an event, every few seconds while there are any.

        Of sessions with stream management: ``('detached', sid, reason, messages)`` when the connection is gone and the
        session waits for its client, with the newest messages (32 at most) that the client did not acknowledge;
        ``('resumed', sid, new sid)`` when the connection ``new sid`` has become that of ``sid``,
        and ``('unresumed', new sid, condition)`` when it has not; ``('unacknowledged', sid, elements, handled)`` before
        'closed': messages and requests that nobody is known to have got, and how many stanzas were taken from it.
        ``('moved', sid, received, acknowledged, sent, held)``: the session was taken out by ``move_out``, and nothing
        of it is left; ``sent`` is what its client may not have got, each with whether nobody else has it, and
        ``held`` what was kept back and not counted.

        ``('missed', 0, message)``: its recipient ended while it was on its way, so route it again.
        ``('records', ticket, records)``: messages for archives; answer by ``committed``.
        """
    def open_stream(self, sid: int, attrs: Mapping[str, str]) -> None:
        """Sends the stream header, or ``<open/>`` over WebSocket, with ``from``, ``id``, ``version`` … as given."""
    def send(self, sid: int, elements: Sequence[Element]) -> None:
        """Sends elements in order."""
    def send_many(self, batch: Sequence[tuple[int, Element]]) -> None:
        """Sends many elements to many sessions; one element for many is serialised once."""
    def starttls(self, sid: int) -> None:
        """Sends ``<proceed/>`` and begins the TLS handshake; on an outgoing session, begins it after the peer's
        ``<proceed/>``."""
    def restart(self, sid: int, attrs: Mapping[str, str] | None = None, features: Element | None = None) -> None:
        """Expects a new stream header; call after SASL ``<success/>`` was sent.

        A client's that says what its last one said is answered at once with a header of ``attrs`` and the
        ``features``; any other is an ``open`` event."""
    def authenticated(self, sid: int, bare: str) -> None:
        """Lifts the bounds that hold before authentication. ``bare`` is the prepared JID. Of a stream between servers
        the bounds of size stay until it is paired."""
    def pair(self, sid: int, local: str, remote: str, *, direct: bool = False) -> None:
        """Lets stanzas from the domain ``remote`` to the domain ``local`` (both prepared) come in on a stream between
        servers, in either direction of it; any other stanza ends the stream. The first pair lifts the bounds that hold
        before authentication. With ``direct``, messages that a row of the table decides go to their recipients at once,
        as ``deliver`` would have it, but not past a tap. Raises UsageError for what is not a domain."""
    def unpair(self, sid: int, local: str, remote: str) -> None:
        """Undoes ``pair``."""
    def route_domain(self, sid: int, local: str, remote: str, on: bool) -> None:
        """Lets messages of sessions of the domain ``local`` to the domain ``remote`` (both prepared) go out on this
        stream at once, with their carbons and archive records, or no more; tapped sessions and addresses that have to
        be prepared stay misses. Of several streams the latest has a pair. Raises UsageError for what is not a
        domain."""
    def bind(self, sid: int, full: str) -> None:
        """Adds the session's row to the route table; from now on its stanzas are stamped. Call before the result is
        sent."""
    def presence(self, sid: int, priority: int | None) -> None:
        """Sets the row's priority; None is unavailable."""
    def unbind(self, sid: int) -> None:
        """Removes the row."""
    def tap(self, sid: int, on: bool) -> None:
        """Makes every message from and to the session a 'stanza' event of its sender."""
    def carbons(self, sid: int, on: bool) -> None:
        """Makes the session get copies of its account's messages (XEP-0280), or not."""
    def inactive(self, sid: int, on: bool) -> None:
        """Holds back what a client need not hear at once (XEP-0352), as if it had sent ``<inactive/>``; or no more."""
    def manage(self, sid: int, answer: Element | None, *, resume: bool) -> None:
        """Begins stream management (XEP-0198): sends ``answer``, counts from there on in both directions, and
        takes what the client sent after its request; without an answer, inside a sign-in, once that is answered.
        ``resume``: a connection that breaks leaves the session waiting. On a stream that was opened to another server
        ``answer`` is ``<enable/>``: what that does not acknowledge comes back as 'undelivered', and one that
        acknowledges nothing for ``ack_timeout`` is left; servers that connect here are answered without a word."""
    def resume(self, sid: int, old: int, handled: int, previd: str, answer: Sequence[Element] = ...) -> None:
        """Moves the connection ``sid``, whose client got ``handled`` stanzas (mod 2^32), into the session ``old``,
        whose own connection ends if it still has one. The client is sent ``<resumed/>``, as last child of the first
        element of ``answer`` when there is one, then what it did not get. 'resumed' or 'unresumed' follows; a
        ``handled`` that cannot be ends the connection ``sid``. Until then nothing of what the client sent on is
        taken."""
    def part(self, sid: int, error: Element) -> None:
        """Ends the connection of a session that its client may resume, with this stream error; 'detached' follows."""
    def move_out(self, sid: int) -> bool:
        """Takes a session out that has no connection: its row is gone at once, and 'moved' follows when everything
        found by that row has come to it, and what its client sent is on disk. Whether it got copies (XEP-0280)."""
    def move_in(self, full: str, received: int, acknowledged: int) -> int:
        """Takes in what ``move_out`` of another engine gave: a session without a connection, under the number given
        back, which ``resume`` finds; ``bind`` adds its row, after what came before. Raises UsageError for what is no
        full JID."""
    def restore(self, sid: int, sent: Sequence[tuple[Element, bool]]) -> None:
        """Adds what the client of a session that was moved in may not have got, in order, before anything else is sent
        to it."""
    def archive(self, bare: str, on: bool) -> None:
        """Keeps records of the messages of an account (prepared bare JID) from now on, or no more."""
    def committed(self, ticket: int, kept: bool = True) -> None:
        """The records of a ticket are on disk: their senders may be acknowledged. When they never will be, not
        ``kept``, the streams of servers that sent some of them end; end the sessions of clients before."""
    def done(self, done: Sequence[tuple[int, int]]) -> None:
        """Messages are dealt with, each named by the session and the number of its 'stanza' event: their senders may
        be acknowledged, each as far as everything before is dealt with too."""
    def next_id(self) -> int:
        """The next archive id, from the source that records have theirs from: milliseconds since 2020-01-01 in the
        upper bits, ever rising."""
    def deliver(self, messages: Sequence[Element]) -> tuple[list[Element], int | None]:
        """Delivers messages as if local sessions had sent them, whatever is tapped: to their recipients, with carbons,
        stanza ids and archive records. Those that no row decides come back, and nothing was done about them; and the
        ticket of the records, if there are any."""
    def copy(self, messages: Sequence[Element]) -> None:
        """Sends the carbons of messages that are delivered otherwise: to other sessions of a local sender, and to those
        of a local recipient that the rules of RFC 6121 do not deliver to."""
    def fan_out(self, element: Element, sids: Sequence[int]) -> None:
        """Sends one element to many sessions, each with its own full JID as ``to``; serialised once."""
    def close(self, sid: int, error: Element | None = None) -> None:
        """Ends the stream, after a stream error if one is given; then the connection, within the linger time."""
    def exporter(self, sid: int) -> bytes | None:
        """The tls-exporter channel binding (RFC 9266) of a session that is not authenticated yet; None before TLS
        1.3."""
    def stats(self) -> dict[str, int]:
        """Counters since the start, and gauges: sessions, unauthenticated, events, routed, missed …"""
    def stop(self) -> None:
        """Closes every stream with system-shutdown and ends the engine's threads, within a second."""

# --- SFU: the media plane of meetings ---------------------------------------------------------------------------------

_SfuEvent: TypeAlias = (
    tuple[Literal["negotiate"], int]
    | tuple[Literal["connected"], int]
    | tuple[Literal["disconnected"], int, str]
    | tuple[Literal["track"], int, Literal["audio", "video"], bool]
)

class _SfuLayout(TypedDict):
    """What the media sections of an offer are for, by ``mid``."""

    publish: dict[Literal["audio", "video"], str]
    tracks: list[tuple[str, int, Literal["audio", "video"]]]

@final
class Sfu:
    """Selective forwarding over one UDP port with a thread of its own. Participants are numbers that the caller
    chooses and never uses again.

    Durations are seconds, bit rates bit/s. ``connect_timeout`` runs from ``add_participant`` to ICE and DTLS being up;
    ``lost_timeout`` from the loss of the path; ``keyframe_interval`` is the shortest time between two keyframe
    requests to one publisher. Below ``min_video_bitrate`` for each, a subscriber gets fewer video streams. Every
    command raises UsageError for participants that are not there and before ``listen``, Unavailable at a limit.
    """

    def __new__(
        cls,
        *,
        max_participants: int = 2000,
        max_subscriptions: int = 64,
        connect_timeout: float = 30.0,
        lost_timeout: float = 10.0,
        keyframe_interval: float = 0.5,
        initial_bitrate: int = 1_500_000,
        max_video_bitrate: int = 2_500_000,
        min_video_bitrate: int = 200_000,
    ) -> Sfu: ...
    def listen(self, address: str, port: int, *, candidates: Sequence[str] = ...) -> int:
        """Binds the socket, starts the thread, and gives the bound port. ``candidates`` are the ``ip:port`` announced
        to peers, by default the bound address. Raises Unavailable when it cannot be bound, UsageError for bad
        addresses."""
    def add_participant(self, pid: int) -> None:
        """A 'negotiate' event follows for the first offer."""
    def remove_participant(self, pid: int) -> None:
        """Ends the connection; those who received it get a new offer. Unknown numbers are ignored."""
    def subscribe(self, pid: int, publisher: int) -> None:
        """``pid`` receives whatever ``publisher`` publishes, now and later."""
    def unsubscribe(self, pid: int, publisher: int) -> None:
        """Ends a subscription; unknown ones are ignored."""
    def republish(self, pid: int) -> None:
        """The next offer invites the participant again to publish what it declined."""
    def offer(self, pid: int) -> tuple[int, str, _SfuLayout] | None:
        """Number, SDP and layout of the next offer; None when there is nothing to say or an answer is outstanding."""
    def answer(self, pid: int, seq: int, sdp: str) -> None:
        """Takes the answer to the offer numbered ``seq``. Raises ProtocolError when it cannot be that: remove the
        participant then, its connection is undefined."""
    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""
    def drain(self, limit: int) -> list[_SfuEvent]:
        """Takes up to ``limit`` events, oldest first. After 'disconnected' the participant is gone; its reason is
        ``never-connected``, ``lost``, ``closed``, ``protocol: …`` or ``fault``."""
    def running(self) -> bool:
        """Whether the thread is at work."""
    def stats(self) -> dict[str, Any]:
        """Counters: datagrams ``received``, ``unknown``, ``sent``, ``unsent``; packets ``forwarded``; ``faults``; and
        ``participants`` by number with ``connected``, ``remote``, ``round_trip`` (s), ``bytes_received``,
        ``bytes_sent``, ``packets_received``, ``packets_forwarded``, ``packets_dropped``, ``loss_in``, ``loss_out`` (0
        to 1), ``jitter`` (RTP units by kind), ``keyframe_requests``, ``estimate`` (bit/s), ``subscriptions``,
        ``paused``."""
    def stop(self) -> None:
        """Ends every connection's service and the thread."""

# --- TURN: the relay server -------------------------------------------------------------------------------------------

_TurnEvent: TypeAlias = (
    tuple[Literal["allocated"], str, str, list[str], int]
    | tuple[Literal["closed"], str, str, list[str], str, int, int]
    | tuple[Literal["refused"], str, int, str, int]
    | tuple[Literal["suppressed"], int]
    | tuple[Literal["failed"], str]
)
"""What a TurnServer reports. Addresses are ``ip:port`` or ``[ip]:port``.

``allocated``: client, user, relays, lifetime in seconds. ``closed``: client, user, relays, reason, packets to peers,
packets from peers. ``refused``: client, STUN error code, reason, how often: a first refusal is told at once with 1, its
repetitions within a second together. ``suppressed``: how many more refusals that second had. ``failed``: a thread ended
on an error of ours and its allocations with it.
"""

@final
class TurnServer:
    """A TURN server over UDP (RFC 8489, RFC 8656). It relays nothing until it has users or secrets.

    Threads of its own carry the packets: ``threads`` per listener, 0 for half the processors. ``old_channel_range``
    accepts channels up to 0x7FFF, as RFC 5766 had them. ``user_quota`` bounds the allocations of one user name,
    ``max_allocations`` those of all. ``unauthenticated_rate`` (per second and source address, after a burst) bounds
    requests without valid credentials; beyond it there is no answer. Raises UsageError for values out of range,
    Unavailable when the system is out of descriptors.
    """

    def __new__(
        cls,
        realm: str,
        *,
        software: str = "Moim",
        old_channel_range: bool = False,
        max_allocations: int = 4096,
        user_quota: int = 64,
        default_lifetime_s: int = 600,
        max_lifetime_s: int = 3600,
        nonce_lifetime_s: int = 3600,
        unauthenticated_rate: int = 50,
        unauthenticated_burst: int = 500,
        threads: int = 0,
    ) -> TurnServer: ...
    def listen(
        self,
        address: str,
        port: int,
        *,
        relay_address: str,
        external_address: str | None = None,
        relay_address_v6: str | None = None,
        external_address_v6: str | None = None,
        relay_ports: tuple[int, int] = ...,
    ) -> int:
        """Binds a UDP address and serves it; gives the port (0 takes a free one).

        Relays are bound to ``relay_address`` within ``relay_ports``; clients are told ``external_address`` where a
        static NAT stands before it. Addresses are single ones, never 0.0.0.0 or ::. Raises UsageError, or Unavailable
        when the port cannot be had.
        """
    def set_users(self, users: Mapping[str, tuple[bytes, bytes]]) -> None:
        """Replaces the users with long-term credentials: MD5 (16 bytes) and SHA-256 (32 bytes) of
        ``user:realm:password``. Allocations of users who are gone, or have other keys, end.
        """
    def set_secrets(self, secrets: Sequence[bytes]) -> None:
        """Replaces the shared secrets (at most 8) of time-limited credentials: user name ``<end>:<user>``, password
        base64(HMAC-SHA1(secret, user name)). An allocation outlives its credential as long as it is refreshed.
        """
    def set_peer_rules(self, allow: Sequence[str], deny: Sequence[str]) -> None:
        """Replaces the rules about peers: ``network/bits``, ``address``, ``address:port`` or ``[address]:port``.

        The most specific rule that matches decides; of two alike a denial. What is denied from the start (loopback,
        private, link-local, multicast … and this server's own addresses) gives way only to a rule that names that
        network or a part of it. Permissions that no longer hold end.
        """
    def fileno(self) -> int:
        """Readable while events wait."""
    def drain(self, limit: int) -> list[_TurnEvent]:
        """Takes up to ``limit`` events, oldest first. At most 8192 wait; later ones are lost and counted."""
    def allocations(self) -> list[dict[str, Any]]:
        """The allocation table, a dict a row: ``client``, ``transport``, ``server``, ``username``, ``relays``,
        ``age_s``, ``expires_in_s``, ``permissions`` (``peer``, ``expires_in_s``), ``channels`` (``number``, ``peer``,
        ``expires_in_s``), ``requests``, ``successes``, ``errors``, ``dropped``; rows, permissions and channels have
        ``packets_to``, ``bytes_to``, ``packets_from``, ``bytes_from``: payload towards and from peers.
        """
    def stats(self) -> dict[str, int]:
        """Totals over all listeners; ``threads`` is how many are alive."""
    def stop(self) -> None:
        """Ends every allocation, closes every socket. The server cannot be started again."""
