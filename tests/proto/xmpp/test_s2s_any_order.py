"""Whatever a peer says in whatever order: no machine fails, and no pair opens that nobody vouched for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moim.errors import MoimError
from moim.proto.xmpp import Element, ns, s2s
from moim.proto.xmpp.s2s import dialback
from moim.proto.xmpp.sasl import encode
from s2s_wire import A_KEYS, B_KEYS, A, B

DOMAINS = st.sampled_from([A, B, "rooms.b.example", "evil.example", "a b", ""])


def _element(name: str, namespace: str, attrs: dict[str, str], text: str) -> Element:
    return Element(name, namespace, attrs, (text,) if text else ())


ELEMENTS = st.one_of(
    st.builds(
        lambda kind, sender, to, outcome, key: Element(
            kind, ns.DIALBACK, {"from": sender, "to": to, "id": "s"} | ({"type": outcome} if outcome else {}), (key,)
        ),
        st.sampled_from(["result", "verify"]), DOMAINS, DOMAINS,
        st.sampled_from(["", "valid", "invalid", "error", "x"]),
        st.sampled_from(["k", "x" * 600, A_KEYS.key(receiving=B, originating=A, stream_id="stream")]),
    ),
    st.builds(
        lambda mechanism, authzid: _element(
            "auth", ns.SASL, {"mechanism": mechanism}, encode(authzid.encode()) if authzid else "="
        ),
        st.sampled_from(["EXTERNAL", "PLAIN", ""]), DOMAINS,
    ),
    st.sampled_from(
        [
            Element("starttls", ns.TLS), Element("proceed", ns.TLS), Element("failure", ns.TLS),
            Element("success", ns.SASL), Element("failure", ns.SASL), Element("bidi", ns.BIDI),
            Element("features", ns.STREAMS), Element("features", ns.STREAMS, {}, (Element("starttls", ns.TLS),)),
            Element("features", ns.STREAMS, {}, (Element("dialback", ns.DIALBACK_FEATURE),)),
            Element("error", ns.STREAMS, {}, (Element("reset", ns.STREAM_ERRORS),)),
            Element("message", ns.CLIENT, {"from": A, "to": B}), Element("x", "urn:x"),
        ]
    ),
)  # fmt: skip
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("element"), ELEMENTS),
        st.tuples(st.just("open"), st.dictionaries(st.sampled_from(["from", "to", "version", "id"]), DOMAINS)),
        st.tuples(st.just("tls"), st.none()),
        st.tuples(st.just("tick"), st.floats(0, 100)),
    ),
    max_size=25,
)
RULES = st.builds(
    s2s.Rules,
    st.sampled_from(["off", "optional", "required"]),
    st.sampled_from(["off", "optional", "required"]),
    st.booleans(),
)


@given(STEPS, RULES, st.booleans(), st.booleans())
def test_who_accepts(steps: list[tuple[str, Any]], rules: s2s.Rules, secure: bool, proven: bool) -> None:
    machine = s2s.Incoming(
        lambda: (B, "rooms.b.example"), lambda _: rules, B_KEYS, now=0.0, secure=secure, token=lambda: "stream"
    )
    closed = False
    vouched: set[tuple[str, str]] = set()
    for kind, value in steps:
        _feed(machine, kind, value)
        while (step := machine.next_output()) is not None:
            assert not closed, "nothing comes after the end"
            match step:
                case s2s.Judge(domain):
                    machine.judged(domain, "pkix" if proven and domain == A else None, "no")
                case s2s.Verify(local, remote):
                    assert rules.dialback
                    assert rules.certificates != "required"
                    if remote == A:
                        vouched.add((local, remote))
                    machine.verified(local, remote, "valid" if remote == A else "invalid")
                case s2s.Paired(local, remote, how):
                    assert remote == A
                    assert local in (B, "rooms.b.example")
                    assert rules.tls != "required" or machine.secure
                    assert (local, remote) in vouched if how == "dialback" else proven
                case s2s.Close():
                    closed = True


@given(STEPS, RULES, st.booleans(), st.booleans())
def test_who_opens(steps: list[tuple[str, Any]], rules: s2s.Rules, secure: bool, proven: bool) -> None:
    machine = s2s.Outgoing(A, B, rules, A_KEYS, now=0.0, secure=secure)
    machine.start()
    closed = ready = False
    for kind, value in [("open", {"id": "s", "version": "1.0"}), *steps]:
        _feed(machine, kind, value)
        while (step := machine.next_output()) is not None:
            assert not closed
            match step:
                case s2s.Judge(domain):
                    assert domain == B
                    machine.judged(domain, "pkix" if proven else None, "no")
                case s2s.Ready():
                    assert not ready
                    ready = True
                    assert rules.tls != "required" or machine.secure
                    assert rules.certificates != "required" or proven
                    assert rules.dialback or proven
                case s2s.Close():
                    closed = True


def _feed(machine: s2s.Incoming | s2s.Outgoing, kind: str, value: Any) -> None:
    if kind == "element":
        machine.element(value)
    elif kind == "open":
        machine.opened(value)
    elif kind == "tls":
        machine.tls_started()
    else:
        machine.tick(value)


def test_stanzas_are_let_in_before_the_peer_hears_so() -> None:
    rules = s2s.Rules("off", "off", True)
    machine = s2s.Incoming(lambda: (B,), lambda _: rules, B_KEYS, now=0.0, secure=False, token=lambda: "stream")
    machine.opened({"from": A, "to": B, "version": "1.0"})
    machine.element(Element("result", ns.DIALBACK, {"from": A, "to": B}, ("key",)))
    while (step := machine.next_output()) is not None:
        if isinstance(step, s2s.Verify):
            machine.verified(B, A, "valid")
            break
    paired = machine.next_output()
    assert isinstance(paired, s2s.Paired)
    told = machine.next_output()
    assert isinstance(told, s2s.Send)
    assert [(e.name, e.get("type")) for e in told.elements] == [("result", "valid")]


@given(ELEMENTS)
def test_any_dialback_element_is_read_or_refused(element: Element) -> None:
    if dialback.is_dialback(element):
        try:
            dialback.read(element)
        except MoimError:
            return
