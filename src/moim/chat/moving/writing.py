"""Writes accounts as XEP-0227 has them, a user at a time and a page at a time, however much a user has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final
from xml.sax.saxutils import quoteattr

from moim.chat.archive import ids, keeping
from moim.chat.archive.keeping import Selection
from moim.chat.moving.credentials import write_credentials
from moim.chat.moving.messages import result_element
from moim.chat.moving.personal import node_elements, nodes_of
from moim.chat.moving.reading import MAM, PIE
from moim.chat.moving.taking import Parts
from moim.chat.roster import item_element
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.scram import ScramHash, ScramVerifier
from moim.store import Store

_PAGE: Final = 200
_PAGE_BYTES: Final = 1_048_576

HEAD: Final = f"<?xml version='1.0' encoding='UTF-8'?>\n<server-data xmlns='{PIE}'>"
TAIL: Final = "</server-data>\n"


class Giving:
    """Gives what the parts of the chat service keep for an account, as text to stand in ``<host/>``."""

    def __init__(self, parts: Parts, store: Store) -> None:
        self._parts = parts
        self._store = store

    async def user(self, owner: str, credentials: Mapping[ScramHash, ScramVerifier]) -> AsyncIterator[str]:
        """One ``<user/>`` in pieces. Raises Unavailable."""
        yield f"<user name={quoteattr(owner.partition('@')[0])}>"
        for element in write_credentials(credentials):
            yield element.to_xml(PIE)
        async for piece in self._kept(owner):
            yield piece
        async for piece in self._nodes(owner):
            yield piece
        async for piece in self._waiting(owner):
            yield piece
        async for piece in self._archived(owner):
            yield piece
        yield "</user>\n"

    async def _kept(self, owner: str) -> AsyncIterator[str]:
        roster = await self._parts.rosters.get(owner)
        if items := [item_element(item) for item in roster.stored.values() if item.listed]:
            yield Element("query", ns.ROSTER, {}, items).to_xml(PIE)
        for item in roster.requests():
            attrs = {"from": item.contact, "to": owner, "type": "subscribe"}
            yield (_parsed(item.request) or Element("presence", ns.CLIENT, attrs)).to_xml(PIE)
        if blocked := self._parts.block_lists.of(owner):
            named = [Element("item", ns.BLOCKING, {"jid": address}) for address in sorted(blocked)]
            yield Element("blocklist", ns.BLOCKING, {}, named).to_xml(PIE)
        if (vcard := await self._parts.vcards.stored(owner)) is not None:
            yield vcard.to_xml(PIE)
        kept = [await self._parts.private.load(owner, wanted) for wanted in await self._parts.private.keys(owner)]
        if kept := [content for content in kept if content.children]:
            yield Element("query", ns.PRIVATE, {}, kept).to_xml(PIE)

    async def _nodes(self, owner: str) -> AsyncIterator[str]:
        nodes = await nodes_of(self._parts.pep_store, owner)
        if not nodes:
            return
        configured = [element for node, config in nodes for element in node_elements(node, config)]
        yield Element("pubsub", ns.PUBSUB_OWNER, {}, configured).to_xml(PIE)
        yield f"<pubsub xmlns='{ns.PUBSUB}'>"
        for node, _ in nodes:
            items = []
            for item in await self._parts.pep_store.items(owner, node):
                if (payload := _parsed(item.payload)) is not None:
                    items.append(Element("item", ns.PUBSUB, {"id": item.name}, (payload,)))
            if items:
                yield Element("items", ns.PUBSUB, {"node": node}, items).to_xml(ns.PUBSUB)
        yield "</pubsub>"

    async def _waiting(self, owner: str) -> AsyncIterator[str]:
        last, begun = 0, False
        while page := await self._parts.offline.waiting(owner, last):
            if not begun:
                begun = True
                yield "<offline-messages>"
            yield "".join(message.to_xml(PIE) for _, message in page)
            last = page[-1][0]
        if begun:
            yield "</offline-messages>"

    async def _archived(self, owner: str) -> AsyncIterator[str]:
        key, last, begun = ids.key(owner), -1, False
        names = self._parts.plane.archive_ids
        while True:
            selection = Selection(key, after=last)
            page = await self._store.read(
                lambda connection, wanted=selection: keeping.page(  # type: ignore[misc]
                    connection, wanted, most=_PAGE, most_bytes=_PAGE_BYTES, backwards=False
                )
            )
            if page.found and not begun:
                begun = True
                yield f"<archive xmlns='{MAM}'>"
            for found in page.found:
                last = found.id
                if (message := _parsed(found.stanza)) is not None:
                    yield result_element(found.id, names.write(owner, found.id), message).to_xml(MAM)
            if page.complete:
                break
        if begun:
            yield "</archive>"


def _parsed(text: str | None) -> Element | None:
    """What is stored; None for what cannot be read any more, which an export does without."""
    try:
        return Element.parse(text) if text else None
    except ProtocolError:
        return None
