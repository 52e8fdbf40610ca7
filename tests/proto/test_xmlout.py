"""Whatever the values are, the document is well-formed and gives them back."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

from hypothesis import given
from hypothesis import strategies as st

from moim.proto.xmlout import clean, document, element


@given(st.text(), st.text())
def test_any_text_survives(text: str, attribute: str) -> None:
    back = fromstring(document(element("a", element("b", text, c=attribute))))
    (child,) = back
    # XML 1.0 section 2.11: a parser reads every line end as a line feed.
    assert (child.text or "") == clean(text).replace("\r\n", "\n").replace("\r", "\n")
    assert child.get("c") == clean(attribute)


def test_values() -> None:
    made = document(element("a", element("b", True), element("c", 7), element("d"), e=False))
    assert made.decode().splitlines()[1] == '<a e="false"><b>true</b><c>7</c><d /></a>'
    assert clean("a\x00\x0b\ud800￾b") == "ab"
