"""XEP-0402 bookmarks in one place: what older clients keep in private storage (XEP-0048) are the items of the PEP node.

Bookmarks of web pages, which only the older form has, stay in private storage.
"""

from __future__ import annotations

from moim.chat.feature import Feature
from moim.chat.pep import Pep
from moim.chat.pep_config import Config
from moim.chat.pep_store import PepStore
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns

_CHILDREN = ("nick", "password")


def bookmarks_config(max_items: int) -> Config:
    """How the node is made when a client does not say (XEP-0402 section 3): for the account alone."""
    return Config(access_model="whitelist", max_items=max_items, send_last_published_item="never")


class Bookmarks:
    """Reads and writes the rooms of ``storage:bookmarks`` as items of ``urn:xmpp:bookmarks:1``."""

    def __init__(self, pep: Pep, store: PepStore) -> None:
        self._pep = pep
        self._store = store
        self.feature = Feature(
            name="XEP-0402 bookmarks",
            account_vars=(f"{ns.BOOKMARKS}#compat",),
        )

    async def load(self, owner: str, kept: Element) -> Element:
        """The older form: the rooms as they are in PEP, then what is ``kept`` in private storage."""
        rooms = []
        for item in await self._store.items(owner, ns.BOOKMARKS):
            found = Element.parse(item.payload)
            if (found.ns, found.name) != (ns.BOOKMARKS, "conference"):
                continue
            attrs = {"jid": item.name} | {k: v for k in ("name", "autojoin") if (v := found.get(k)) is not None}
            rooms.append(Element("conference", ns.STORAGE_BOOKMARKS, attrs, _children(found, ns.STORAGE_BOOKMARKS)))
        return kept.with_children((*rooms, *(child for child in kept.elements() if child.name != "conference")))

    async def save(self, owner: str, content: Element) -> Element:
        """Makes the items what the older form says, and gives the rest to be kept. Raises StanzaError.

        What newer clients added to a bookmark (``<extensions/>``) stays with it.
        """
        wanted: dict[str, Element] = {}
        for child in content.elements():
            if (child.ns, child.name) == (ns.STORAGE_BOOKMARKS, "conference"):
                wanted[_room(child)] = child
        if len(wanted) > (most := self._store.bounds(owner).items):
            raise StanzaError("resource-constraint", f"there may be {most} bookmarks")
        present = {item.name: Element.parse(item.payload) for item in await self._store.items(owner, ns.BOOKMARKS)}
        for room, conference in wanted.items():
            before = present.get(room)
            after = _item(conference, before)
            if after != before:
                await self._pep.publish(owner, ns.BOOKMARKS, room, after)
        for room in present.keys() - wanted.keys():
            await self._pep.retract(owner, ns.BOOKMARKS, room)
        return content.with_children([child for child in content.elements() if child.name != "conference"])


def _item(conference: Element, before: Element | None) -> Element:
    attrs = {key: value for key in ("name", "autojoin") if (value := conference.get(key)) is not None}
    extensions = before.find("extensions", ns.BOOKMARKS) if before is not None else None
    children = _children(conference, ns.BOOKMARKS) + ((extensions,) if extensions is not None else ())
    return Element("conference", ns.BOOKMARKS, attrs, children)


def _children(conference: Element, namespace: str) -> tuple[Element, ...]:
    found = (conference.find(name) for name in _CHILDREN)
    return tuple(Element(child.name, namespace, {}, (child.text,)) for child in found if child is not None)


def _room(conference: Element) -> str:
    try:
        return str(Jid.parse(conference.get("jid") or "").bare)
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None
