"""How a message looks that is archived: nobody else speaks for the archive (XEP-0359 section 6)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, ns

_CLAIMS: Final = {(ns.STANZA_IDS, "stanza-id"): "by", (ns.DELAY, "delay"): "from"}


def cleaned(message: Element, ours: Collection[str]) -> Element:
    """The message without ids and delays that claim to come from one of us (XEP-0359 section 6, XEP-0203 section 4)."""
    kept = [child for child in message.children if isinstance(child, str) or _claims(child) not in ours]
    return message if len(kept) == len(message.children) else message.with_children(kept)


def _claims(child: Element) -> str | None:
    """Who is said to have added the child, in canonical form."""
    attribute = _CLAIMS.get((child.ns, child.name))
    text = child.get(attribute) if attribute is not None else None
    if text is None:
        return None
    try:
        return str(Jid.parse(text))
    except ProtocolError:
        return None


def stamped(message: Element, by: str, identifier: str) -> Element:
    """The message with what the archive of ``by`` calls it."""
    mark = Element("stanza-id", ns.STANZA_IDS, {"by": by, "id": identifier})
    return message.with_children((*message.children, mark))
