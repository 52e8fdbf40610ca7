"""Small XML documents from peers, read with hard bounds: size, depth, number of elements; no DTD, no entities.

Names are compared without their namespace: the documents read here (UDS, edge configuration, service profiles) come
from several generations of servers, some with a default namespace and some without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from moim.errors import ProtocolError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_ELEMENTS = 8192


class _BoundedBuilder(TreeBuilder):
    """Counts while the parser runs, so that a hostile document stops before it is built."""

    def __init__(self, depth: int, elements: int) -> None:
        super().__init__()
        self._depth_left = depth
        self._elements_left = elements

    def start(self, tag: Any, attrs: Any, /) -> Any:
        self._depth_left -= 1
        self._elements_left -= 1
        if self._depth_left < 0 or self._elements_left < 0:
            raise ProtocolError("the XML document is nested too deep or has too many elements")
        return super().start(tag, attrs)

    def end(self, tag: Any, /) -> Any:
        self._depth_left += 1
        return super().end(tag)


def parse(data: bytes, *, max_bytes: int = MAX_BYTES) -> Element:
    """The root element of one document. Raises ProtocolError when it is not well-formed or beyond the bounds."""
    if len(data) > max_bytes:
        raise ProtocolError(f"the XML document has more than {max_bytes} bytes")
    parser = DefusedXMLParser(target=_BoundedBuilder(MAX_DEPTH, MAX_ELEMENTS), forbid_dtd=True)
    try:
        parser.feed(data)
        root = parser.close()
    except ParseError as error:
        raise ProtocolError(f"the answer is not well-formed XML: {error}") from None
    except DefusedXmlException:
        raise ProtocolError("the XML document holds a DTD or entities, which are refused") from None
    except (ValueError, LookupError):
        raise ProtocolError("the XML document's character encoding is not known") from None
    assert isinstance(root, Element)
    return root


def name(element: Element) -> str:
    """The element's name without its namespace; empty for comments."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def children(element: Element, wanted: str) -> Iterator[Element]:
    """The direct children with this name."""
    return (child for child in element if name(child) == wanted)


def child(element: Element | None, *path: str) -> Element | None:
    """The first element down a path of names, or None."""
    for wanted in path:
        if element is None:
            return None
        element = next(children(element, wanted), None)
    return element


def text(element: Element | None, *path: str, limit: int = 1024) -> str:
    """The stripped text of the first element down a path, cut at ``limit`` characters; empty when there is none."""
    found = child(element, *path)
    return (found.text or "").strip()[:limit] if found is not None else ""
