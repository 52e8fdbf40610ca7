"""Nodes of personal eventing that are another node's content in an older form: kept nowhere, for the account alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from moim.chat.feature import Iq, NodeView
from moim.chat.pep_config import Config
from moim.chat.pep_events import items_element
from moim.chat.pep_store import Item, pubsub_error
from moim.proto.xmpp import Element, ns

ONLY: Final = "current"
"""The name of the item."""


class View(Protocol):
    """A node that shows, as one item, what the node ``source`` has in another form."""

    config: Config
    source: str

    async def read(self, owner: str) -> Element:
        """What the item has; without children when there is no item."""
        ...

    async def write(self, owner: str, content: Element) -> None:
        """Takes what the item is to have. Raises StanzaError."""
        ...


async def current(view: View, owner: str, node: str) -> Item:
    """The item as it is now, which may be empty."""
    return Item(owner, node, ONLY, (await view.read(owner)).to_xml(""))


async def items(view: View, iq: Iq, request: Element, node: str) -> Element:
    """The answer to a request for items. Raises StanzaError for others than the account."""
    if not iq.own:
        raise pubsub_error("not-allowed", "closed-node")
    names = [child.get("id") for child in request.elements() if child.name == "item"]
    there = (await view.read(str(iq.to))).children and (not names or ONLY in names)
    return items_element(node, ns.PUBSUB, *([await current(view, str(iq.to), node)] if there else ()))


async def publish(view: View, owner: str, content: Element, options: Mapping[str, Any]) -> None:
    """Takes an item. Raises StanzaError where ``options`` as a precondition are not met, or the content is refused."""
    if options.get("access_model", view.config.access_model) != view.config.access_model:
        raise pubsub_error("conflict", "precondition-not-met", "the node is for the account alone")
    await view.write(owner, content)


async def described(view: View, iq: Iq) -> NodeView | None:
    """What discovery says of the node; None for others than the account."""
    if not iq.own:
        return None
    there = (await view.read(str(iq.to))).children
    return NodeView(("pubsub", "leaf", ""), (ns.PUBSUB,), (("", ONLY),) if there else ())
