"""XEP-0106: any name as a localpart and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto.xmpp.jid import Jid, escape_local, unescape_local


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("space cadet", "space\\20cadet"),
        ('call me "ishmael"', "call\\20me\\20\\22ishmael\\22"),
        ("at&t guy", "at\\26t\\20guy"),
        ("d'artagnan", "d\\27artagnan"),
        ("/.fanboy", "\\2f.fanboy"),
        ("::foo::", "\\3a\\3afoo\\3a\\3a"),
        ("<foo>", "\\3cfoo\\3e"),
        ("user@host", "user\\40host"),
        ("c:\\net", "c\\3a\\net"),
        ("c:\\\\net", "c\\3a\\\\net"),
        ("c:\\cool stuff", "c\\3a\\cool\\20stuff"),
        ("c:\\5commas", "c\\3a\\5c5commas"),
        ("\\3and\\2is\\5cool", "\\5c3and\\2is\\5c5cool"),
    ],
)
def test_examples(text: str, local: str) -> None:
    assert escape_local(text) == local
    assert unescape_local(local) == text
    assert Jid.parse(f"{local}@example.com").local == local


@pytest.mark.parametrize("text", ["", " x", "x ", "x" * 1024, "\x07"])
def test_what_cannot_be_a_name(text: str) -> None:
    with pytest.raises(ProtocolError):
        escape_local(text)


def test_spaces_at_the_ends_stay_escaped() -> None:
    assert unescape_local("\\20x") == "\\20x"


@given(st.text(st.sampled_from(list(" \"&'/:<>@\\abc2057")), max_size=40))
def test_there_and_back(text: str) -> None:
    try:
        local = escape_local(text)
    except ProtocolError:
        return
    assert unescape_local(local) == text
    assert Jid.parse(f"{local}@example.com").local == local
