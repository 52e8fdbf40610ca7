"""Messages as rows: which archives a message belongs to, seen from each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

from moim.chat.archive import ids
from moim.chat.archive.keeping import EntryRow, MessageRow
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid

Record: TypeAlias = tuple[int, str, str, Sequence[str], Element]
"""Id, the sender's full JID, ``to``, the owners of the archives that it belongs to (bare JIDs), and the message."""


@lru_cache(maxsize=65_536)
def _address(text: str) -> tuple[str, int, int]:
    """The bare address, its key, and the key of the whole."""
    try:
        jid = Jid.parse(text)
    except ProtocolError:
        return "", 0, 0
    bare = str(jid.bare)
    return bare, ids.key(bare), ids.key(str(jid))


def rows(records: Iterable[Record], author: str | None = None) -> tuple[list[MessageRow], list[EntryRow]]:
    """The rows of messages. The other side of a conversation with oneself is oneself.

    With an ``author`` it is a room's archive: the other side is that real address, by the name ``sender`` in the room.
    """
    messages: list[MessageRow] = []
    entries: list[EntryRow] = []
    for identifier, sender, to, owners, element in records:
        text = element.to_xml("")
        size = len(text.encode())
        ref = ids.checksum(element.get("id"))
        source, target = _address(sender), _address(to)
        messages.append((identifier, len(owners), author, text))
        for owner in owners:
            if author is not None:
                peer, full = _address(author)[1], source[2]
            else:
                _, peer, full = target if source[0] == owner else source
            entries.append((ids.key(owner), identifier, peer, full, ref, size))
    return messages, entries
