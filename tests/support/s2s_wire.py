"""An Outgoing and an Incoming that talk to each other in memory: what a network, a plane and two services would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from moim.proto.xmpp import s2s
from moim.proto.xmpp.element import Element

A, B = "a.example", "b.example"
A_KEYS, B_KEYS = s2s.Keys(b"the secret of a......"), s2s.Keys(b"the secret of b......")


def no_proof(_domain: str) -> s2s.Proof | None:
    return None


@dataclass
class Wire:
    """Both ends of one connection. ``a_cert``/``b_cert`` say what the certificate that a/b shows proves.

    Keys are verified at once against ``a_keys`` unless ``hold`` collects them. ``said`` is everything that was sent, in
    order, as ``who: name``.
    """

    out: s2s.Outgoing
    inc: s2s.Incoming
    a_cert: Callable[[str], s2s.Proof | None] = no_proof
    b_cert: Callable[[str], s2s.Proof | None] = no_proof
    a_keys: s2s.Keys = A_KEYS
    hold: bool = False
    ready: list[s2s.Ready] = field(default_factory=list)
    paired: list[s2s.Paired] = field(default_factory=list)
    verified: list[s2s.Verified] = field(default_factory=list)
    asked: list[s2s.Verify] = field(default_factory=list)
    refused: list[s2s.Refused] = field(default_factory=list)
    closed: dict[str, s2s.Close] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    alone: bool = True
    """Whether the test speaks for the opening side, whose machine hears nothing then."""

    def run(self) -> Wire:
        """Carries everything until both are quiet."""
        self.alone = False
        self.out.start()
        return self.go()

    def go(self) -> Wire:
        while self._step("out", self.out) or self._step("in", self.inc):
            pass
        return self

    def say(self, element: Element) -> Wire:
        """The opening side sends an element that its machine knows nothing of."""
        self.go()
        self.inc.element(element)
        return self.go()

    def _step(self, who: str, machine: s2s.Outgoing | s2s.Incoming) -> bool:
        step = machine.next_output()
        if step is None:
            return False
        other = self.inc if who == "out" else self.out
        match step:
            case s2s.OpenStream(attrs):
                self.said.append(f"{who}: stream")
                if not self.closed and (who == "out" or not self.alone):
                    other.opened(attrs)
            case s2s.Send(elements):
                for element in elements:
                    self.said.append(f"{who}: {element.name}" + (f" {t}" if (t := element.get("type")) else ""))
                    if who == "out" or not self.alone:
                        other.element(element)
            case s2s.StartTls():
                if who == "in":
                    self.said.append("in: proceed")
                    self.inc.tls_started()
                    if not self.alone:
                        self.out.element(Element("proceed", "urn:ietf:params:xml:ns:xmpp-tls"))
                else:
                    self.out.tls_started()
            case s2s.Restart(success):
                if success is not None:
                    self.said.append("in: success")
                    if not self.alone:
                        self.out.element(success)
            case s2s.Judge(domain):
                shown = self.b_cert if who == "out" else self.a_cert
                proof = shown(domain)
                machine.judged(domain, proof, "" if proof else "nobody known signed it")
            case s2s.Verify(local, remote, stream_id, key):
                self.asked.append(step)
                if not self.hold:
                    right = self.a_keys.check(key, receiving=local, originating=remote, stream_id=stream_id)
                    self.inc.verified(local, remote, "valid" if right else "invalid")
            case s2s.Count():
                self.said.append(f"{who}: enable")
            case s2s.Ready():
                self.ready.append(step)
            case s2s.Paired():
                self.paired.append(step)
            case s2s.Verified():
                self.verified.append(step)
            case s2s.Refused():
                self.refused.append(step)
            case s2s.Close():
                self.closed[who] = step
                self.said.append(f"{who}: close {step.condition}".rstrip())
                if step.error is not None and not self.alone and ("out" if who == "in" else "in") not in self.closed:
                    other.element(step.error)
        return True


def wire(
    a: s2s.Rules | None = None,
    b: s2s.Rules | None = None,
    *,
    secure: bool = False,
    verify_only: bool = False,
    external: bool = True,
    hosts: tuple[str, ...] = (B, "rooms.b.example"),
    a_cert: Callable[[str], s2s.Proof | None] = no_proof,
    b_cert: Callable[[str], s2s.Proof | None] = no_proof,
    a_keys: s2s.Keys = A_KEYS,
    hold: bool = False,
) -> Wire:
    """A new connection from a to b under each side's rules for the other."""
    a, b = a or s2s.Rules(), b or s2s.Rules()
    numbers = iter(range(1, 100))
    out = s2s.Outgoing(
        A, B, a, A_KEYS, now=0.0, secure=secure, external=external, verify_only=verify_only, timeout=30.0
    )
    inc = s2s.Incoming(
        lambda: hosts, lambda _: b, B_KEYS, now=0.0, secure=secure, token=lambda: f"stream-{next(numbers)}"
    )
    return Wire(out, inc, a_cert=a_cert, b_cert=b_cert, a_keys=a_keys, hold=hold)


def right(*domains: str) -> Callable[[str], s2s.Proof | None]:
    """A certificate that proves these domains."""
    return lambda domain: "pkix" if domain in domains else None
