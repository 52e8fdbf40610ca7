"""Addresses: what is equal, what is refused, and that the canonical form is a fixed point."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto.xmpp.jid import Jid, prepare_domain, prepare_local, prepare_resource


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("alice@example.com/phone", "alice@example.com/phone"),
        ("Alice@Example.COM/Phone", "alice@example.com/Phone"),
        ("example.com", "example.com"),
        ("example.com.", "example.com"),
        ("example.com/res/with/slashes@and at", "example.com/res/with/slashes@and at"),
        ("김철수@모임.한국/사무실", "김철수@모임.한국/사무실"),
        ("a@xn--v52b68u.xn--3e0b707e", "a@모임.한국"),
        ("ｗｉｄｅ@example.com", "wide@example.com"),
        ("straße@example.com", "strasse@example.com"),
        ("ΦΎΛΛΟΣ@example.com", "φύλλοσ@example.com"),
        ("soft\u00adhyphen@example.com", "softhyphen@example.com"),
        ("a@[2001:DB8:0::1]/x", "a@[2001:db8::1]/x"),
        ("a@192.0.2.1", "a@192.0.2.1"),
        ("a@example.com/📱 집", "a@example.com/📱 집"),
        ("a@bücher.example", "a@bücher.example"),
        ("a@example。com", "a@example.com"),
    ],
)
def test_the_canonical_form(text: str, canonical: str) -> None:
    assert str(Jid.parse(text)) == canonical
    assert Jid.parse(canonical) == Jid.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@example.com",
        "a@",
        "a@/r",
        "a@example.com/",
        "/r",
        "a b@example.com",
        "a\u3000b@example.com",
        "a@b@example.com",
        'a"b@example.com',
        "a&b@example.com",
        "a'b@example.com",
        "a:b@example.com",
        "a<b@example.com",
        "a>b@example.com",
        "a@exa mple.com",
        "a@-example.com",
        "a@example-.com",
        "a@example..com",
        "a@.example.com",
        "a@" + "x" * 64 + ".com",
        "a@" + ".".join(["x" * 60] * 5),
        "x" * 1024 + "@example.com",
        "a@example.com/" + "x" * 1024,
        "a@[::1",
        "a@[::1%lo]",
        "a@[bad]",
        "a@example.com/\x00",
        "a@example.com/a\nb",
        "a\x7f@example.com",
        "a@example.com/\u202e",
        "a@example.com/\ue000",
        "a@example.com/\ud800",
        "a\ufffd@example.com",
        "aא@example.com",
        "אa@example.com",
        "a@ex_am ple",
        "a@\u00ad",
        "\u00ad@example.com",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ProtocolError):
        Jid.parse(text)


def test_the_bounds_count_bytes() -> None:
    assert Jid.parse("가" * 341 + "@example.com").local == "가" * 341
    with pytest.raises(ProtocolError):
        Jid.parse("가" * 342 + "@example.com")


def test_parts() -> None:
    full = Jid.parse("a@example.com/r")
    assert full.bare == Jid.parse("a@example.com")
    assert not full.is_bare
    assert full.bare.is_bare
    assert full.bare.with_resource("r") == full
    bare = full.bare
    assert bare.bare is bare


@given(st.text(max_size=40))
def test_a_prepared_local_part_stays_as_it_is(text: str) -> None:
    try:
        prepared = prepare_local(text)
    except ProtocolError:
        return
    assert prepare_local(prepared) == prepared
    assert str(Jid.parse(f"{prepared}@example.com")) == f"{prepared}@example.com"


@given(st.text(max_size=40))
def test_a_prepared_resource_stays_as_it_is(text: str) -> None:
    try:
        prepared = prepare_resource(text)
    except ProtocolError:
        return
    assert prepare_resource(prepared) == prepared
    assert Jid.parse(f"example.com/{prepared}").resource == prepared


@given(st.text(max_size=60))
def test_a_prepared_domain_stays_as_it_is(text: str) -> None:
    try:
        prepared = prepare_domain(text)
    except ProtocolError:
        return
    assert prepare_domain(prepared) == prepared


@given(st.text(max_size=200))
def test_parsing_gives_an_address_or_a_protocol_error(text: str) -> None:
    try:
        jid = Jid.parse(text)
    except ProtocolError:
        return
    assert Jid.parse(str(jid)) == jid


@given(st.text(alphabet=st.characters(codec="utf-8", categories=("Ll", "Lo", "Nd")), min_size=1, max_size=20))
def test_case_does_not_tell_accounts_apart(text: str) -> None:
    try:
        lower = prepare_local(text)
    except ProtocolError:
        return
    with contextlib.suppress(ProtocolError):
        assert prepare_local(text.upper().lower()) == prepare_local(text.upper())
    assert lower == prepare_local(lower)
