"""XEP-0163 personal eventing over XEP-0060: every account is a publish-subscribe service of its own.

Only the account publishes. Others hear of it by having its presence and asking for a node in their capabilities, or by
subscribing to a node (``pep_subscribing.py``).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from moim.chat import pep_views
from moim.chat.accounts import Session
from moim.chat.caps import Caps
from moim.chat.feature import Feature, Iq, Luggage, NodeView, Payload
from moim.chat.pep_config import FORM, OPTIONS, Config, changes, with_changes, with_members
from moim.chat.pep_events import PepEvents, items_element
from moim.chat.pep_store import Item, PepStore, check_name, node_name, pubsub_error
from moim.chat.pep_subscribing import Handler, PepSubscribing, answer
from moim.chat.pep_views import View
from moim.chat.plane import Plane
from moim.proto.xmpp import Element, StanzaError, ns, rsm

_MAX_ANSWER = 1_000_000  # bytes of items in one answer; the newest count
_MAX_LISTED = 500  # items of a node that discovery lists; the newest
_MAX_PAGE = 100  # items in one answer to a request for a page
_DEFAULT = Config()
_VARS: Final = (
    "access-open", "access-presence", "access-roster", "access-whitelist", "auto-create", "auto-subscribe",
    "config-node", "config-node-max", "create-and-configure", "create-nodes", "delete-items", "delete-nodes",
    "filtered-notifications", "instant-nodes", "item-ids", "last-published", "manage-subscriptions",
    "member-affiliation", "modify-affiliations", "multi-items", "persistent-items", "presence-notifications",
    "presence-subscribe", "publish", "publish-options", "purge-nodes", "retract-items", "retrieve-affiliations",
    "retrieve-default", "retrieve-items", "retrieve-subscriptions", "rsm", "subscribe",
)  # fmt: skip


class Pep:
    """Answers publish-subscribe requests to accounts, and publishes for other features.

    ``defaults``: how nodes of certain names are made where the client does not say, for as many items as there may be.
    """

    def __init__(
        self,
        store: PepStore,
        events: PepEvents,
        *,
        plane: Plane,
        max_caps: int,
        defaults: Mapping[str, Callable[[int], Config]] | None = None,
    ) -> None:
        self._store = store
        self._defaults = defaults or {}
        self._events = events
        self.caps = Caps(plane=plane, on_wants=self._wants, max_cached=max_caps)
        self._fresh: set[Session] = set()
        self._listeners: dict[str, Callable[[str], Awaitable[None]]] = {}
        self._views: dict[str, View] = {}
        self.on_sent: Callable[[str, str, str, Element | None], None] = lambda owner, node, config, change: None
        """Hears of every change: owner, node, its configuration as stored, and what its readers were sent."""
        asked = PepSubscribing(store, events)
        get = {"items": self._items, "default": self._default, **asked.get}
        get_owner = {
            "configure": self._configuration,
            "default": self._default,
            "affiliations": self._affiliations,
            **asked.get_owner,
        }
        change = {"publish": self._publish, "retract": self._retract, "create": self._create, **asked.set}
        change_owner = {
            "configure": self._configure,
            "delete": self._delete,
            "purge": self._purge,
            "affiliations": self._set_affiliations,
            **asked.set_owner,
        }
        self.feature = Feature(
            name="XEP-0163 personal eventing",
            account_vars=(ns.PUBSUB, *(f"{ns.PUBSUB}#{name}" for name in _VARS)),
            account_identities=(("pubsub", "pep"),),
            account_items=self._nodes,
            account_node=self._node,
            account_iq={
                ("get", ns.PUBSUB, "pubsub"): _one_of(get),
                ("set", ns.PUBSUB, "pubsub"): _one_of(change),
                ("get", ns.PUBSUB_OWNER, "pubsub"): _one_of(get_owner),
                ("set", ns.PUBSUB_OWNER, "pubsub"): _one_of(change_owner),
            },
            on_start=self._store.start,
            before_available=self._before_available,
            on_gone=self._gone,
            luggage=Luggage(lambda session: (session in self._fresh, self._events.told(session)), self._unpack),
            on_account_removed=store.drop,
        )

    def listen(self, node: str, changed: Callable[[str], Awaitable[None]]) -> None:
        """Calls ``changed(owner)`` after every change of that node."""
        self._listeners[node] = changed

    def show(self, node: str, view: View) -> None:
        """Answers for a node by ``view`` from now on, instead of the store."""
        self._views[node] = view

    def wanted(self, owner: str, node: str) -> bool:
        """Whether a session of the account itself, at this node of the site, wants to hear of a node."""
        return self._events.wanted(owner, node, self.caps)

    async def tell_of_view(self, owner: str, node: str) -> None:
        """Tells the sessions of an account, at this node of the site, what a view shows now."""
        view = self._views[node]
        change = items_element(node, ns.PUBSUB_EVENT, await pep_views.current(view, owner, node))
        await self._events.send(owner, node, view.config, change, self.caps, readers=())

    async def _tell(
        self, owner: str, node: str, config: Config, change: Element | None, readers: Sequence[str] | None = None
    ) -> None:
        if change is not None:
            await self._events.send(owner, node, config, change, self.caps, first=True, readers=readers)
        self.on_sent(owner, node, config.stored(), change)
        await self._changed(owner, node)

    async def taken_over(self, owner: str) -> None:
        """An account got nodes from another server: what follows from them is seen at once, on every node."""
        for node, config in (await self._store.nodes(owner)).items():
            self.on_sent(owner, node, config.stored(), None)
            await self._changed(owner, node)

    async def happened(self, owner: str, node: str, config: str, change: Element | None) -> None:
        """Another node changed a node of an account: those who are connected here hear of it. Raises ValueError."""
        if change is not None:
            await self._events.send(owner, node, Config.load(config), change, self.caps)
        await self._changed(owner, node)

    async def _changed(self, owner: str, node: str) -> None:
        listener = self._listeners.get(node)
        if listener is not None:
            await listener(owner)

    # --- what sessions want -------------------------------------------------------------------------------------

    def _before_available(self, session: Session, _priority: int) -> None:
        if not session.available:
            self._fresh.add(session)

    async def _wants(self, session: Session) -> None:
        anew = session in self._fresh
        self._fresh.discard(session)
        await self._events.introduce(session, self.caps, anew=anew)

    async def seen(self, owner: str, contact: str) -> None:
        """A contact may see an account's presence from now on: its clients get the last items that they want."""
        await self._events.introduce_contact(owner, contact, self.caps)

    def _unpack(self, session: Session, packed: Any) -> None:
        fresh, told = packed
        if fresh:
            self._fresh.add(session)
        self._events.remember(session, told)

    def _gone(self, session: Session) -> None:
        self._fresh.discard(session)
        self._events.gone(session)

    # --- publishing ---------------------------------------------------------------------------------------------

    async def publish(
        self, owner: str, node: str, name: str, payload: Element, options: Mapping[str, Any] | None = None
    ) -> None:
        """Publishes for an account. Raises StanzaError where a bound or ``options`` as a precondition are not met."""
        text = payload.to_xml("")
        if len(text.encode()) > (most := self._store.bounds(owner).item_bytes):
            raise pubsub_error("not-acceptable", "payload-too-big", f"an item has {most} bytes")
        config = await self._store.publish(owner, node, name, text, options or {}, self._new(owner, node))
        change = items_element(node, ns.PUBSUB_EVENT, Item(owner, node, name, text))
        await self._tell(owner, node, config, change)

    def _new(self, owner: str, node: str) -> Config:
        """How a node is made where the client does not say."""
        known = self._defaults.get(node)
        return known(self._store.bounds(owner).items) if known is not None else _DEFAULT

    async def retract(self, owner: str, node: str, name: str, *, notify: bool = True) -> None:
        """Takes an item back for an account. Raises StanzaError item-not-found."""
        config = await self._existing(owner, node)
        await self._store.retract(owner, node, name)
        gone = Element("retract", ns.PUBSUB_EVENT, {"id": name})
        change = Element("items", ns.PUBSUB_EVENT, {"node": node}, (gone,))
        await self._tell(owner, node, config, change if notify or config.notify_retract else None)

    async def _publish(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        items = [child for child in request.elements() if (child.ns, child.name) == (ns.PUBSUB, "item")]
        if len(items) != 1:
            raise pubsub_error("bad-request", "item-required", "one item is published at a time")
        payload = items[0].elements()
        if len(payload) != 1:
            raise pubsub_error("bad-request", "invalid-payload", "an item has exactly one payload")
        name = items[0].get("id") or secrets.token_urlsafe(12)
        check_name(name)
        if (view := self._views.get(node)) is not None:
            name = pep_views.ONLY
            await pep_views.publish(view, owner, payload[0], self._options(iq))
        else:
            await self.publish(owner, node, name, payload[0], self._options(iq))
        item = Element("item", ns.PUBSUB, {"id": name})
        return (answer(ns.PUBSUB, Element("publish", ns.PUBSUB, {"node": node}, (item,))),)

    def _options(self, iq: Iq) -> Mapping[str, Any]:
        options = iq.payload.find("publish-options", ns.PUBSUB)
        form = options.find("x", ns.DATA_FORMS) if options is not None else None
        most = self._store.bounds(iq.owner.bare).items
        return changes(form, OPTIONS, most_items=most) if form is not None else {}

    async def _retract(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        item = request.find("item", ns.PUBSUB)
        if item is None or not item.get("id"):
            raise pubsub_error("bad-request", "item-required")
        await self.retract(owner, node, item.get("id") or "", notify=request.get("notify") in ("1", "true"))
        return ()

    # --- reading ------------------------------------------------------------------------------------------------

    async def _items(self, iq: Iq, request: Element) -> Payload:
        node = node_name(request)
        if (view := self._views.get(node)) is not None:
            return (answer(ns.PUBSUB, await pep_views.items(view, iq, request, node)),)
        config = await self._readable(iq, node)
        if (asked := iq.payload.find("set", ns.RSM)) is not None:
            return await self._page(str(iq.to), node, rsm.read(asked), kept=config.persist_items)
        names = [child.get("id") or "" for child in request.elements() if child.name == "item"]
        newest = _newest(request.get("max_items"))
        found = await self._store.items(str(iq.to), node, names=names, newest=newest) if config.persist_items else []
        return (answer(ns.PUBSUB, items_element(node, ns.PUBSUB, *_fitting(found))),)

    async def _page(self, owner: str, node: str, request: rsm.Request, *, kept: bool) -> Payload:
        """One page of a node's items, oldest first (XEP-0060 section 6.5.4); shorter where they are large."""
        keys = await self._store.names(owner, node) if kept else []
        page = rsm.page(keys, request, usual=_MAX_PAGE, most=_MAX_PAGE)
        start, stop, about = page.start, page.stop, page.element
        names = keys[start:stop]
        found = {item.name: item for item in await self._store.items(owner, node, names=names)} if names else {}
        items = [found[name] for name in names if name in found]
        fitting = _fitting(items) if request.backwards else _fitting(items[::-1])[::-1]
        if len(fitting) < len(items):
            start = stop - len(fitting) if request.backwards else start
            about = rsm.about(fitting[0].name, fitting[-1].name, count=len(keys), index=start)
        return (Element("pubsub", ns.PUBSUB, {}, (items_element(node, ns.PUBSUB, *fitting), about)),)

    async def _readable(self, iq: Iq, node: str) -> Config:
        owner = str(iq.to)
        if iq.own and node in self._defaults:
            # A list that the server knows is there before its first item: Dino 0.4 never adds to one that is not.
            return await self._store.config(owner, node) or self._new(owner, node)
        config = await self._existing(owner, node)
        await self._events.check(owner, config, iq.sender)
        return config

    async def _existing(self, owner: str, node: str) -> Config:
        if node in self._views:
            raise StanzaError("not-allowed", "the server keeps this node as it is; publish to it")
        return await self._store.existing(owner, node)

    async def _nodes(self, iq: Iq) -> list[Element]:
        owner = str(iq.to)
        found = [
            node
            for node, config in (await self._store.nodes(owner)).items()
            if node not in self._views and await self._events.may(owner, config, iq.sender)
        ]
        found += [node for node, view in self._views.items() if iq.own and view.source in found]
        return [Element("item", ns.DISCO_ITEMS, {"jid": owner, "node": node}) for node in found]

    async def _node(self, iq: Iq, node: str) -> NodeView | None:
        owner = str(iq.to)
        if (view := self._views.get(node)) is not None:
            return await pep_views.described(view, iq)
        config = await self._store.config(owner, node)
        if config is None or not await self._events.may(owner, config, iq.sender):
            return None
        names = await self._store.names(owner, node)
        return NodeView(
            ("pubsub", "leaf", config.title), (ns.PUBSUB,), tuple(("", name) for name in names[-_MAX_LISTED:])
        )

    # --- the owner's nodes --------------------------------------------------------------------------------------

    async def _create(self, iq: Iq, request: Element) -> Payload:
        owner = iq.owner.bare
        node = request.get("node") or secrets.token_urlsafe(12)
        check_name(node)
        configure = iq.payload.find("configure", ns.PUBSUB)
        form = configure.find("x", ns.DATA_FORMS) if configure is not None else None
        wanted = changes(form, FORM, most_items=self._store.bounds(owner).items) if form is not None else {}
        if node in self._views:
            raise StanzaError("conflict", "there is such a node already")
        await self._store.create(owner, node, with_changes(self._new(owner, node), wanted))
        return (answer(ns.PUBSUB, Element("create", ns.PUBSUB, {"node": node})),)

    async def _default(self, iq: Iq, request: Element) -> Payload:
        return (answer(iq.payload.ns, Element("default", iq.payload.ns, {}, (_DEFAULT.element(),))),)

    async def _configuration(self, iq: Iq, request: Element) -> Payload:
        node = node_name(request)
        view = self._views.get(node)
        config = view.config if view is not None else await self._existing(iq.owner.bare, node)
        form = config.element(await self._events.groups(iq.owner.bare))
        return (answer(ns.PUBSUB_OWNER, Element("configure", ns.PUBSUB_OWNER, {"node": node}, (form,))),)

    async def _configure(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        config = await self._existing(owner, node)
        form = request.find("x", ns.DATA_FORMS)
        if form is None:
            raise StanzaError("bad-request", "a data form is expected")
        if form.get("type") != "cancel":
            wanted = changes(form, FORM, most_items=self._store.bounds(owner).items)
            await self._store.configure(owner, node, with_changes(config, wanted))
            await self._tell(owner, node, config, None)
        return ()

    async def _delete(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        config = await self._existing(owner, node)
        change = Element("delete", ns.PUBSUB_EVENT, {"node": node})
        readers = await self._store.subscribers.of_node(owner, node)
        await self._store.delete(owner, node)
        await self._tell(owner, node, config, change if config.notify_delete else None, readers)
        return ()

    async def _purge(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        config = await self._existing(owner, node)
        await self._store.purge(owner, node)
        change = Element("purge", ns.PUBSUB_EVENT, {"node": node})
        await self._tell(owner, node, config, change if config.notify_retract else None)
        return ()

    async def _affiliations(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        config = await self._existing(owner, node)
        who = {owner: "owner"} | dict.fromkeys(config.members, "member")
        children = tuple(
            Element("affiliation", ns.PUBSUB_OWNER, {"jid": jid, "affiliation": kind}) for jid, kind in who.items()
        )
        return (answer(ns.PUBSUB_OWNER, Element("affiliations", ns.PUBSUB_OWNER, {"node": node}, children)),)

    async def _set_affiliations(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        config = await self._existing(owner, node)
        await self._store.configure(owner, node, with_members(config, request, owner))
        return ()


def _one_of(table: Mapping[str, Handler]) -> Callable[[Iq], Awaitable[Payload]]:
    """A handler of requests that leaves each to the one for its first child."""

    async def handle(iq: Iq) -> Payload:
        first = next(iter(iq.payload.elements()), None)
        if first is None:
            raise StanzaError("bad-request", "the request asks for nothing")
        handler = table.get(first.name) if first.ns == iq.payload.ns else None
        if handler is None:
            raise pubsub_error("feature-not-implemented", "unsupported", feature=first.name[:64])
        return await handler(iq, first)

    return handle


def _newest(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9):
        raise StanzaError("bad-request", "max_items is a number")
    return int(text)


def _fitting(items: list[Item]) -> list[Item]:
    """The newest items that fit into one answer."""
    kept: list[Item] = []
    room = _MAX_ANSWER
    for item in reversed(items):
        room -= len(item.payload.encode())
        if room < 0 and kept:
            break
        kept.append(item)
    return kept[::-1]
