"""Builds small XML documents: values are escaped by the serialiser, and characters that XML 1.0 forbids are dropped."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, tostring

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 section 2.2, Char


def clean(value: object) -> str:
    """A value as text: booleans as ``true`` and ``false``, without characters that no XML document can hold."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _FORBIDDEN.sub("", text)


def element(name: str, *content: Element | str | int | bool, **attributes: object) -> Element:
    """An element with attributes and, in order, child elements or one text before them."""
    made = Element(name, {key: clean(value) for key, value in attributes.items()})
    for part in content:
        if isinstance(part, Element):
            made.append(part)
        else:
            made.text = (made.text or "") + clean(part)
    return made


def document(root: Element) -> bytes:
    """The document in UTF-8 with its declaration."""
    body: bytes = tostring(root, encoding="utf-8", xml_declaration=False)
    return b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n' + body
