"""XEP-0048 as it is today: the node ``storage:bookmarks`` of personal eventing, one item with all bookmarks.

It is a third face of the one list (XEP-0402 section 6): what private storage shows is read here, and written here.
"""

from __future__ import annotations

from typing import Final

from moim.chat.feature import Feature
from moim.chat.pep import Pep
from moim.chat.pep_config import Config
from moim.chat.pep_store import pubsub_error
from moim.chat.private import PrivateStorage
from moim.proto.xmpp import Element, ns

_LIST: Final = Element("storage", ns.STORAGE_BOOKMARKS)


class BookmarksNode:
    """The node, and who is told when the list changes: the account's own clients that ask for it."""

    config = Config(access_model="whitelist", send_last_published_item="never")
    source = ns.BOOKMARKS

    def __init__(self, pep: Pep, private: PrivateStorage) -> None:
        self._pep = pep
        self._private = private
        self._writing: set[str] = set()
        pep.show(ns.STORAGE_BOOKMARKS, self)
        pep.listen(ns.BOOKMARKS, self._changed)
        self.feature = Feature(
            name="XEP-0048 bookmarks in personal eventing",
            account_vars=(f"{ns.BOOKMARKS}#compat-pep",),
        )

    async def read(self, owner: str) -> Element:
        """The whole list; without children when there is no bookmark."""
        return await self._private.load(owner, _LIST)

    async def write(self, owner: str, content: Element) -> None:
        """Takes a whole list. Raises StanzaError for what is none, or where a bound is not met."""
        if (content.ns, content.name) != (_LIST.ns, _LIST.name):
            raise pubsub_error("bad-request", "invalid-payload", "a list of bookmarks is expected")
        self._writing.add(owner)
        try:
            await self._private.save(owner, [content])
        finally:
            self._writing.discard(owner)
            await self._changed(owner)

    async def _changed(self, owner: str) -> None:
        if owner not in self._writing and self._pep.wanted(owner, ns.STORAGE_BOOKMARKS):
            await self._pep.tell_of_view(owner, ns.STORAGE_BOOKMARKS)
