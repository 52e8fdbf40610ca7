"""XEP-0059 result set management: the page that somebody asks for, and what is said about the page that they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element
from moim.proto.xmpp.errors import StanzaError

MAX_ID: Final = 1023
"""Bytes of an item's identifier."""
MAX_NUMBER: Final = 2_147_483_647
"""The largest number that the schema of XEP-0059 allows."""


@dataclass(frozen=True, slots=True)
class Request:
    """One page of a list. ``max`` items at the most; None leaves it to the server, 0 asks for the count alone.

    ``after`` and ``before`` are identifiers of items that are not part of the page. An empty ``before`` asks for the
    last page. ``index`` is the number of items that come before the page.
    """

    max: int | None = None
    after: str | None = None
    before: str | None = None
    index: int | None = None

    @property
    def backwards(self) -> bool:
        """Whether the page is the one at the end of what matches, not at its beginning."""
        return self.before is not None

    def limit(self, usual: int, most: int) -> int:
        """How many items the page may have: ``usual`` when nobody says, never more than ``most``."""
        return usual if self.max is None else min(self.max, most)


def read(element: Element | None) -> Request:
    """The request in ``<set/>``; the first page when there is none.

    Raises StanzaError bad-request for a set that the schema does not allow, or with identifiers beyond the bound.
    """
    if element is None:
        return Request()
    found: dict[str, str] = {}
    for child in element.elements():
        if child.ns != ns.RSM:
            continue
        if child.name in found:
            raise StanzaError("bad-request", f"<{child.name}/> stands twice in the set")
        found[child.name] = child.text
    after, before = found.get("after"), found.get("before")
    if any(len(text.encode()) > MAX_ID for text in (after, before) if text):
        raise StanzaError("bad-request", "an identifier of the set is too long")
    index = _number(found.get("index"))
    if index is not None and (after is not None or before is not None):
        raise StanzaError("bad-request", "a set asks for an index or for a place, not for both")
    return Request(_number(found.get("max")), after or None, before, index)


def find(parent: Element) -> Request:
    """The request among the children of a query. Raises StanzaError like ``read``."""
    return read(parent.find("set", ns.RSM))


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= MAX_NUMBER):
        raise StanzaError("bad-request", "a number of the set is not one")
    return int(digits)


def about(
    first: str | None = None, last: str | None = None, *, count: int | None = None, index: int | None = None
) -> Element:
    """The ``<set/>`` of an answer; ``first`` and ``last`` are None for an empty page."""
    children: list[Element] = []
    if first is not None and last is not None:
        children.append(Element("first", ns.RSM, {} if index is None else {"index": str(index)}, (first,)))
        children.append(Element("last", ns.RSM, {}, (last,)))
    if count is not None:
        children.append(Element("count", ns.RSM, {}, (str(count),)))
    return Element("set", ns.RSM, {}, tuple(children))


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list in memory: its items are ``[start:stop]``, and ``element`` says so."""

    start: int
    stop: int
    element: Element


def page(keys: Sequence[str], request: Request, *, usual: int, most: int) -> Page:
    """The page of a list whose identifiers are ``keys``, in their order, each once.

    Raises StanzaError item-not-found when it names an item that is not there (XEP-0059 section 2.4).
    """
    low = 0 if request.after is None else _place(keys, request.after) + 1
    high = len(keys) if not request.before else _place(keys, request.before)
    if request.index is not None:
        if request.index > len(keys):
            raise StanzaError("item-not-found", "the list is not that long")
        low = request.index
    size = min(request.limit(usual, most), max(high - low, 0))
    start = high - size if request.backwards else low
    stop = start + size
    if not size:
        return Page(start, start, about(count=len(keys)))
    return Page(start, stop, about(keys[start], keys[stop - 1], count=len(keys), index=start))


def _place(keys: Sequence[str], key: str) -> int:
    try:
        return keys.index(key)
    except ValueError:
        raise StanzaError("item-not-found", "the list has no such item") from None
