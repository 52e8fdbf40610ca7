"""What waits for a stream, and what comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import LimitExceeded
from moim.federation.outbox import Bounds, Outbox, returned
from moim.proto.xmpp import Element, ns


def message(text: str = "x", name: str = "message", **attrs: str) -> Element:
    return Element(name, ns.CLIENT, {"from": "u@a.example/r", "to": "v@b.example"} | attrs, (text,))


@given(st.lists(st.tuples(st.sampled_from(["a", "rooms.a"]), st.sampled_from(["b", "c"]), st.text("xy", max_size=9))))
def test_order_is_kept_and_nothing_is_counted_twice(puts: list[tuple[str, str, str]]) -> None:
    box = Outbox(Bounds(1000, 10**6, 10**6))
    for local, remote, text in puts:
        box.put(local, remote, message(text), lambda: None)
    for pair in list(box.pairs()):
        wanted = [text for local, remote, text in puts if (local, remote) == pair]
        assert [one.text for one in box.take(*pair).stanzas] == wanted
    assert box.total_bytes == box.count("b") == box.size("c") == 0


def test_bounds_per_domain_and_in_all() -> None:
    box = Outbox(Bounds(2, 10**6, 10**6))
    box.put("a", "b", message(), lambda: None)
    box.put("rooms.a", "b", message(), lambda: None)
    with pytest.raises(LimitExceeded):
        box.put("a", "b", message(), lambda: None)
    box.put("a", "c", message(), lambda: None)
    size = len(message("x" * 100).to_xml())
    small = Outbox(Bounds(100, size, 2 * size))
    small.put("a", "b", message("x" * 100), lambda: None)
    with pytest.raises(LimitExceeded, match="for b"):
        small.put("a", "b", message(), lambda: None)
    small.put("a", "c", message("x" * 100), lambda: None)
    with pytest.raises(LimitExceeded, match="other domains"):
        small.put("a", "d", message(), lambda: None)


@pytest.mark.parametrize(
    ("stanza", "comes_back"),
    [
        (message(), True), (message(type="groupchat"), True), (message(type="error"), False),
        (message(name="iq", type="get", id="1"), True), (message(name="iq", type="result", id="1"), False),
        (message(name="iq", type="error", id="1"), False), (message(name="presence"), True),
        (message(name="presence", type="subscribe"), True), (message(name="presence", type="unsubscribed"), False),
        (message(name="presence", type="unavailable"), False), (message(name="presence", type="probe"), False),
    ],
)  # fmt: skip
def test_what_comes_back(stanza: Element, comes_back: bool) -> None:
    answer = returned(stanza, "remote-server-timeout", "it is asleep")
    assert (answer is not None) is comes_back
    if answer is not None:
        assert (answer.get("from"), answer.get("to")) == ("v@b.example", "u@a.example/r")
        assert "it is asleep" in answer.to_xml()
