"""Pages of lists, against a list that is simply cut; and what a set must not be."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.proto.xmpp import Element, StanzaError, ns, rsm


def request(**fields: str) -> Element:
    children = [Element(name, ns.RSM, {}, (text,) if text else ()) for name, text in fields.items()]
    return Element("set", ns.RSM, {}, tuple(children))


def test_nothing_asks_for_the_first_page() -> None:
    assert rsm.read(None) == rsm.Request()
    assert rsm.find(Element("query", "x")) == rsm.Request()


def test_what_is_asked_for() -> None:
    assert rsm.read(request(max="10", after="a")) == rsm.Request(10, "a")
    assert rsm.read(request(max="0")) == rsm.Request(0)
    assert rsm.read(request(before="")).backwards
    assert rsm.read(request(before="b")) == rsm.Request(before="b")
    assert rsm.read(request(index="7")) == rsm.Request(index=7)
    assert rsm.Request().limit(50, 250) == 50
    assert rsm.Request(1000).limit(50, 250) == 250


@pytest.mark.parametrize(
    "element",
    [
        request(max="-1"),
        request(max="ten"),
        request(max="2147483648"),
        request(max="99999999999999999999"),
        request(max="٣"),
        request(index=""),
        request(index="1", after="a"),
        request(index="1", before=""),
        request(after="a" * 1024),
        Element("set", ns.RSM, {}, (Element("max", ns.RSM, {}, ("1",)), Element("max", ns.RSM, {}, ("2",)))),
    ],
)
def test_what_a_set_must_not_be(element: Element) -> None:
    with pytest.raises(StanzaError) as caught:
        rsm.read(element)
    assert caught.value.condition == "bad-request"


def test_unknown_items_are_not_found() -> None:
    for asked in (rsm.Request(after="x"), rsm.Request(before="x"), rsm.Request(index=4)):
        with pytest.raises(StanzaError) as caught:
            rsm.page(["a", "b", "c"], asked, usual=10, most=10)
        assert caught.value.condition == "item-not-found"


def test_the_count_alone() -> None:
    page = rsm.page(["a", "b"], rsm.Request(0), usual=10, most=10)
    assert page.start == page.stop
    assert page.element == rsm.about(count=2)


@given(st.data(), st.lists(st.text("abcde", min_size=1, max_size=3), unique=True, max_size=12))
def test_pages_are_cuts_of_the_list(data: st.DataObject, keys: list[str]) -> None:
    after = data.draw(st.none() | st.sampled_from(keys)) if keys else None
    before = data.draw(st.none() | st.just("") | st.sampled_from(keys)) if keys else data.draw(st.none() | st.just(""))
    most = data.draw(st.integers(1, 5))
    asked = data.draw(st.none() | st.integers(0, 8))
    page = rsm.page(keys, rsm.Request(asked, after, before), usual=3, most=most)
    matching = keys[keys.index(after) + 1 if after else 0 : keys.index(before) if before else len(keys)]
    size = min(3 if asked is None else min(asked, most), len(matching))
    expected = [] if not size else matching[-size:] if before is not None else matching[:size]
    assert keys[page.start : page.stop] == expected
    first = page.element.find("first", ns.RSM)
    assert (first.text if first is not None else None) == (expected[0] if expected else None)


@given(st.text(max_size=40), st.sampled_from(["max", "index", "after", "before", "count", "other"]))
def test_any_text_is_read_or_refused(text: str, name: str) -> None:
    clean = "".join(c for c in text if c.isprintable() and c < "\ufff0")
    with suppress(StanzaError):
        assert rsm.read(request(**{name: clean})).limit(50, 250) <= 250
