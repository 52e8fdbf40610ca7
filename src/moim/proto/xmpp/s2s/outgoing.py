"""A stream that this server opens to another one (RFC 6120; XEP-0178, 0198, 0220, 0288, 0344), as a sans-I/O machine.

One machine is one connection for one pair of domains. It ends as ``Ready``, after which stanzas may go out, or as
``Close``. ``verify`` puts a key to the peer, also on a stream that is opened for nothing else. Rule kept: nothing but
the order of steps below leads to ``Ready``, and no step is taken twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Literal

from moim.errors import ProtocolError
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.errors import read_condition, stream_error
from moim.proto.xmpp.s2s import dialback
from moim.proto.xmpp.s2s.dialback import Keys
from moim.proto.xmpp.s2s.steps import (
    Close,
    Count,
    How,
    Judge,
    Proof,
    Ready,
    Refused,
    Restart,
    Rules,
    Step,
    Verified,
)
from moim.proto.xmpp.sasl import encode
from moim.proto.xmpp.steps import OpenStream, Send, StartTls
from moim.proto.xmpp.stream import VERSION

_MAX_VERIFIES = 64

_Stage = Literal["opening", "features", "starttls", "handshake", "judging", "sasl", "dialback", "open", "closed"]


class Outgoing:
    """``local`` opens a stream to ``remote``. ``secure``: the connection begins with TLS.

    ``external``: show a certificate where the peer asks for one. ``verify_only``: the stream is for keys alone.
    ``timeout`` is the seconds until Ready, or until a verify-only stream may carry keys.
    """

    def __init__(
        self,
        local: str,
        remote: str,
        rules: Rules,
        keys: Keys,
        *,
        now: float,
        secure: bool = False,
        external: bool = True,
        verify_only: bool = False,
        timeout: float = 30.0,
    ) -> None:
        self.local, self.remote = local, remote
        self._rules = rules
        self._keys = keys
        self._secure = secure
        self.anonymous = not external
        """Whether the peer is to see no certificate at all, which might be enough for it (XEP-0344)."""
        self._external = external and rules.certificates != "off"
        self._verify_only = verify_only
        self._timeout = timeout
        self._deadline: float | None = now + timeout
        self._stage: _Stage = "opening"
        self._proof: Proof | None = None
        self._stream_id = ""
        self._bidi = False
        self._authenticated = False
        self._external_failed = ""
        self.refused = ""
        """The condition that the peer answered dialback with."""
        self._how: How = "dialback"
        self._waiting: deque[tuple[str, str, str, str]] = deque()
        self._asked: set[tuple[str, str, str]] = set()
        self._output: deque[Step] = deque()

    @property
    def ready(self) -> bool:
        """Whether stanzas may go out."""
        return self._stage == "open" and not self._verify_only

    @property
    def stage(self) -> str:
        """Where it stands, for messages."""
        return self._stage

    @property
    def external_failed(self) -> str:
        """Why the peer did not take our certificate; empty when it was not tried or went well."""
        return self._external_failed

    @property
    def proof(self) -> Proof | None:
        """What proved that the peer is ``remote``."""
        return self._proof

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self._secure

    def deadline(self) -> float | None:
        """When ``tick`` is due; None once open or closed."""
        return self._deadline

    def next_output(self) -> Step | None:
        """The oldest step not yet taken."""
        return self._output.popleft() if self._output else None

    def start(self) -> None:
        """The connection is up, and encrypted if it was to be from the start."""
        if self._secure:
            self._judge()
        else:
            self._open()

    def tick(self, now: float) -> None:
        """Gives up when the time is over."""
        if self._deadline is not None and now >= self._deadline:
            self._fail("connection-timeout", f"the peer did not finish within {self._timeout:g} s ({self._stage})")

    def opened(self, attrs: Mapping[str, str]) -> None:
        """The peer's stream header arrived."""
        if self._stage != "opening":
            return
        self._stream_id = attrs.get("id", "")
        self._stage = "features"

    def tls_started(self) -> None:
        """The handshake is done; the peer's certificate is at hand."""
        if self._stage == "handshake":
            self._secure = True
            self._judge()

    def judged(self, domain: str, proof: Proof | None, reason: str) -> None:
        """What ``Judge`` asked: the proof, or None and why not."""
        if self._stage != "judging" or domain != self.remote:
            return
        self._proof = proof
        if proof is None and self._needs_certificate():
            self._fail("not-authorized", f"the server's certificate is not accepted: {reason}", final=True)
            return
        self._open()

    def _needs_certificate(self) -> bool:
        if self._rules.certificates == "required":
            return True
        return self._rules.certificates == "optional" and not self._rules.dialback

    def _judge(self) -> None:
        if self._rules.certificates == "off":
            self._open()
            return
        self._stage = "judging"
        self._output.append(Judge(self.remote))

    def _open(self) -> None:
        self._stage = "opening"
        attrs = {"from": self.local, "to": self.remote, "version": VERSION, "xml:lang": "en"}
        self._output.append(OpenStream(attrs))

    def element(self, element: Element) -> None:
        """A first-level element that is no stanza of an open pair."""
        if self._stage == "closed":
            return
        if element.ns == ns.STREAMS and element.name == "error":
            self._stream_error(element)
        elif dialback.is_dialback(element):
            self._dialback(element)
        elif element.ns == ns.STREAMS and element.name == "features":
            if self._stage == "features":
                self._negotiate(element)
            else:
                self._unexpected(element)
        elif element.ns == ns.TLS and self._stage == "starttls":
            if element.name == "proceed":
                self._stage = "handshake"
                self._output.append(StartTls())
            else:
                self._fail("remote-connection-failed", "the peer refused to start TLS")
        elif element.ns == ns.SASL and self._stage == "sasl":
            self._sasl(element)
        else:
            self._unexpected(element)

    def _unexpected(self, element: Element) -> None:
        self._fail("policy-violation", f"the peer sent <{element.name[:40]}/> where it has no place")

    def _negotiate(self, features: Element) -> None:
        starttls = features.find("starttls", ns.TLS)
        if not self._secure:
            if starttls is not None and self._rules.tls != "off":
                self._stage = "starttls"
                self._send(Element("starttls", ns.TLS))
                return
            if self._rules.tls == "required":
                self._fail("policy-violation", "the peer offers no encryption, which is required here", final=True)
                return
            if self._needs_certificate():
                self._fail("policy-violation", "the peer offers no TLS, so it cannot show a certificate", final=True)
                return
            if starttls is not None and starttls.find("required", ns.TLS) is not None:
                self._fail("policy-violation", "the peer requires encryption, which is off for it here", final=True)
                return
        if self._verify_only or self._authenticated:
            if self._authenticated and features.find("sm", ns.SM) is not None:
                self._output.append(Count())
            self._opened_up()
            return
        # What comes back on this stream is only as good as what proved the peer (XEP-0288 section 4).
        trusted = self._secure and (self._proof is not None or self._rules.dialback)
        if trusted and features.find("bidi", ns.BIDI_FEATURE) is not None:
            self._bidi = True
            self._send(Element("bidi", ns.BIDI))
        offer = features.find("mechanisms", ns.SASL)
        offered = {child.text.strip() for child in offer.elements()} if offer is not None else set()
        if "EXTERNAL" in offered and self._external and self._secure:
            self._stage = "sasl"
            self._send(Element("auth", ns.SASL, {"mechanism": "EXTERNAL"}, (encode(self.local.encode()),)))
        else:
            self._ask()

    def _ask(self) -> None:
        """Dialback: the peer is to call back, or to look at our certificate (XEP-0344)."""
        if not self._rules.dialback and self._proof is None:
            self._fail("policy-violation", "the peer takes dialback only, which is off for it here", final=True)
            return
        if not self._stream_id:
            self._fail("invalid-xml", "the peer's stream has no id, so there can be no dialback")
            return
        self._stage = "dialback"
        key = self._keys.key(receiving=self.remote, originating=self.local, stream_id=self._stream_id)
        self._send(dialback.request("result", sender=self.local, target=self.remote, key=key))

    def _sasl(self, element: Element) -> None:
        if element.name == "success":
            self._how = "external"
            self._authenticated = True
            self._output.append(Restart())
            self._open()
        elif element.name == "failure":
            condition = next((c.name for c in element.elements() if c.name != "text"), "not-authorized")
            self._external_failed = condition
            self._output.append(Refused(self.remote, f"the peer did not take our certificate ({condition})"))
            self._ask()
        else:
            self._unexpected(element)

    def _dialback(self, element: Element) -> None:
        try:
            found = dialback.read(element)
        except ProtocolError as error:
            self._fail("improper-addressing", f"the peer sent a dialback element that is none: {error.message}")
            return
        if found.outcome is None:
            # Nobody asked for this stream to carry other pairs: it is ours, and bidi comes with its own.
            self._send(
                dialback.answer(
                    found.kind,
                    "error",
                    sender=found.target,
                    target=found.sender,
                    stream_id=found.stream_id,
                    condition="not-acceptable",
                    text="open a stream of your own",
                )
            )
        elif found.kind == "verify":
            asked = (found.target, found.sender, found.stream_id)
            if asked in self._asked:
                self._asked.discard(asked)
                outcome = found.condition if found.outcome == "error" else found.outcome
                self._output.append(Verified(found.target, found.sender, found.stream_id, outcome, found.text))
        elif self._stage == "dialback" and (found.sender, found.target) == (self.remote, self.local):
            self._dialback_result(found)
        else:
            self._unexpected(element)

    def _dialback_result(self, found: dialback.Dialback) -> None:
        if found.outcome == "valid":
            self._opened_up()
        elif found.outcome == "invalid":
            self._fail(
                "not-authorized",
                f"{self.remote} asked the server that DNS names for {self.local}, which did not know our key:"
                f" somebody else may host {self.local}",
                final=True,
            )
        else:
            self.refused = found.condition
            said = f": {found.text}" if found.text else ""
            self._fail("remote-connection-failed", f"{self.remote} could not verify us ({found.condition}{said})")

    def _opened_up(self) -> None:
        self._stage = "open"
        self._deadline = None
        if not self._verify_only:
            self._output.append(Ready(self.local, self.remote, self._how, both=self._bidi))
        while self._waiting:
            self._put(*self._waiting.popleft())

    def verify(self, *, local: str, remote: str, stream_id: str, key: str) -> bool:
        """Puts a key to the peer, as soon as it may go out. False when too many wait, or the stream is closed."""
        if self._stage == "closed" or len(self._waiting) + len(self._asked) >= _MAX_VERIFIES:
            return False
        if self._stage == "open":
            self._put(local, remote, stream_id, key)
        else:
            self._waiting.append((local, remote, stream_id, key))
        return True

    def _put(self, local: str, remote: str, stream_id: str, key: str) -> None:
        self._asked.add((local, remote, stream_id))
        self._send(dialback.request("verify", sender=local, target=remote, key=key, stream_id=stream_id))

    def _stream_error(self, element: Element) -> None:
        condition, text = read_condition(element, ns.STREAM_ERRORS)
        said = f": {text}" if text else ""
        self._over(Close(None, f"the peer ended the stream with {condition}{said}", condition, is_final(condition)))

    def _fail(self, condition: str, reason: str, *, final: bool = False) -> None:
        self._over(Close(stream_error(condition, reason), reason, condition, final))

    def _over(self, close: Close) -> None:
        if self._stage != "closed":
            self._stage = "closed"
            self._deadline = None
            self._output.append(close)

    def _send(self, *elements: Element) -> None:
        self._output.append(Send(elements))


def is_final(condition: str) -> bool:
    """Whether a stream error that a peer sent is about us or the domain, and so the same at its other addresses."""
    return condition in ("host-unknown", "host-gone", "not-authorized", "policy-violation")
