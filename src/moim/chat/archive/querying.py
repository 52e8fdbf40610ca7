"""XEP-0313 queries: what is asked for, and the messages that answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from moim._native import ArchiveIds
from moim.chat.archive import ids, keeping
from moim.chat.archive.keeping import Found, Selection
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, delay, ns, read_timestamp, rsm, timestamp
from moim.proto.xmpp.dataform import Field, form, read_boolean, read_form

MAX_IDS: Final = 200
_MAX_QUERY_ID: Final = 256
_FIELDS: Final = frozenset({"with", "start", "end", "before-id", "after-id", "ids", "include-groupchat"})

Forwarded = Callable[[Found, str], Element | None]
"""A message, and what the archive calls it, as whoever asks may see it; None when it is not to be shown."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query of one archive. ``named`` are the ids that have to be in the archive."""

    identifier: str | None
    with_: Jid | None
    after: int
    before: int
    ids: tuple[int, ...] | None
    named: frozenset[int]
    page: rsm.Request
    flipped: bool

    @property
    def plain(self) -> bool:
        """Whether it asks for everything that lies between the ends of its page."""
        return self.with_ is None and self.ids is None

    def selection(self, owner: str, floor: int = -1) -> Selection:
        """The rows that match. Ids up to ``floor`` are gone."""
        chosen = Selection(ids.key(owner), max(self.after, floor), self.before, ids=self.ids)
        if self.with_ is None:
            return chosen
        full = ids.key(str(self.with_)) if self.with_.resource else None
        return replace(chosen, peer=ids.key(str(self.with_.bare)), full=full)


def read(payload: Element, archive: str, names: ArchiveIds) -> Query:
    """The query of an archive in a request's payload.

    Raises StanzaError for what is not one, or asks for what does not exist.
    """

    def number(text: str) -> int:
        found = names.read(archive, text)
        if found is None:
            raise StanzaError("item-not-found", "the archive has no message with this id")
        return found

    identifier = payload.get("queryid")
    if identifier is not None and len(identifier.encode()) > _MAX_QUERY_ID:
        raise StanzaError("bad-request", "the queryid is too long")
    if payload.get("node"):
        raise StanzaError("item-not-found", "the archive has no nodes")
    fields = _fields(payload)
    page = rsm.find(payload)
    if page.index is not None:
        raise StanzaError("feature-not-implemented", "pages of an archive are asked for by id, not by number")
    with_ = _one(fields, "with")
    after, before = -1, ids.MAX
    if (start := _one(fields, "start")) is not None:
        after = ids.first_at(_moment(start)) - 1
    if (end := _one(fields, "end")) is not None:
        before = ids.first_after(_moment(end))
    named: set[int] = set()
    for text in (_one(fields, "after-id"), page.after):
        if text is not None:
            named.add(lowest := number(text))
            after = max(after, lowest)
    for text in (_one(fields, "before-id"), page.before or None):
        if text is not None:
            named.add(highest := number(text))
            before = min(before, highest)
    single: tuple[int, ...] | None = None
    if "ids" in fields:
        if len(fields["ids"]) > MAX_IDS:
            raise StanzaError("bad-request", f"at most {MAX_IDS} messages are asked for by id at once")
        single = tuple(number(text) for text in fields["ids"])
        named.update(single)
    flipped = payload.find("flip-page") is not None
    return Query(identifier, _jid(with_), after, before, single, frozenset(named), page, flipped)


def _fields(payload: Element) -> dict[str, tuple[str, ...]]:
    element = payload.find("x", ns.DATA_FORMS)
    if element is None:
        return {}
    kind, fields = read_form(element)
    if kind != ns.ARCHIVE:
        raise StanzaError("bad-request", f"the form has to be of the type {ns.ARCHIVE}")
    if unknown := sorted(fields.keys() - _FIELDS):
        raise StanzaError("feature-not-implemented", f"the archive cannot be searched by {unknown[0][:100]}")
    if "include-groupchat" in fields:
        read_boolean(fields["include-groupchat"])  # either is granted: there is none to include
    return dict(fields)


def _one(fields: dict[str, tuple[str, ...]], name: str) -> str | None:
    values = fields.get(name, ())
    if len(values) > 1:
        raise StanzaError("bad-request", f"the field {name} has one value")
    return values[0] if values and values[0] else None


def _moment(text: str) -> datetime:
    try:
        return read_timestamp(text)
    except ValueError as error:
        raise StanzaError("bad-request", str(error)) from None


def _jid(text: str | None) -> Jid | None:
    try:
        return Jid.parse(text) if text is not None else None
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None


def fields_form() -> Element:
    """What a query may be narrowed by (XEP-0313 section 4.1.5)."""
    open_list = Element("validate", ns.DATA_VALIDATE, {"datatype": "xs:string"}, (Element("open", ns.DATA_VALIDATE),))
    found = form(
        "form",
        ns.ARCHIVE,
        [
            Field("with", "jid-single"),
            *(Field(name) for name in ("start", "end", "before-id", "after-id")),
            Field("ids", "list-multi"),
            Field("include-groupchat", "boolean"),
        ],
    )
    children = [
        child.with_children((*child.children, open_list)) if child.get("var") == "ids" else child
        for child in found.elements()
    ]
    return Element("query", ns.ARCHIVE, {}, (found.with_children(children),))


@dataclass(frozen=True, slots=True)
class Answer:
    """The messages that answer a query, and the payload of its result. ``first`` and ``last`` are None for none."""

    messages: Sequence[Element]
    fin: Element
    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Messages of a page when nobody says, at the most, and their bytes at the most."""

    usual: int
    most: int
    most_bytes: int


def answer(
    connection: sa.Connection,
    query: Query,
    selection: Selection,
    *,
    archive: str,
    names: ArchiveIds,
    asker: str,
    bounds: Bounds,
    forwarded: Forwarded,
) -> Answer:
    """The page of an archive that ``query`` asks for, for the full JID ``asker``; runs in a reader thread.

    ``selection`` is the query's. Raises StanzaError item-not-found when it names a message that the archive has not.
    """
    floor = selection.after if selection.after > query.after else -1
    if any(wanted <= floor for wanted in query.named) or keeping.missing(connection, selection.owner, query.named):
        raise StanzaError("item-not-found", "the archive has no message with this id")
    most = query.page.limit(bounds.usual, bounds.most)
    if most == 0:
        count = keeping.count(connection, selection)
        return Answer((), _fin(count == 0, count=count), None, None)
    page = keeping.page(connection, selection, most=most, most_bytes=bounds.most_bytes, backwards=query.page.backwards)
    called = [names.write(archive, found.id) for found in page.found]
    sent = [
        _result(found, name, query.identifier, archive, asker, forwarded(found, name))
        for found, name in zip(page.found, called, strict=True)
    ]
    if query.flipped:
        sent.reverse()
    first, last = (page.found[0].id, page.found[-1].id) if page.found else (None, None)
    return Answer(sent, _fin(page.complete, called), first, last)


def _fin(complete: bool, called: Sequence[str] = (), count: int | None = None) -> Element:
    first, last = (called[0], called[-1]) if called else (None, None)
    attrs = {"complete": "true"} if complete else {}
    return Element("fin", ns.ARCHIVE, attrs, (rsm.about(first, last, count=count),))


def _result(
    found: Found, name: str, identifier: str | None, archive: str, asker: str, message: Element | None
) -> Element:
    stamp = delay(ids.time_of(found.id), archive).with_attrs({"from": None})
    forwarded = Element("forwarded", ns.FORWARD, {}, (stamp,) if message is None else (stamp, message))
    attrs = {"id": name} | ({"queryid": identifier} if identifier is not None else {})
    result = Element("result", ns.ARCHIVE, attrs, (forwarded,))
    return Element("message", ns.CLIENT, {"from": archive, "to": asker}, (result,))


def metadata(ends: tuple[int, int] | None, archive: str, names: ArchiveIds) -> Element:
    """The ends of an archive (XEP-0313 section 4.4)."""
    children = [
        Element(name, ns.ARCHIVE, {"id": names.write(archive, number), "timestamp": timestamp(ids.time_of(number))})
        for name, number in zip(("start", "end"), ends or (), strict=False)
    ]
    return Element("metadata", ns.ARCHIVE, {}, tuple(children))
