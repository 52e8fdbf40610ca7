"""A client's way from connection to bound resource, on the server's side: STARTTLS, SASL, bind (RFC 6120 4–7).

A machine without I/O: the driver reports what the plane and the directory say, and carries out ``next_output``
in order. Nothing but this order of steps lets a stanza through: everything else ends the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, error_reply, ns, prepare_resource, result, sasl, stream_error
from moim.proto.xmpp.scram import Verifier
from moim.proto.xmpp.stream import VERSION, check_opening, features, starttls_required


@dataclass(frozen=True, slots=True)
class Policy:
    """What the negotiation offers. ``stream_features`` are those of an authenticated stream besides bind."""

    domain: str
    allow_plain: bool = False
    channel_binding: bool = True
    attempts: int = 3
    stream_features: tuple[Element, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenStream:
    """Answer the client's stream header with one of these attributes."""

    attrs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Send:
    """Send these elements."""

    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class StartTls:
    """Tell the client to proceed, and do the handshake."""


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The client is ``jid``: send ``success`` and expect a new stream."""

    jid: Jid
    success: Element
    mechanism: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream, with an error when there is one. ``reason`` is for the log."""

    error: Element | None
    reason: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """Find what is needed to go on; answer by ``verifier``, ``password_checked`` or ``refuse``."""

    need: sasl.NeedVerifier | sasl.NeedPassword


@dataclass(frozen=True, slots=True)
class Rejected:
    """An attempt to authenticate failed. ``guess``: it may be password guessing."""

    local: str
    mechanism: str
    reason: str
    guess: bool


@dataclass(frozen=True, slots=True)
class BindRequest:
    """Bind a resource (empty: choose one); answer by ``bound`` or ``bind_refused``."""

    jid: Jid
    resource: str


Output = OpenStream | Send | StartTls | Authenticated | Close | Lookup | Rejected | BindRequest
_Stage = Literal["opening", "plain", "handshake", "sasl", "lookup", "authenticated", "binding", "bound", "closed"]


class Negotiation:
    """One connection. ``needs_tls``: nothing is offered before STARTTLS; ``tls``: the connection began with TLS.

    ``token`` gives fresh unguessable text for stream IDs, nonces and resources.
    """

    def __init__(
        self, policy: Policy, *, needs_tls: bool, tls: bool, binding: bytes | None, token: Callable[[], str]
    ) -> None:
        self._policy = policy
        self._needs_tls = needs_tls and not tls
        self._tls = tls
        self._binding = binding
        self._token = token
        self._stage: _Stage = "opening"
        self._jid: Jid | None = None
        self._sasl: sasl.SaslServer | None = None
        self._mechanism = ""
        self._failures = 0
        self._bind_iq: Element | None = None
        self._opened = False
        self._output: deque[Output] = deque()

    @property
    def bound(self) -> bool:
        """Whether stanzas may flow."""
        return self._stage == "bound"

    @property
    def authenticated(self) -> Jid | None:
        """The bare JID, once the password was right."""
        return self._jid

    def next_output(self) -> Output | None:
        """The oldest thing to do that was not yet taken."""
        return self._output.popleft() if self._output else None

    def opened(self, attrs: Mapping[str, str]) -> None:
        """A stream header arrived."""
        if self._stage not in ("opening", "authenticated") or self._opened:
            self._close("policy-violation", "a stream header where none is expected")
            return
        self._opened = True
        header = {"from": self._policy.domain, "id": self._token(), "version": VERSION, "xml:lang": "en"}
        self._output.append(OpenStream(header))
        if (wrong := check_opening(attrs, self._policy.domain)) is not None:
            self._close(wrong.condition, wrong.text)
        elif self._stage == "authenticated":
            bind = Element("bind", ns.BIND, {}, (Element("required", ns.BIND),))
            self._send(features(bind, *self._policy.stream_features))
        elif self._needs_tls:
            self._stage = "plain"
            self._send(features(starttls_required()))
        else:
            self._stage = "sasl"
            self._send(features(*self._sasl_features()))

    def tls_started(self, binding: bytes | None) -> None:
        """The handshake is done; the client opens a new stream."""
        self._needs_tls = False
        self._tls = True
        self._binding = binding
        self._stage = "opening"
        self._opened = False

    def stanza(self, element: Element) -> None:
        """A first-level element arrived before the resource was bound."""
        if self._stage == "closed":
            return
        if self._stage == "plain" and (element.ns, element.name) == (ns.TLS, "starttls"):
            self._stage = "handshake"
            self._output.append(StartTls())
        elif element.ns == ns.SASL and self._stage in ("sasl", "lookup"):
            self._sasl_element(element)
        elif self._stage == "authenticated" and (element.ns, element.name) == (ns.CLIENT, "iq"):
            self._bind(element)
        elif self._stage == "plain" and element.ns == ns.SASL:
            self._send(_failure("encryption-required"))
        else:
            self._close("not-authorized", f"<{element.name[:40]}/> before the sign-in is complete")

    def _offered(self) -> tuple[str, ...]:
        with_binding = self._policy.channel_binding and self._binding is not None
        return sasl.mechanisms(encrypted=self._tls, channel_binding=with_binding, plain=self._policy.allow_plain)

    def _sasl_features(self) -> Sequence[Element]:
        offered = self._offered()
        listed = [Element("mechanisms", ns.SASL, {}, tuple(Element("mechanism", ns.SASL, {}, (m,)) for m in offered))]
        if any(name.endswith("-PLUS") for name in offered):
            kind = Element("channel-binding", ns.CHANNEL_BINDING, {"type": "tls-exporter"})
            listed.append(Element("sasl-channel-binding", ns.CHANNEL_BINDING, {}, (kind,)))
        return listed

    def _sasl_element(self, element: Element) -> None:
        if self._stage == "lookup":
            self._close("policy-violation", "SASL data while an answer was due")
        elif element.name == "auth" and self._sasl is None:
            self._mechanism = element.get("mechanism") or ""
            self._sasl = sasl.SaslServer(
                domain=self._policy.domain, offered=self._offered(), binding=self._binding, nonce=self._token()
            )
            self._step_with(element, lambda data, exchange: exchange.start(self._mechanism, data))
        elif element.name == "response" and self._sasl is not None:
            self._step_with(element, lambda data, exchange: exchange.respond(data or b""))
        elif element.name == "abort" and self._sasl is not None:
            self._step(sasl.Failure("aborted", "the client aborted"))
        else:
            self._step(sasl.Failure("malformed-request", f"<{element.name[:40]}/> out of order"))

    def _step_with(self, element: Element, take: Callable[[bytes | None, sasl.SaslServer], sasl.Step]) -> None:
        if self._sasl is None:
            return
        text = element.text
        try:
            data = sasl.decode(text) if text.strip() else None
        except ProtocolError as error:
            self._step(sasl.Failure("incorrect-encoding", error.message))
            return
        self._step(take(data, self._sasl))

    def _step(self, step: sasl.Step) -> None:
        if isinstance(step, sasl.Challenge):
            self._stage = "sasl"
            text = sasl.encode(step.data) if step.data else ""
            self._send(Element("challenge", ns.SASL, {}, (text,) if text else ()))
        elif isinstance(step, sasl.Success):
            self._jid = Jid(step.local, self._policy.domain)
            self._stage = "authenticated"
            self._opened = False
            self._sasl = None
            text = sasl.encode(step.data) if step.data else ""
            success = Element("success", ns.SASL, {}, (text,) if text else ())
            self._output.append(Authenticated(self._jid, success, self._mechanism))
        elif isinstance(step, sasl.Failure):
            self._failed(step)
        else:
            self._stage = "lookup"
            self._output.append(Lookup(step))

    def _failed(self, failure: sasl.Failure) -> None:
        self._stage = "sasl"
        self._sasl = None
        self._failures += 1
        self._output.append(Rejected(failure.local, self._mechanism[:40], failure.reason, failure.guess))
        self._send(_failure(failure.condition))
        if self._failures >= self._policy.attempts:
            self._close("policy-violation", "too many failed attempts to authenticate")

    def verifier(self, verifier: Verifier) -> None:
        """The verifier that ``Lookup`` asked for, or a made-up one."""
        if self._stage == "lookup" and self._sasl is not None:
            self._step(self._sasl.verifier(verifier))

    def password_checked(self, right: bool) -> None:
        """Whether the password that ``Lookup`` asked about is right."""
        if self._stage == "lookup" and self._sasl is not None:
            self._step(self._sasl.password_checked(right))

    def refuse(self, reason: str) -> None:
        """The attempt cannot be judged now: too many before it, or the directory does not answer."""
        if self._stage == "lookup":
            self._step(sasl.Failure("temporary-auth-failure", reason))

    def _bind(self, iq: Element) -> None:
        request = iq.find("bind", ns.BIND)
        if request is None or iq.get("type") != "set" or not iq.get("id"):
            if iq.get("type") in ("get", "set"):
                self._reply_error(iq, StanzaError("not-authorized", "bind a resource first"))
            else:
                self._close("not-authorized", "a stanza before a resource is bound")
            return
        wanted = request.find("resource", ns.BIND)
        try:
            resource = prepare_resource(wanted.text) if wanted is not None and wanted.text else ""
        except ProtocolError as error:
            self._reply_error(iq, StanzaError("bad-request", error.message))
            return
        if self._jid is None:
            raise ValueError("authenticated without an address")
        self._stage = "binding"
        self._bind_iq = iq
        self._output.append(BindRequest(self._jid, resource or self._token()))

    def bind_result(self, jid: Jid) -> Element:
        """The answer to the bind request, now that ``jid`` is bound; stanzas may flow."""
        if self._stage != "binding" or self._bind_iq is None:
            raise ValueError("nothing asked for a resource")
        self._stage = "bound"
        bind = Element("bind", ns.BIND, {}, (Element("jid", ns.BIND, {}, (str(jid),)),))
        iq, self._bind_iq = self._bind_iq, None
        return result(iq.with_attrs({"to": None, "from": None}), bind)

    def bind_refused(self, error: StanzaError) -> None:
        """No resource is given."""
        if self._stage == "binding" and self._bind_iq is not None:
            self._stage = "authenticated"
            self._reply_error(self._bind_iq, error)
            self._bind_iq = None

    def _reply_error(self, iq: Element, error: StanzaError) -> None:
        reply = error_reply(iq.with_attrs({"to": None, "from": None}), error)
        if reply is not None:
            self._send(reply)

    def _send(self, *elements: Element) -> None:
        self._output.append(Send(elements))

    def _close(self, condition: str, reason: str) -> None:
        if self._stage != "closed":
            self._stage = "closed"
            self._output.append(Close(stream_error(condition, reason), reason))


def _failure(condition: str) -> Element:
    return Element("failure", ns.SASL, {}, (Element(condition, ns.SASL),))
