"""A client's way from connection to bound resource, on the server's side: STARTTLS, SASL, bind (RFC 6120 4–7).

SASL comes in two shapes: RFC 6120's, with a new stream after it and a request for a resource, and XEP-0388's, which
does all of it at once. A machine without I/O: the driver reports what the plane and the directory say, and carries
out ``next_output`` in order. Nothing but this order of steps lets a stanza through: everything else ends the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Literal

from moim.chat import sasl2
from moim.chat.negotiation_steps import (
    Authenticated,
    BindRequest,
    Lookup,
    Output,
    Proven,
    Registration,
    Rejected,
    ResumeRequest,
)
from moim.chat.offers import Offer, Policy
from moim.chat.stream_management import failed
from moim.errors import ProtocolError
from moim.proto.xmpp import (
    Element,
    Jid,
    StanzaError,
    error_reply,
    ns,
    prepare_domain,
    prepare_resource,
    result,
    sasl,
    stream_error,
)
from moim.proto.xmpp.hashed_token import HT_BINDINGS
from moim.proto.xmpp.scram import Verifier
from moim.proto.xmpp.steps import Close, OpenStream, Send, StartTls
from moim.proto.xmpp.stream import VERSION, check_opening, features, starttls_required

__all__ = [
    "Authenticated",
    "BindRequest",
    "Close",
    "Lookup",
    "Negotiation",
    "OpenStream",
    "Output",
    "Policy",
    "Proven",
    "Registration",
    "Rejected",
    "ResumeRequest",
    "Send",
    "StartTls",
]


_Stage = Literal[
    "opening", "plain", "handshake", "sasl", "lookup", "proven", "authenticated", "binding", "bound", "closed"
]


_NO_BINDINGS: Final[Mapping[str, bytes]] = MappingProxyType({})


class Negotiation:
    """One connection. ``policies`` are those of the hosted domains; the first counts until the client names its own.

    ``needs_tls``: nothing is offered before STARTTLS; ``tls``: the connection began with TLS.

    ``bindings`` are the channel bindings of the connection by type, ``sheltered`` says that nobody can read it though
    its TLS is not ours. ``token`` gives fresh unguessable text for stream IDs, nonces and resources.
    """

    __slots__ = (
        "_bind_iq", "_bindings", "_data", "_failures", "_from", "_jid", "_mechanism", "_needs_tls", "_offer", "_opened",
        "_output", "_policies", "_policy", "_request", "_sasl", "_sheltered", "_stage", "_tls", "_token",
    )  # fmt: skip

    def __init__(
        self,
        policies: Mapping[str, Policy],
        *,
        needs_tls: bool,
        tls: bool,
        bindings: Mapping[str, bytes],
        token: Callable[[], str],
        sheltered: bool = False,
    ) -> None:
        self._policies = policies
        self._policy = next(iter(policies.values()))
        self._needs_tls = needs_tls and not tls
        self._tls = tls
        self._sheltered = sheltered or tls
        self._bindings = bindings
        self._token = token
        self._stage: _Stage = "opening"
        self._jid: Jid | None = None
        self._from: Jid | None = None
        self._offer: Offer | None = None
        self._sasl: sasl.SaslServer | None = None
        self._request: sasl2.Request | None = None
        self._data: bytes | None = None
        self._mechanism = ""
        self._failures = 0
        self._bind_iq: Element | None = None
        self._opened = False
        self._output: list[Output] = []  # a few at the most; an empty deque takes ten times the memory

    @classmethod
    def over(cls, policies: Mapping[str, Policy], jid: Jid) -> Negotiation:
        """That of a session which signed in at another node as ``jid`` (bare)."""
        done = cls(policies, needs_tls=False, tls=True, bindings={}, token=str)
        done._policy = policies.get(jid.domain, done._policy)
        done._stage, done._jid = "bound", jid
        return done

    @property
    def bound(self) -> bool:
        """Whether stanzas may flow."""
        return self._stage == "bound"

    @property
    def domain(self) -> str:
        """The hosted domain that the stream was opened to, or the first while none was."""
        return self._policy.domain

    @property
    def authenticated(self) -> Jid | None:
        """The bare JID, once the password was right."""
        return self._jid

    def next_output(self) -> Output | None:
        """The oldest thing to do that was not yet taken."""
        return self._output.pop(0) if self._output else None

    # --- the stream ---------------------------------------------------------------------------------------------

    def opened(self, attrs: Mapping[str, str]) -> None:
        """A stream header arrived."""
        if self._stage not in ("opening", "authenticated") or self._opened:
            self._close("policy-violation", "a stream header where none is expected")
            return
        self._opened = True
        if self._jid is None:
            self._policy = self._policies.get(_domain(attrs.get("to")), self._policy)
        sender = attrs.get("from")
        self._from = _bare(sender) if sender is not None else None
        self._output.append(OpenStream(self._header()))
        if (wrong := check_opening(attrs, self._policy.domain)) is not None:
            self._close(wrong.condition, wrong.text)
        elif self._stage == "authenticated":
            self._send(self._policy.signed_in(bound=False))
        elif self._needs_tls:
            self._stage = "plain"
            self._send(features(starttls_required()))
        else:
            self._stage = "sasl"
            self._offer = self._policy.offer(
                encrypted=self._tls, sheltered=self._sheltered, types=tuple(self._bindings)
            )
            self._send(self._offer.features)

    def _header(self) -> dict[str, str]:
        header = {"from": self._policy.domain, "id": self._token(), "version": VERSION, "xml:lang": "en"}
        if self._from is not None:
            header["to"] = str(self._from)
        return header

    def tls_started(self, bindings: Mapping[str, bytes]) -> None:
        """The handshake is done; the client opens a new stream."""
        self._needs_tls = False
        self._tls = self._sheltered = True
        self._bindings = bindings
        self._stage = "opening"
        self._from = None
        self._opened = False

    def stanza(self, element: Element) -> None:
        """A first-level element arrived before the resource was bound."""
        stage, space = self._stage, element.ns
        if stage == "closed":
            return
        if space in (ns.SASL, ns.SASL2) and stage in ("sasl", "lookup", "proven"):
            self._sasl_element(element)
        elif stage == "authenticated" and space == ns.CLIENT and element.name == "iq":
            self._bind(element)
        elif stage == "authenticated" and space == ns.SM and self._jid is not None:
            self._output.append(ResumeRequest(self._jid, element))
        elif stage == "plain" and (space, element.name) == (ns.TLS, "starttls"):
            self._stage = "handshake"
            self._output.append(StartTls())
        elif stage == "plain" and space in (ns.SASL, ns.SASL2):
            self._send(_failure(sasl2.failure if space == ns.SASL2 else None, "encryption-required"))
            self._tried("SASL before TLS, too often")
        elif stage == "sasl" and self._sasl is None and self._registers(element):
            self._output.append(Registration(element.with_attrs({"to": None, "from": None})))
        elif stage == "sasl" and self._sasl is None and space == ns.SM:
            self._send(failed("unexpected-request"))  # XEP-0198 section 3: the stream goes on
            self._tried("stream management before the sign-in is complete, too often")
        else:
            self._close("not-authorized", f"<{element.name[:40]}/> before the sign-in is complete")

    def _registers(self, element: Element) -> bool:
        return (
            self._policy.register
            and self._sheltered
            and (element.ns, element.name) == (ns.CLIENT, "iq")
            and element.get("type") in ("get", "set")
            and element.find("query", ns.REGISTER) is not None
        )

    # --- SASL ---------------------------------------------------------------------------------------------------

    def _sasl_element(self, element: Element) -> None:
        new = element.ns == ns.SASL2
        if self._stage != "sasl":
            self._close("policy-violation", "SASL data while an answer was due")
        elif self._sasl is not None and new != (self._request is not None):
            self._close("policy-violation", "two kinds of SASL at once")
        elif element.name == ("authenticate" if new else "auth") and self._sasl is None:
            self._begin(element, new=new)
        elif element.name == "response" and self._sasl is not None:
            exchange = self._sasl
            self._take(element, lambda data: exchange.respond(data or b""))
        elif element.name == "abort" and self._sasl is not None:
            self._step(sasl.Failure("aborted", "the client aborted"))
        else:
            # Which shape the answer has follows from the element, as nothing else was agreed on.
            self._request = sasl2.Request("", None) if new else None
            self._step(sasl.Failure("malformed-request", f"<{element.name[:40]}/> out of order"))

    def _begin(self, element: Element, *, new: bool) -> None:
        if self._offer is None:
            raise ValueError("nothing was offered yet")
        mechanism = self._mechanism = element.get("mechanism") or ""
        names = self._offer.mechanisms
        self._request = None
        if new:
            self._request = sasl2.Request(mechanism, None)
            try:
                self._request = sasl2.read_request(element)
            except ProtocolError as error:
                self._step(sasl.Failure("malformed-request", error.message))
                return
            if self._request.wants_token not in self._offer.tokens:
                self._request = replace(self._request, wants_token="")
            if mechanism in HT_BINDINGS:
                if self._request.fast is None or not self._request.client:
                    self._step(sasl.Failure("malformed-request", "a token without <fast/> or an identified client"))
                    return
                names = self._offer.tokens
        exchange = self._sasl = sasl.SaslServer(
            domain=self._policy.domain,
            offered=names,
            bindings=self._bindings,
            nonce=self._token(),
            protection=self._offer.protection,
        )
        if self._request is not None:
            self._step(exchange.start(mechanism, self._request.initial))
        else:
            self._take(element, lambda data: exchange.start(mechanism, data))

    def _take(self, element: Element, give: Callable[[bytes | None], sasl.Step]) -> None:
        try:
            if self._request is not None:
                data: bytes | None = sasl2.read_data(element)
            else:
                text = element.text
                data = sasl.decode(text) if text.strip() else None
        except ProtocolError as error:
            self._step(sasl.Failure("incorrect-encoding", error.message))
            return
        self._step(give(data))

    def _step(self, step: sasl.Step) -> None:
        if isinstance(step, sasl.Challenge):
            self._stage = "sasl"
            if self._request is not None:
                self._send(sasl2.challenge(step.data))
            else:
                text = sasl.encode(step.data) if step.data else ""
                self._send(Element("challenge", ns.SASL, {}, (text,) if text else ()))
        elif isinstance(step, sasl.Success):
            self._succeeded(step)
        elif isinstance(step, sasl.Failure):
            self._failed(step)
        else:
            self._stage = "lookup"
            self._output.append(Lookup(step, self._request))

    def _succeeded(self, step: sasl.Success) -> None:
        jid = Jid(step.local, self._policy.domain)
        if self._request is not None and self._from is not None and self._from != jid:
            self._step(sasl.Failure("invalid-authzid", "the stream was opened in another account's name", step.local))
            return
        self._jid = jid
        self._sasl = None
        if self._request is not None:
            self._stage = "proven"
            self._data = step.data
            self._output.append(Proven(jid, self._mechanism, self._request))
            return
        self._stage = "authenticated"
        self._opened = False
        text = sasl.encode(step.data) if step.data else ""
        success = Element("success", ns.SASL, {}, (text,) if text else ())
        possible = self._policy.signed_in(bound=False)
        self._output.append(Authenticated(jid, success, self._mechanism, self._header(), possible))

    def _tried(self, too_often: str) -> None:
        """Counts what led nowhere; ends the stream with ``too_often`` as the reason when it was enough."""
        self._failures += 1
        if self._failures >= self._policy.attempts:
            self._close("policy-violation", too_often)

    def _failed(self, failure: sasl.Failure) -> None:
        self._stage = "sasl"
        self._sasl = None
        shape = sasl2.failure if self._request is not None else None
        self._request = None
        self._output.append(Rejected(failure.local, self._mechanism[:40], failure.reason))
        self._send(_failure(shape, failure.condition, failure.text))
        why = f": {failure.text}" if failure.text else ""
        self._tried(f"too many failed attempts to authenticate{why}")

    def verifier(self, verifier: Verifier) -> None:
        """The verifier that ``Lookup`` asked for, or a made-up one."""
        if self._stage == "lookup" and self._sasl is not None:
            self._step(self._sasl.verifier(verifier))

    def password_checked(self, right: bool) -> None:
        """Whether the password that ``Lookup`` asked about is right."""
        if self._stage == "lookup" and self._sasl is not None:
            self._step(self._sasl.password_checked(right))

    def token_checked(self, reply: bytes | None, *, expired: bool = False) -> None:
        """What proves the server in answer to the token that ``Lookup`` asked about; None when it does not fit."""
        if self._stage == "lookup" and self._sasl is not None:
            self._step(self._sasl.token_checked(reply, expired=expired))

    def refuse(self, local: str, reason: str, text: str = "") -> None:
        """The attempt of ``local`` cannot be judged now: too many before it, or the directory does not answer.

        ``text`` is for the client.
        """
        if self._stage == "lookup":
            self._step(sasl.Failure("temporary-auth-failure", reason, local, text=text))

    def finish(self, full: Jid | None, extra: Sequence[Element]) -> tuple[Element, ...]:
        """What to send after ``Proven``: stanzas may flow when ``full`` is bound, else the client asks for a resource.

        ``extra`` goes into the success.
        """
        if self._stage != "proven" or self._jid is None:
            raise ValueError("nobody has just proven who they are")
        self._stage = "bound" if full is not None else "authenticated"
        success = sasl2.success(full or self._jid, self._data, extra)
        if full is not None:
            self._forget()
        self._request = self._data = None
        return success, self._policy.signed_in(bound=full is not None)

    # --- the resource -------------------------------------------------------------------------------------------

    def _bind(self, iq: Element) -> None:
        if not self._to_us(iq.get("to")):
            self._close("not-authorized", "a stanza for somebody else before a resource is bound")
            return
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

    def _to_us(self, to: str | None) -> bool:
        """Whether an address is that of this server or of the account (RFC 6120 section 7.1)."""
        try:
            return to is None or Jid.parse(to) in (self._jid, Jid("", self._policy.domain))
        except ProtocolError:
            return False

    def bind_result(self, jid: Jid) -> Element:
        """The answer to the bind request, now that ``jid`` is bound; stanzas may flow."""
        if self._stage != "binding" or self._bind_iq is None:
            raise ValueError("nothing asked for a resource")
        self._stage = "bound"
        self._forget()
        bind = Element("bind", ns.BIND, {}, (Element("jid", ns.BIND, {}, (str(jid),)),))
        iq, self._bind_iq = self._bind_iq, None
        return result(iq.with_attrs({"to": None, "from": None}), bind)

    def _forget(self) -> None:
        """Lets go of what only the sign-in needed: the session may stay for days."""
        self._offer, self._bindings, self._from = None, _NO_BINDINGS, None

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


def _failure(shape: Callable[[str, str], Element] | None, condition: str, text: str = "") -> Element:
    if shape is not None:
        return shape(condition, text)
    said = (Element("text", ns.SASL, {"xml:lang": "en"}, (text,)),) if text else ()
    return Element("failure", ns.SASL, {}, (Element(condition, ns.SASL), *said))


def _domain(text: str | None) -> str:
    try:
        return prepare_domain(text or "")
    except ProtocolError:
        return ""


def _bare(text: str) -> Jid | None:
    try:
        return Jid.parse(text).bare
    except ProtocolError:
        return None
