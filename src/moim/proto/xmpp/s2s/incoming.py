"""A stream that another server opens to this one (RFC 6120; XEP-0178, 0198, 0220, 0288, 0344), as a sans-I/O machine.

Rule kept: a pair of domains is open only after a certificate or the DNS's own server vouched for the other domain, for
that very pair; one stream may earn several, each by itself. The machine also answers for this site's own keys.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from moim.errors import ProtocolError
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.errors import STANZA_CONDITIONS, read_condition, stream_error
from moim.proto.xmpp.jid import prepare_domain
from moim.proto.xmpp.s2s import dialback
from moim.proto.xmpp.s2s.dialback import Dialback, Keys
from moim.proto.xmpp.s2s.steps import (
    Close,
    How,
    Judge,
    Paired,
    Proof,
    Refused,
    Restart,
    Rules,
    Step,
    Verify,
)
from moim.proto.xmpp.sasl import decode
from moim.proto.xmpp.steps import OpenStream, Send, StartTls
from moim.proto.xmpp.stream import VERSION, features

MAX_PAIRS = 64
"""Pairs that one stream may carry."""
_MAX_VERIFYING = 16
_MAX_ATTEMPTS = 3
_MAX_KEYS = 1000  # questions about our own keys on one stream that never becomes more

_Stage = Literal["opening", "judging", "plain", "handshake", "features", "closed"]


class Incoming:
    """One accepted connection. ``hosts`` are the domains served here, the first for peers that name none.

    ``rules`` gives the rules for a remote domain (empty: it named none yet). ``token`` gives fresh unguessable text.
    ``timeout`` is the seconds until the first pair is open; a stream that only asked about keys ends in silence then.
    """

    def __init__(
        self,
        hosts: Callable[[], Collection[str]],
        rules: Callable[[str], Rules],
        keys: Keys,
        *,
        now: float,
        secure: bool,
        token: Callable[[], str],
        timeout: float = 60.0,
    ) -> None:
        self._hosts = hosts
        self._rules = rules
        self._keys = keys
        self._secure = secure
        self._token = token
        self._deadline: float | None = now + timeout
        self._stage: _Stage = "opening"
        self._local = ""
        self._remote = ""
        self._stream_id = ""
        self._proofs: dict[str, Proof | None] = {}
        self._external_offered = False
        self._authenticated = ""
        self._bidi = False
        self._attempts = 0
        self._keys_asked = 0
        self._pairs: dict[tuple[str, str], How] = {}
        self._judging: dict[str, list[Dialback]] = {}
        self._verifying: set[tuple[str, str]] = set()
        self._output: deque[Step] = deque()

    @property
    def local(self) -> str:
        """The local domain that the stream was opened to; empty before."""
        return self._local

    @property
    def remote(self) -> str:
        """The domain that the peer says it is; not proven, and empty when it said none."""
        return self._remote

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self._secure

    @property
    def pairs(self) -> Mapping[tuple[str, str], How]:
        """The open pairs (local, remote) and what opened each."""
        return self._pairs

    def proof(self, remote: str) -> Proof | None:
        """What proved a domain by certificate."""
        return self._proofs.get(remote)

    def deadline(self) -> float | None:
        """When ``tick`` is due; None once a pair is open, or the stream is closed."""
        return self._deadline

    def next_output(self) -> Step | None:
        """The oldest step not yet taken."""
        return self._output.popleft() if self._output else None

    def tick(self, now: float) -> None:
        """Ends a stream that came to nothing."""
        if self._deadline is None or now < self._deadline or self._stage == "closed":
            return
        if self._keys_asked:
            self._over(Close(None, "the peer only asked about keys"))
        else:
            self._fail("connection-timeout", "no domain was authenticated in time")

    # --- the stream -------------------------------------------------------------------------------------------------

    def opened(self, attrs: Mapping[str, str]) -> None:
        """A stream header arrived."""
        if self._stage != "opening":
            self._fail("policy-violation", "a stream header where none is expected")
            return
        self._stream_id = self._token()
        problem = self._addresses(attrs)
        answered = {"from": self._local or next(iter(self._hosts()), ""), "id": self._stream_id}
        answered |= {"to": self._remote} if self._remote else {}
        answered |= {"version": VERSION, "xml:lang": "en"}
        self._output.append(OpenStream(answered))
        if problem is not None:
            self._fail(*problem)
        elif self._remote and (refusal := self._rules(self._remote).refusal):
            self._fail("policy-violation", refusal)
        elif not self._secure:
            self._plain()
        elif self._remote and self._remote not in self._proofs and self._rules(self._remote).certificates != "off":
            self._stage = "judging"
            self._output.append(Judge(self._remote))
        else:
            self._features()

    def _addresses(self, attrs: Mapping[str, str]) -> tuple[str, str] | None:
        """Takes over ``from`` and ``to``; gives the stream error for those that cannot be."""
        before = self._remote
        try:
            local = prepare_domain(attrs["to"]) if "to" in attrs else ""
            remote = prepare_domain(attrs["from"]) if "from" in attrs else ""
        except ProtocolError as error:
            return "improper-addressing", error.message
        if local and local not in self._hosts():
            return "host-unknown", "that domain is not hosted here"
        if remote and remote in self._hosts():
            return "invalid-from", "that domain is hosted here, and nowhere else"
        if self._authenticated and remote not in ("", self._authenticated):
            return "invalid-from", "the stream was authenticated as another domain"
        self._local = local or self._local or next(iter(self._hosts()), "")
        self._remote = remote or before
        return None

    def _plain(self) -> None:
        rules = self._rules(self._remote)
        self._stage = "plain"
        offered: list[Element] = []
        if rules.tls != "off":
            required = (Element("required", ns.TLS),) if rules.tls == "required" else ()
            offered.append(Element("starttls", ns.TLS, {}, required))
        if rules.tls != "required" and rules.certificates != "required" and rules.dialback:
            offered.append(_dialback_feature())
        self._send(features(*offered))

    def tls_started(self) -> None:
        """The handshake is done; the peer opens a new stream, and nothing that it said before counts."""
        if self._stage == "handshake":
            self._secure = True
            self._stage = "opening"
            self._remote = ""

    def judged(self, domain: str, proof: Proof | None, reason: str) -> None:
        """What ``Judge`` asked: the proof, or None and why not."""
        self._proofs[domain] = proof
        if self._stage == "judging" and domain == self._remote:
            if proof is None and self._rules(domain).certificates == "required":
                self._fail("not-authorized", f"the certificate shown is not accepted: {reason}")
                return
            self._features()
        for request in self._judging.pop(domain, []):
            self._requested(request)

    def _features(self) -> None:
        self._stage = "features"
        rules = self._rules(self._remote)
        proven = self._proofs.get(self._remote) is not None
        offered: list[Element] = []
        if proven and not self._authenticated and rules.certificates != "off":
            self._external_offered = True
            mechanism = Element("mechanism", ns.SASL, {}, ("EXTERNAL",))
            offered.append(Element("mechanisms", ns.SASL, {}, (mechanism,)))
        if rules.dialback or proven:
            offered.append(_dialback_feature())
        if self._secure and not self._bidi and not self._authenticated:
            offered.append(Element("bidi", ns.BIDI_FEATURE))
        if self._authenticated:
            self._pair(self._local, self._authenticated, "external")
            offered.append(Element("sm", ns.SM))
        self._send(features(*offered))

    def element(self, element: Element) -> None:
        """A first-level element that is no stanza of an open pair."""
        if self._stage == "closed":
            return
        if dialback.is_dialback(element) and self._stage in ("plain", "features"):
            self._dialback(element)
        elif self._stage == "plain" and (element.ns, element.name) == (ns.TLS, "starttls"):
            if self._rules(self._remote).tls == "off":
                self._fail("policy-violation", "encryption is off for that domain")
                return
            if self._dialback_begun():
                self._fail("policy-violation", "encryption comes before dialback")
                return
            self._stage = "handshake"
            self._output.append(StartTls())
        elif self._stage == "features" and element.ns == ns.SASL:
            self._sasl(element)
        elif self._stage == "features" and (element.ns, element.name) == (ns.BIDI, "bidi"):
            if not self._secure or self._pairs or self._authenticated:
                self._fail("policy-violation", "bidi comes after encryption and before authentication")
            else:
                self._bidi = True
        elif element.ns == ns.STREAMS and element.name == "error":
            condition, _ = read_condition(element, ns.STREAM_ERRORS)
            self._over(Close(None, f"the peer ended the stream with {condition}", condition))
        else:
            self._fail("not-authorized", f"<{element.name[:40]}/> before any domain is authenticated")

    # --- SASL EXTERNAL ------------------------------------------------------------------------------------------

    def _sasl(self, element: Element) -> None:
        if element.name != "auth" or self._authenticated or not self._external_offered or self._dialback_begun():
            self._sasl_failed("malformed-request", "SASL out of order")
            return
        if element.get("mechanism") != "EXTERNAL":
            self._sasl_failed("invalid-mechanism", "only EXTERNAL is offered")
            return
        text = element.text.strip()
        try:
            authzid = decode(text).decode("utf-8") if text not in ("", "=") else ""
            claimed = prepare_domain(authzid) if authzid else self._remote
        except (ProtocolError, UnicodeDecodeError):
            self._sasl_failed("incorrect-encoding", "the authorization identity is not a domain")
            return
        if claimed != self._remote or self._proofs.get(claimed) is None:
            self._sasl_failed("invalid-authzid", f"the certificate does not speak for '{claimed}' on this stream")
            return
        self._authenticated = claimed
        self._stage = "opening"
        self._output.append(Restart(Element("success", ns.SASL)))

    def _sasl_failed(self, condition: str, reason: str) -> None:
        self._attempts += 1
        self._output.append(Refused(self._remote, reason))
        self._send(Element("failure", ns.SASL, {}, (Element(condition, ns.SASL),)))
        if self._attempts >= _MAX_ATTEMPTS:
            self._fail("policy-violation", "too many failed attempts to authenticate")

    # --- dialback -----------------------------------------------------------------------------------------------

    def _dialback_begun(self) -> bool:
        """Whether a pair is open or may soon be: stanzas go out then, so that no new stream may begin."""
        return bool(self._pairs or self._verifying or self._judging)

    def _dialback(self, element: Element) -> None:
        try:
            found = dialback.read(element)
        except ProtocolError as error:
            self._fail("improper-addressing", error.message)
            return
        if found.outcome is not None:
            self._fail("policy-violation", "an answer to a question that was not put on this stream")
        elif self._rules(found.sender).tls == "required" and not self._secure:
            self._fail("policy-violation", "encryption is required")
        elif found.kind == "verify":
            self._answer_for_key(found)
        else:
            self._requested(found)

    def _answer_for_key(self, found: Dialback) -> None:
        """The peer received a key that is said to be this site's (XEP-0220 section 2.3)."""
        self._keys_asked += 1
        if self._keys_asked > _MAX_KEYS and not self._pairs:
            self._fail("policy-violation", "too many keys")
            return
        if found.target not in self._hosts():
            self._result(found, "error", "item-not-found", "that domain is not hosted here")
            return
        right = self._keys.check(found.key, receiving=found.sender, originating=found.target, stream_id=found.stream_id)
        self._result(found, "valid" if right else "invalid")
        if not right:
            self._output.append(Refused(found.sender, f"it asked about a key of {found.target} that was not made here"))

    def _requested(self, found: Dialback) -> None:
        """The peer asks for a pair."""
        pair = (found.target, found.sender)
        rules = self._rules(found.sender)
        if pair in self._pairs:
            self._result(found, "valid")
        elif pair in self._verifying:
            pass  # its answer is under way
        elif found.target not in self._hosts():
            self._result(found, "error", "item-not-found", "that domain is not hosted here")
        elif found.sender in self._hosts():
            self._fail("invalid-from", "that domain is hosted here, and nowhere else")
        elif rules.refusal:
            self._result(found, "error", "policy-violation", rules.refusal)
        elif len(self._pairs) >= MAX_PAIRS or len(self._verifying) >= _MAX_VERIFYING:
            self._result(found, "error", "resource-constraint", "too many domains on one stream")
        elif self._secure and rules.certificates != "off" and found.sender not in self._proofs:
            self._judge_first(found)
        elif self._proofs.get(found.sender) is not None and rules.certificates != "off":
            # XEP-0344: what the certificate proves needs no calling back.
            self._pair(*pair, "certificate")
            self._result(found, "valid")
        elif rules.certificates == "required":
            self._result(found, "error", "not-authorized", "a certificate that proves the domain is required")
        elif not rules.dialback:
            self._result(found, "error", "not-authorized", "dialback is not accepted for that domain")
        else:
            self._verifying.add(pair)
            self._output.append(Verify(found.target, found.sender, self._stream_id, found.key))

    def _judge_first(self, found: Dialback) -> None:
        waiting = self._judging.setdefault(found.sender, [])
        if len(self._judging) > _MAX_VERIFYING or len(waiting) >= _MAX_VERIFYING:
            self._result(found, "error", "resource-constraint", "too many domains on one stream")
            return
        waiting.append(found)
        if len(waiting) == 1:
            self._output.append(Judge(found.sender))

    def verified(self, local: str, remote: str, outcome: str, text: str = "") -> None:
        """What ``Verify`` asked: ``valid``, ``invalid``, or the condition of a stanza error and a sentence."""
        pair = (local, remote)
        if pair not in self._verifying or self._stage == "closed":
            return
        self._verifying.discard(pair)
        request = Dialback("result", remote, local)
        if outcome == "valid" and not self._takes_dialback(self._rules(remote)):
            outcome, text = "policy-violation", "the policy for that domain changed meanwhile"
        if outcome == "valid":
            self._pair(local, remote, "dialback")
            self._result(request, "valid")
        elif outcome == "invalid":
            self._output.append(Refused(remote, "the domain's own server does not know the key that was shown"))
            self._result(request, "invalid")
            if not self._pairs and not self._verifying:
                self._fail("not-authorized", "the domain's own server does not know the key")
        else:
            condition = outcome if outcome in STANZA_CONDITIONS else "remote-server-not-found"
            self._output.append(Refused(remote, f"its key could not be verified: {text or condition}"))
            self._result(request, "error", condition, text)

    def _takes_dialback(self, rules: Rules) -> bool:
        encrypted = self._secure or rules.tls != "required"
        return encrypted and rules.dialback and rules.certificates != "required" and not rules.refusal

    def _result(self, found: Dialback, outcome: dialback.Outcome, condition: str = "", text: str = "") -> None:
        """Answers a request: from whom it was to, to whom it was from."""
        self._send(
            dialback.answer(
                found.kind,
                outcome,
                sender=found.target,
                target=found.sender,
                stream_id=found.stream_id,
                condition=condition,
                text=text,
            )
        )

    # --- the end ------------------------------------------------------------------------------------------------

    def _pair(self, local: str, remote: str, how: How) -> None:
        if (local, remote) not in self._pairs:
            self._deadline = None
            self._pairs[local, remote] = how
            self._output.append(Paired(local, remote, how, both=self._bidi))

    def _fail(self, condition: str, reason: str) -> None:
        self._over(Close(stream_error(condition, reason), reason, condition))

    def _over(self, close: Close) -> None:
        if self._stage != "closed":
            self._stage = "closed"
            self._deadline = None
            self._output.append(close)

    def _send(self, *elements: Element) -> None:
        self._output.append(Send(elements))


def _dialback_feature() -> Element:
    return Element("dialback", ns.DIALBACK_FEATURE, {}, (Element("errors", ns.DIALBACK_FEATURE),))
