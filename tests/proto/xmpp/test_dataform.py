"""Data forms: what is built is read back; what is no form, or too much, is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.dataform import MAX_FIELDS, Field, form, read_boolean, read_form

text = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=20)
names = text.filter(lambda name: name not in ("", "FORM_TYPE"))


@given(text, st.dictionaries(names, st.lists(text, max_size=4).map(tuple), max_size=8))
def test_forms_survive_the_wire(kind: str, values: dict[str, tuple[str, ...]]) -> None:
    made = form("submit", kind, [Field(var, "text-multi", found) for var, found in values.items()])
    assert read_form(Element.parse(made.to_xml(""))) == (kind, values)


def test_the_whole_of_a_field() -> None:
    field = Field("v", "list-single", ("1",), "Label", (("One", "1"),))
    expected = (
        f'<field xmlns="{ns.DATA_FORMS}" var="v" type="list-single" label="Label"><value>1</value>'
        '<option label="One"><value>1</value></option></field>'
    )
    assert field.element() == Element.parse(expected)
    assert field.element(with_type=False).get("type") is None


@pytest.mark.parametrize(
    "inner",
    [
        "<field/>",
        "<field var='a'/><field var='a'/>",
        "".join(f"<field var='{n}'/>" for n in range(MAX_FIELDS + 1)),
        f"<field var='a'>{'<value/>' * 1001}</field>",
    ],
)
def test_what_is_no_form_is_refused(inner: str) -> None:
    with pytest.raises(StanzaError) as refused:
        read_form(Element.parse(f"<x xmlns='{ns.DATA_FORMS}' type='submit'>{inner}</x>"))
    assert refused.value.condition == "bad-request"


def test_fixed_fields_need_no_name() -> None:
    assert read_form(Element.parse(f"<x xmlns='{ns.DATA_FORMS}'><field type='fixed'/></x>")) == ("", {})
    with pytest.raises(StanzaError):
        read_form(Element("x", "urn:else"))


@pytest.mark.parametrize(("word", "meant"), [("1", True), ("true", True), ("0", False), ("false", False), ("", False)])
def test_booleans(word: str, meant: bool) -> None:
    assert read_boolean((word,)) is meant
    assert read_boolean(()) is False
    with pytest.raises(StanzaError):
        read_boolean(("yes",))
