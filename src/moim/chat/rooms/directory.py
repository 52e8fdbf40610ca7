"""Which public rooms there are: the list of discovery, page by page, and search by words (XEP-0433)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, StanzaError, ns, rsm
from moim.proto.xmpp.dataform import Field, form, read_boolean, read_form

_PAGE: Final = 500
_MAX_FOUND: Final = 100
_MAX_QUERY: Final = 200
_MAX_TERMS: Final = 10
_SHORTEST_TERM: Final = 2
_BY_ADDRESS: Final = f"{{{ns.CHANNEL_SEARCH_ORDER}}}address"
_BY_USERS: Final = f"{{{ns.CHANNEL_SEARCH_ORDER}}}nusers"
_TYPE: Final = "xep-0045"
_FLAGS: Final = ("sinname", "sindescription", "sinaddr")


class Directory:
    """The public rooms in the order of their addresses, sorted anew only after one came, went or was configured."""

    def __init__(self, rooms: Callable[[], Iterable[Room]]) -> None:
        self._rooms = rooms
        self._sorted: list[Room] | None = None
        self._addresses: list[str] = []

    def changed(self) -> None:
        """A room came, went, or changed what is listed of it."""
        self._sorted = None

    def _public(self) -> list[Room]:
        if self._sorted is None:
            public = [room for room in self._rooms() if room.config.public and not room.locked]
            self._sorted = sorted(public, key=lambda room: room.address)
            self._addresses = [room.address for room in self._sorted]
        return self._sorted

    def items(self, query: Element) -> Element:
        """The public rooms, a page of them. Raises StanzaError."""
        if query.get("node"):
            raise StanzaError("item-not-found", "there is no such node")
        public, asked = self._public(), query.find("set", ns.RSM)
        part = rsm.page(self._addresses, rsm.read(asked), usual=_PAGE, most=_PAGE)
        items = [
            Element("item", ns.DISCO_ITEMS, {"jid": room.address, "name": room.config.name or room.jid.local})
            for room in public[part.start : part.stop]
        ]
        if asked is not None or len(items) < len(public):
            items.append(part.element)
        return Element("query", ns.DISCO_ITEMS, {}, tuple(items))

    def search(self, request: Element) -> Element:
        """Answers ``<search/>``: the form when it is empty, or what was found. Raises StanzaError."""
        submitted = request.find("x", ns.DATA_FORMS)
        if submitted is None:
            return Element("search", ns.CHANNEL_SEARCH, {}, (_form(),))
        kind, values = read_form(submitted)
        if submitted.get("type") != "submit" or kind != ns.CHANNEL_SEARCH_PARAMS:
            raise StanzaError("bad-request", "the form of the search is expected, filled in")
        found = self._found(values)
        if _key(values) == _BY_USERS:
            found.sort(key=lambda room: (-len(room.occupants), room.address))
        part = rsm.page([room.address for room in found], rsm.find(request), usual=_MAX_FOUND, most=_MAX_FOUND)
        items = [_item(room) for room in found[part.start : part.stop]]
        return Element("result", ns.CHANNEL_SEARCH, {}, (*items, part.element))

    def _found(self, values: Mapping[str, tuple[str, ...]]) -> list[Room]:
        query = (values.get("q") or ("",))[0].strip()
        every = read_boolean(values.get("all", ()))
        if every and query:
            fields = tuple(Element("var", ns.CHANNEL_SEARCH_ERRORS, {}, (var,)) for var in ("all", "q"))
            raise _error("bad-request", "conflicting-fields", "everything, or what has these words", fields)
        if not every and "q" not in values:
            text = "say what to search for, or ask for everything"
            raise _error("bad-request", "no-search-conditions", text, kind="cancel")
        if "types" in values and _TYPE not in values["types"]:
            return []
        least = _least(values)
        rooms = [room for room in self._public() if len(room.occupants) >= least]
        if every:
            return rooms
        terms = [term for term in query[:_MAX_QUERY].casefold().split() if len(term) >= _SHORTEST_TERM][:_MAX_TERMS]
        if not terms:
            text = f"a search needs a word of at least {_SHORTEST_TERM} characters"
            raise _error("bad-request", "invalid-search-terms", text)
        # One field is called by two names in the XEP: in its form and in its table.
        values = {"sinaddr": values.get("sinaddress", ("true",)), **values}
        places = [flag for flag in _FLAGS if read_boolean(values.get(flag, ("true",)))]
        return [room for room in rooms if _has(room, terms, places)]


def _has(room: Room, terms: Sequence[str], places: Sequence[str]) -> bool:
    config = room.config
    texts = {"sinname": config.name, "sindescription": config.description, "sinaddr": room.address}
    text = "\n".join(texts[place] for place in places).casefold()
    return all(term in text for term in terms)


def _key(values: Mapping[str, tuple[str, ...]]) -> str:
    key = (values.get("key") or (_BY_USERS,))[0]
    if key not in (_BY_ADDRESS, _BY_USERS):
        raise _error("feature-not-implemented", "invalid-sort-key", "rooms are sorted by address or by users")
    return key


def _least(values: Mapping[str, tuple[str, ...]]) -> int:
    text = (values.get("min_users") or ("0",))[0].strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise StanzaError("bad-request", "min_users is not a number")
    return int(text)


def _error(
    condition: str, detail: str, text: str, children: tuple[Element, ...] = (), *, kind: str = "modify"
) -> StanzaError:
    application = Element(detail, ns.CHANNEL_SEARCH_ERRORS, {}, children)
    return StanzaError(condition, text, kind=kind, application=application)


def too_fast(text: str) -> StanzaError:
    """The refusal of a search by somebody who asks too much (section 4.2.5)."""
    return StanzaError(
        "resource-constraint", text, kind="wait", application=Element("rate-limit", ns.CHANNEL_SEARCH_ERRORS)
    )


def _item(room: Room) -> Element:
    config = room.config
    texts = {
        "name": config.name or room.jid.local,
        "description": config.description,
        "language": config.language,
        "nusers": str(len(room.occupants)),
        "service-type": _TYPE,
        "is-open": "false" if config.members_only or config.password else "true",
        "anonymity-mode": "{urn:xmpp:channel-search:0:anonymity}none" if config.non_anonymous else "muc_semianonymous",
    }
    children = tuple(Element(name, ns.CHANNEL_SEARCH, {}, (text,)) for name, text in texts.items() if text)
    return Element("item", ns.CHANNEL_SEARCH, {"address": room.address}, children)


def _form() -> Element:
    entries = (
        Field("q", label="Search for"),
        Field("all", "boolean", ("false",), "Everything"),
        Field("sinname", "boolean", ("true",), "Search in names"),
        Field("sindescription", "boolean", ("true",), "Search in descriptions"),
        Field("sinaddr", "boolean", ("true",), "Search in addresses"),
        Field("min_users", values=("0",), label="The fewest people there"),
        Field("types", "list-multi", (_TYPE,), "Kinds of rooms", (("Rooms of XEP-0045", _TYPE),)),
        Field("key", "list-single", (_BY_USERS,), "Sort by", (("People there", _BY_USERS), ("Address", _BY_ADDRESS))),
    )
    return form("form", ns.CHANNEL_SEARCH_PARAMS, entries, title="Search for rooms")
