"""Personal eventing (XEP-0060, XEP-0163) in exports: nodes with their configuration and items, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from moim.chat.moving.outcome import Outcome
from moim.chat.pep_config import FORM, Config, changes, with_members
from moim.chat.pep_store import PepStore
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form, read_form

_MAX_NAME: Final = 1023


async def take_nodes(
    store: PepStore, owner: str, pieces: Sequence[Element], outcome: Outcome, *, dry_run: bool
) -> None:
    """Takes nodes over: configuration first, then items, oldest first. Fields that mean nothing here are left out."""
    most = store.bounds(owner).items
    configs: dict[str, Config] = {}
    items: dict[str, dict[str, Element]] = {}
    for child in (child for piece in pieces for child in piece.elements()):
        node = child.get("node") or ""
        if node == ns.STORAGE_BOOKMARKS:
            continue  # taken as private data
        if not 0 < len(node) <= _MAX_NAME:
            outcome.leave("personal nodes without a usable name")
        elif child.name == "configure":
            configs[node] = _configured(child, configs.get(node, Config()), most)
        elif child.name == "affiliations":
            configs[node] = _members(child, configs.get(node, Config()))
        elif child.name == "items":
            for item in child.elements():
                items.setdefault(node, {})[item.get("id") or "current"] = item
    for node in dict.fromkeys((*configs, *items)):
        try:
            await _take_node(store, owner, node, configs.get(node), items.get(node, {}), outcome, dry_run)
        except StanzaError as error:
            outcome.leave(f"personal items: {error.message}")


async def _take_node(
    store: PepStore,
    owner: str,
    node: str,
    wanted: Config | None,
    items: dict[str, Element],
    outcome: Outcome,
    dry_run: bool,
) -> None:
    config, bounds = await store.config(owner, node), store.bounds(owner)
    if config is None:
        config = wanted or Config(max_items=min(max(len(items), 1), bounds.items))
        outcome.new["nodes"] += 1
        if not dry_run:
            await store.create(owner, node, config)
    elif wanted is not None:
        if config == wanted:
            outcome.same["nodes"] += 1
        else:
            outcome.conflict(f"node {node}: is here already, configured otherwise")
    known = {item.name: item.payload for item in await store.items(owner, node)}
    new: list[tuple[str, str]] = []
    for name, item in items.items():
        payload = item.elements()
        if len(payload) != 1 or len(name) > _MAX_NAME:
            outcome.leave("personal items without exactly one payload")
            continue
        text = payload[0].to_xml("")
        if len(text.encode()) > bounds.item_bytes:
            outcome.leave(f"personal items of more than {bounds.item_bytes} bytes")
        elif name not in known:
            new.append((name, text))
        elif known[name] == text:
            outcome.same["items"] += 1
        else:
            outcome.conflict(f"node {node}, item {name[:100]}: is here already, otherwise")
    # The newest are kept; a node that is full takes nothing, so that taking again changes nothing.
    room = max(min(config.max_items, bounds.items) - len(known), 0)
    if len(new) > room:
        outcome.left["older personal items than their nodes keep"] += len(new) - room
        new = new[len(new) - room :]
    outcome.new["items"] += len(new)
    if not dry_run:
        for name, text in new:
            await store.publish(owner, node, name, text, {}, config)


def _configured(element: Element, config: Config, most_items: int) -> Config:
    found = element.find("x", ns.DATA_FORMS)
    if found is None:
        return config
    try:
        _, fields = read_form(found)
    except StanzaError:
        return config
    values: dict[str, Any] = {}
    for var, given in fields.items():
        try:
            values |= changes(form("submit", FORM, [Field(var, "text-multi", given)]), FORM, most_items=most_items)
        except StanzaError:
            continue  # a field that has no meaning here, or a value
    return replace(config, **values)


def _members(element: Element, config: Config) -> Config:
    for child in element.elements():
        try:
            config = with_members(config, element.with_children((child,)))
        except (StanzaError, ProtocolError):
            continue  # owners and publishers: here only the account is that
    return config


async def nodes_of(store: PepStore, owner: str) -> Sequence[tuple[str, Config]]:
    """The nodes of an account with their configuration."""
    return tuple((await store.nodes(owner)).items()) if store.has_nodes(owner) else ()


def node_elements(node: str, config: Config) -> Iterator[Element]:
    """A node's configuration and whitelist for an export."""
    shown = config.element().with_attrs({"type": "submit"})
    yield Element("configure", ns.PUBSUB_OWNER, {"node": node}, (shown,))
    if config.members:
        members = [
            Element("affiliation", ns.PUBSUB_OWNER, {"jid": jid, "affiliation": "member"}) for jid in config.members
        ]
        yield Element("affiliations", ns.PUBSUB_OWNER, {"node": node}, members)
