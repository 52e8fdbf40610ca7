"""Two servers' machines talk to each other: every way to an open pair, and what stops it."""

from __future__ import annotations

import pytest

from moim.proto.xmpp import Element, ns, s2s
from moim.proto.xmpp.s2s import dialback
from moim.proto.xmpp.sasl import encode
from s2s_wire import A_KEYS, B_KEYS, A, B, Wire, right, wire

OFF = s2s.Rules(tls="off", certificates="off")
OPTIONAL = s2s.Rules(tls="optional")
STRICT = s2s.Rules(certificates="required", dialback=False)


def result(sender: str, target: str, key: str = "k") -> Element:
    return dialback.request("result", sender=sender, target=target, key=key)


def test_certificates_prove_both_sides() -> None:
    w = wire(STRICT, STRICT, a_cert=right(A), b_cert=right(B)).run()
    assert [(r.local, r.remote, r.how, r.both) for r in w.ready] == [(A, B, "external", True)]
    assert [(p.local, p.remote, p.how, p.both) for p in w.paired] == [(B, A, "external", True)]
    assert w.said == [
        "out: stream", "in: stream", "in: features", "out: starttls", "in: proceed",
        "out: stream", "in: stream", "in: features", "out: bidi", "out: auth", "in: success",
        "out: stream", "in: stream", "in: features", "out: enable",
    ]  # fmt: skip
    assert not w.asked
    assert w.out.deadline() is None
    assert w.inc.deadline() is None


def test_dialback_over_tls_without_right_certificates() -> None:
    w = wire().run()
    assert [r.how for r in w.ready] == ["dialback"]
    assert [(p.local, p.remote, p.how) for p in w.paired] == [(B, A, "dialback")]
    assert [(v.local, v.remote, v.stream_id) for v in w.asked] == [(B, A, "stream-2")]
    assert "out: enable" not in w.said, "counting is offered behind SASL alone (XEP-0198 section 3)"


def test_direct_tls_needs_no_starttls() -> None:
    w = wire(secure=True, a_cert=right(A), b_cert=right(B)).run()
    assert w.ready
    assert "out: starttls" not in w.said


def test_dialback_is_not_dialled_when_the_certificate_is_right() -> None:
    w = wire(external=False, a_cert=right(A)).run()
    assert [p.how for p in w.paired] == ["certificate"]
    assert not w.asked
    assert w.ready


def test_without_tls_where_both_have_it_off() -> None:
    w = wire(OFF, OFF).run()
    assert [p.how for p in w.paired] == ["dialback"]
    assert "out: starttls" not in w.said
    assert not w.out.secure


@pytest.mark.parametrize(("a", "b"), [(OPTIONAL, OPTIONAL), (OPTIONAL, s2s.Rules()), (s2s.Rules(), OPTIONAL)])
def test_optional_encryption_is_used(a: s2s.Rules, b: s2s.Rules) -> None:
    w = wire(a, b).run()
    assert w.ready
    assert w.out.secure
    assert w.inc.secure


def test_optional_encryption_is_not_insisted_on() -> None:
    w = wire(OPTIONAL, OFF).run()
    assert w.ready
    assert not w.out.secure


def test_required_encryption_is_insisted_on_by_who_opens() -> None:
    w = wire(s2s.Rules(), OFF).run()
    assert not w.ready
    assert w.closed["out"].final
    assert "offers no encryption" in w.closed["out"].reason


def test_required_encryption_is_insisted_on_by_who_accepts() -> None:
    w = wire(OFF, s2s.Rules()).run()
    assert not w.ready
    assert "requires encryption" in w.closed["out"].reason
    w = wire(OFF, s2s.Rules())
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(result(A, B))
    assert w.closed["in"].condition == "policy-violation"
    assert not w.paired


def test_a_wrong_server_certificate_stops_the_strict() -> None:
    w = wire(STRICT, a_cert=right(A), b_cert=right("other.example")).run()
    assert not w.ready
    assert "certificate is not accepted: nobody known signed it" in w.closed["out"].reason


def test_a_wrong_client_certificate_stops_at_the_strict() -> None:
    w = wire(s2s.Rules(), STRICT, b_cert=right(B)).run()
    assert not w.ready
    assert w.closed["in"].condition == "not-authorized"
    assert "nobody known signed it" in w.closed["out"].reason


def test_dialback_off_and_a_peer_that_knows_nothing_else() -> None:
    w = wire(s2s.Rules(dialback=False), s2s.Rules(certificates="off")).run()
    assert not w.ready
    assert "out: result" not in w.said
    w = wire(s2s.Rules(dialback=False), s2s.Rules(certificates="off"), b_cert=right(B)).run()
    assert w.ready, "the certificate proves the peer, so its asking the DNS about us harms nobody"


def test_a_refused_domain_hears_why() -> None:
    w = wire(b=s2s.Rules(refusal="nothing is exchanged with a.example")).run()
    assert w.closed["in"].condition == "policy-violation"
    assert "nothing is exchanged with a.example" in w.closed["out"].reason


def test_a_key_that_is_not_ours_means_that_somebody_else_hosts_the_domain() -> None:
    w = wire(a_keys=s2s.Keys(b"another server's secret")).run()
    assert not w.ready
    assert w.closed["in"].condition == "not-authorized"
    assert "somebody else may host a.example" in w.closed["out"].reason
    assert w.closed["out"].final
    assert w.refused[0].remote == A


def test_a_verification_that_fails_says_why() -> None:
    w = wire(hold=True).run()
    w.inc.verified(B, A, "remote-server-timeout", "a.example did not answer")
    w.go()
    assert "a.example did not answer" in w.closed["out"].reason
    assert not w.closed["out"].final
    assert "in" in w.closed or not w.paired


def test_our_own_keys_are_answered_for() -> None:
    w = wire(verify_only=True)
    good = A_KEYS.key(receiving=A, originating=B, stream_id="s1")  # as if b had made it: it has not
    assert w.out.verify(local=A, remote=B, stream_id="s1", key=good)
    assert w.out.verify(local=A, remote=B, stream_id="s2", key=B_KEYS.key(receiving=A, originating=B, stream_id="s2"))
    w.run()
    assert [(v.stream_id, v.outcome) for v in w.verified] == [("s1", "invalid"), ("s2", "valid")]
    assert not w.ready
    assert not w.paired
    w.inc.tick(61)
    w.go()
    assert w.closed["in"].error is None


def test_an_answer_nobody_asked_for_is_not_believed() -> None:
    w = wire(hold=True).run()
    w.out.element(dialback.answer("verify", "valid", sender=B, target=A, stream_id="s9"))
    w.go()
    assert not w.verified
    w.out.element(dialback.answer("result", "valid", sender="other.example", target=A))
    w.go()
    assert not w.ready
    assert w.closed["out"].condition == "policy-violation"


@pytest.mark.parametrize("kind", ["result", "verify"])
def test_an_answer_on_a_stream_that_asks_nothing_opens_nothing(kind: dialback.Kind) -> None:
    w = wire(hold=True).run()
    w.say(dialback.answer(kind, "valid", sender=A, target=B, stream_id="stream-1"))
    assert not w.paired
    assert w.closed["in"].condition == "policy-violation"


def test_one_stream_earns_further_pairs_one_by_one() -> None:
    w = wire(a_cert=right(A)).run()
    w.alone = True
    w.say(result("rooms.a.example", B, A_KEYS.key(receiving=B, originating="rooms.a.example", stream_id="stream-1")))
    assert [(p.remote, p.how) for p in w.paired] == [(A, "external")], "the key is that of an earlier stream"
    assert "in" not in w.closed, "a wrong key for a further domain does not end what was earned"
    key = A_KEYS.key(receiving="rooms.b.example", originating="x.a.example", stream_id="stream-3")
    w.say(result("x.a.example", "rooms.b.example", key))
    pair = w.paired[-1]
    assert (pair.local, pair.remote, pair.how) == ("rooms.b.example", "x.a.example", "dialback")


def test_our_own_domain_is_nobody_elses() -> None:
    w = wire()
    w.inc.opened({"from": B, "to": B, "version": "1.0"})
    w.go()
    assert w.closed["in"].condition == "invalid-from"
    w = wire(secure=True)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(result("rooms.b.example", B))
    assert w.closed["in"].condition == "invalid-from"


def test_a_domain_that_is_not_hosted() -> None:
    w = wire(hosts=("c.example",)).run()
    assert w.closed["in"].condition == "host-unknown"
    assert w.closed["out"].final
    w = wire(secure=True)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(result(A, "c.example"))
    assert not w.paired
    assert "in: result error" in w.said


@pytest.mark.parametrize(
    ("authzid", "mechanism"),
    [("other.example", "EXTERNAL"), (B, "EXTERNAL"), ("a b", "EXTERNAL"), (A, "PLAIN")],
)
def test_sasl_external_speaks_for_the_proven_domain_alone(authzid: str, mechanism: str) -> None:
    w = wire(secure=True, a_cert=right(A, "other.example"))
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    for _ in range(3):
        w.say(Element("auth", ns.SASL, {"mechanism": mechanism}, (encode(authzid.encode()),)))
    assert not w.paired
    assert w.said.count("in: failure") == 3
    assert w.closed["in"].condition == "policy-violation"


def test_external_is_not_offered_without_a_right_certificate_and_not_taken_either() -> None:
    w = wire(secure=True)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(Element("auth", ns.SASL, {"mechanism": "EXTERNAL"}, ("=",)))
    assert "in: failure" in w.said
    assert not w.paired


def test_an_authenticated_stream_cannot_change_its_name() -> None:
    w = wire(secure=True, a_cert=right(A, "other.example"))
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(Element("auth", ns.SASL, {"mechanism": "EXTERNAL"}, ("=",)))
    assert "in: success" in w.said
    w.inc.opened({"from": "other.example", "to": B, "version": "1.0"})
    w.go()
    assert w.closed["in"].condition == "invalid-from"
    assert not w.paired


def test_what_was_said_before_encryption_does_not_count() -> None:
    w = wire(b=OPTIONAL)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(Element("starttls", ns.TLS))
    assert w.inc.remote == ""
    w.say(result(A, B))
    assert w.closed["in"].condition == "not-authorized"


def test_no_new_stream_begins_where_dialback_did() -> None:
    w = wire(secure=True, a_cert=right(A))
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(result(A, B))
    w.say(Element("auth", ns.SASL, {"mechanism": "EXTERNAL"}, ("=",)))
    assert [p.how for p in w.paired] == ["certificate"]
    assert "in: failure" in w.said, "stanzas of the pair may be on their way by now"
    assert "in" not in w.closed
    w = wire(b=OPTIONAL)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(result(A, B, A_KEYS.key(receiving=B, originating=A, stream_id="stream-1")))
    assert [p.how for p in w.paired] == ["dialback"]
    w.say(Element("starttls", ns.TLS))
    assert w.closed["in"].condition == "policy-violation"


def test_floods_are_bounded() -> None:
    w = wire(secure=True, hold=True)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    for number in range(100):
        w.say(result(f"x{number}.example", B))
    assert len(w.asked) == 16
    assert w.said.count("in: result error") == 84
    w = wire(secure=True)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    for number in range(1001):
        w.say(dialback.request("verify", sender=A, target=B, key="k", stream_id=str(number)))
    assert w.closed["in"].condition == "policy-violation"


def test_an_external_refusal_falls_back_to_dialback() -> None:
    w = wire(b_cert=right(B))
    w.out.start()
    w.out.next_output()
    w.out.opened({"id": "x", "version": "1.0"})
    w.out.element(Element("features", ns.STREAMS, {}, (Element("starttls", ns.TLS),)))
    w.out.element(Element("proceed", ns.TLS))
    w.out.tls_started()
    w.out.judged(B, "pkix", "")
    w.out.opened({"id": "y", "version": "1.0"})
    mechanisms = Element("mechanisms", ns.SASL, {}, (Element("mechanism", ns.SASL, {}, ("EXTERNAL",)),))
    w.out.element(Element("features", ns.STREAMS, {}, (mechanisms,)))
    w.out.element(Element("failure", ns.SASL, {}, (Element("not-authorized", ns.SASL),)))
    sent = [step for step in iter(w.out.next_output, None) if isinstance(step, s2s.Send)]
    assert sent[-1].elements[0].text == A_KEYS.key(receiving=B, originating=A, stream_id="y")
    assert w.out.external_failed == "not-authorized"


@pytest.mark.parametrize(
    "now", [s2s.Rules(refusal="no"), s2s.Rules(dialback=False), s2s.Rules(certificates="required")]
)
def test_rules_that_change_while_a_key_is_verified(now: s2s.Rules) -> None:
    rules = s2s.Rules()
    inc = s2s.Incoming(lambda: (B,), lambda _: rules, B_KEYS, now=0.0, secure=True, token=lambda: "id")
    w = Wire(wire().out, inc, hold=True)
    inc.opened({"from": A, "to": B})
    w.say(result(A, B))
    assert len(w.asked) == 1
    rules = now
    inc.verified(B, A, "valid")
    w.go()
    assert not w.paired
    assert w.said[-1] == "in: result error"


def test_time_runs_out() -> None:
    w = wire(hold=True).run()
    assert w.out.deadline() == 30
    w.out.tick(29.9)
    assert not w.closed
    w.out.tick(30)
    w.go()
    assert w.closed["out"].condition == "connection-timeout"


def test_bidi_is_asked_for_only_of_a_peer_that_is_known() -> None:
    assert wire(b=OFF, a=OFF).run().ready[0].both is False
    assert wire().run().ready[0].both is True
    w = wire(secure=True)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(result(A, B, A_KEYS.key(receiving=B, originating=A, stream_id="stream-1")))
    w.say(Element("bidi", ns.BIDI))
    assert w.closed["in"].condition == "policy-violation"


def test_a_stanza_too_early() -> None:
    w = wire(secure=True)
    w.inc.opened({"from": A, "to": B, "version": "1.0"})
    w.say(Element("message", ns.CLIENT, {"from": f"x@{A}", "to": f"y@{B}"}))
    assert w.closed["in"].condition == "not-authorized"
