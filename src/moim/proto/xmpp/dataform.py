"""XEP-0004 data forms: builds forms to fill in and results, and reads what was submitted, with hard bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.errors import StanzaError

MAX_FIELDS: Final = 100
MAX_VALUES: Final = 1000

FieldType = Literal[
    "boolean", "fixed", "hidden", "jid-multi", "jid-single", "list-multi", "list-single", "text-multi", "text-private",
    "text-single",
]  # fmt: skip
FormType = Literal["form", "submit", "cancel", "result"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``options`` are pairs of label and value."""

    var: str
    type: FieldType = "text-single"
    values: tuple[str, ...] = ()
    label: str = ""
    options: tuple[tuple[str, str], ...] = ()
    required: bool = False

    def element(self, *, with_type: bool = True) -> Element:
        """The ``<field/>``."""
        attrs = {"var": self.var} | ({"type": self.type} if with_type else {})
        if self.label:
            attrs["label"] = self.label
        children = [Element("required", ns.DATA_FORMS)] if self.required else []
        children += [Element("value", ns.DATA_FORMS, {}, (value,)) for value in self.values]
        children += [
            Element("option", ns.DATA_FORMS, {"label": label}, (Element("value", ns.DATA_FORMS, {}, (value,)),))
            for label, value in self.options
        ]
        return Element("field", ns.DATA_FORMS, attrs, tuple(children))


def form(kind: FormType, form_type: str, fields: Sequence[Field], *, title: str = "") -> Element:
    """A form whose hidden ``FORM_TYPE`` is ``form_type`` (XEP-0068)."""
    children = [Element("title", ns.DATA_FORMS, {}, (title,))] if title else []
    children.append(Field("FORM_TYPE", "hidden", (form_type,)).element())
    children.extend(field.element() for field in fields)
    return Element("x", ns.DATA_FORMS, {"type": kind}, tuple(children))


def read_form(element: Element) -> tuple[str, Mapping[str, tuple[str, ...]]]:
    """``(form type, values by var)`` of a form that was submitted; ``FORM_TYPE`` is empty when it is missing.

    Raises StanzaError bad-request when it is not a form, has fields without a name or twice, or too much of anything.
    """
    if (element.ns, element.name) != (ns.DATA_FORMS, "x"):
        raise StanzaError("bad-request", "a data form is expected")
    values: dict[str, tuple[str, ...]] = {}
    for field in element.elements():
        if (field.ns, field.name) != (ns.DATA_FORMS, "field"):
            continue
        var = field.get("var")
        if not var:
            if field.get("type") == "fixed":
                continue
            raise StanzaError("bad-request", "a field of the form has no name")
        if var in values:
            raise StanzaError("bad-request", "a field stands twice in the form")
        found = tuple(v.text for v in field.elements() if (v.ns, v.name) == (ns.DATA_FORMS, "value"))
        if len(values) >= MAX_FIELDS or len(found) > MAX_VALUES:
            raise StanzaError("bad-request", "the form has too many fields or values")
        values[var] = found
    kind = values.pop("FORM_TYPE", ("",))
    return (kind[0] if kind else ""), values


def read_boolean(values: Sequence[str]) -> bool:
    """The value of a boolean field. Raises StanzaError not-acceptable when it is neither true nor false."""
    text = values[0].strip() if values else "false"
    if text in ("1", "true"):
        return True
    if text in ("0", "false", ""):
        return False
    raise StanzaError("not-acceptable", "a field that is true or false has another value")
