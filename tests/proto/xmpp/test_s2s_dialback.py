"""Dialback's keys and elements."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import MoimError
from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.s2s import Keys, dialback


def test_the_key_of_the_specification() -> None:
    keys = Keys(b"s3cr3tf0rd14lb4ck")
    key = keys.key(receiving="xmpp.example.com", originating="example.org", stream_id="D60000229F")
    assert key == "37c69b1cf07a3f67c04a5ef5902fa5114f2c76fe4a2686482ba5b89323075643"
    assert keys.check(key, receiving="xmpp.example.com", originating="example.org", stream_id="D60000229F")
    assert not keys.check(key, receiving="xmpp.example.com", originating="example.org", stream_id="D60000229E")
    assert not keys.check(key, receiving="example.org", originating="xmpp.example.com", stream_id="D60000229F")
    assert not keys.check("ä", receiving="a", originating="b", stream_id="c")


def test_a_short_secret_is_no_secret() -> None:
    with pytest.raises(ValueError):
        Keys(b"short")


@pytest.mark.parametrize("kind", ["result", "verify"])
@pytest.mark.parametrize("outcome", ["valid", "invalid", "error"])
def test_answers_are_read_as_they_were_written(kind: dialback.Kind, outcome: dialback.Outcome) -> None:
    element = dialback.answer(
        kind, outcome, sender="a.example", target="b.example", stream_id="1", condition="item-not-found", text="no"
    )
    found = dialback.read(Element.parse(element.to_xml("jabber:server")))
    assert (found.kind, found.sender, found.target, found.outcome) == (kind, "a.example", "b.example", outcome)
    assert found.condition == ("item-not-found" if outcome == "error" else "")
    assert found.text == ("no" if outcome == "error" else "")


def test_addresses_are_prepared() -> None:
    found = dialback.read(dialback.request("result", sender="A.Example", target="xn--bcher-kva.example", key="k"))
    assert (found.sender, found.target) == ("a.example", "bücher.example")


@pytest.mark.parametrize(
    ("attrs", "text"),
    [
        ({}, "k"),
        ({"from": "a.example"}, "k"),
        ({"from": "a example", "to": "b.example"}, "k"),
        ({"from": "a.example", "to": "b.example"}, ""),
        ({"from": "a.example", "to": "b.example"}, "k" * 513),
        ({"from": "a.example", "to": "b.example"}, "two words"),
    ],
)
def test_what_is_no_request(attrs: dict[str, str], text: str) -> None:
    with pytest.raises(MoimError):
        dialback.read(Element("result", ns.DIALBACK, attrs, (text,)))


def test_a_verification_has_the_id_of_a_stream() -> None:
    with pytest.raises(MoimError):
        dialback.read(Element("verify", ns.DIALBACK, {"from": "a.example", "to": "b.example"}, ("k",)))
    with pytest.raises(MoimError):
        dialback.read(Element("verify", ns.DIALBACK, {"from": "a.example", "to": "b.example", "id": "x" * 300}, ("k",)))


@given(
    st.sampled_from(["result", "verify"]),
    st.dictionaries(
        st.sampled_from(["from", "to", "id", "type"]), st.text(max_size=40).filter(lambda t: t.isprintable())
    ),
    st.text(max_size=40).filter(lambda t: t.isprintable()),
)
def test_anything_is_read_or_refused(name: str, attrs: dict[str, str], text: str) -> None:
    try:
        element = Element(name, ns.DIALBACK, attrs, (text,))
    except MoimError:
        return
    try:
        found = dialback.read(element)
    except MoimError:
        return
    assert found.outcome is not None or 0 < len(found.key) <= 512
