"""Explicit subscriptions to nodes of accounts (XEP-0060 sections 5.6, 5.7, 6.1, 6.2 and 8.8): what is asked about them.

Whoever may read a node may subscribe, with their bare or their full address. They hear of every change for as long as
they may read it and are there; nothing waits for those who are not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from moim.chat.feature import Iq, Payload
from moim.chat.pep_events import PepEvents
from moim.chat.pep_store import PepStore, node_name, pubsub_error
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns

Handler = Callable[[Iq, Element], Awaitable[Payload]]
"""Answers a request to an account by its child."""


class PepSubscribing:
    """Requests about subscriptions, and about what somebody is to a node; ``get`` and ``set`` by the child's name."""

    def __init__(self, store: PepStore, events: PepEvents) -> None:
        self._store = store
        self._subscribers = store.subscribers
        self._events = events
        self.get: Mapping[str, Handler] = {"subscriptions": self._subscriptions, "affiliations": self._affiliations}
        self.set: Mapping[str, Handler] = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}
        self.get_owner: Mapping[str, Handler] = {"subscriptions": self._subscribers_of}
        self.set_owner: Mapping[str, Handler] = {"subscriptions": self._end_subscriptions}

    async def _subscribe(self, iq: Iq, request: Element) -> Payload:
        owner, node, jid = str(iq.to), node_name(request), _own_jid(iq, request)
        if iq.payload.find("options", ns.PUBSUB) is not None:
            raise pubsub_error("feature-not-implemented", "unsupported", feature="subscription-options")
        config = await self._store.existing(owner, node)
        await self._events.check(owner, config, iq.sender)
        await self._subscribers.add(owner, node, jid)
        if config.send_last_published_item != "never":
            await self._events.introduce_subscriber(owner, jid, node)
        attrs = {"node": node, "jid": str(jid), "subscription": "subscribed"}
        return (answer(ns.PUBSUB, Element("subscription", ns.PUBSUB, attrs)),)

    async def _unsubscribe(self, iq: Iq, request: Element) -> Payload:
        owner, node, jid = str(iq.to), node_name(request), _jid(request)
        if jid.bare != iq.sender.bare:
            raise StanzaError("forbidden", "everybody ends their own subscriptions")
        await self._store.existing(owner, node)
        if not await self._subscribers.remove(owner, node, jid):
            raise pubsub_error("unexpected-request", "not-subscribed")
        return ()

    async def _subscriptions(self, iq: Iq, request: Element) -> Payload:
        """What the sender has subscribed to at this account."""
        asked = request.get("node")
        found = tuple(
            Element("subscription", ns.PUBSUB, {"node": node, "jid": jid, "subscription": "subscribed"})
            for node, jid in await self._subscribers.of_reader(str(iq.to), str(iq.sender.bare))
            if asked in (None, node)
        )
        attrs = {"node": asked} if asked else {}
        return (answer(ns.PUBSUB, Element("subscriptions", ns.PUBSUB, attrs, found)),)

    async def _affiliations(self, iq: Iq, request: Element) -> Payload:
        """What the sender is to the nodes of this account."""
        asked, bare = request.get("node"), str(iq.sender.bare)
        found = tuple(
            Element("affiliation", ns.PUBSUB, {"node": node, "affiliation": "owner" if iq.own else "member"})
            for node, config in (await self._store.nodes(str(iq.to))).items()
            if asked in (None, node) and (iq.own or bare in config.members)
        )
        attrs = {"node": asked} if asked else {}
        return (answer(ns.PUBSUB, Element("affiliations", ns.PUBSUB, attrs, found)),)

    # --- the owner ----------------------------------------------------------------------------------------------

    async def _subscribers_of(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        await self._store.existing(owner, node)
        found = tuple(
            Element("subscription", ns.PUBSUB_OWNER, {"jid": jid, "subscription": "subscribed"})
            for jid in await self._subscribers.of_node(owner, node)
        )
        return (answer(ns.PUBSUB_OWNER, Element("subscriptions", ns.PUBSUB_OWNER, {"node": node}, found)),)

    async def _end_subscriptions(self, iq: Iq, request: Element) -> Payload:
        owner, node = iq.owner.bare, node_name(request)
        await self._store.existing(owner, node)
        ended = []
        for child in request.elements():
            if child.get("subscription") != "none":
                raise StanzaError("not-acceptable", "an owner ends subscriptions; others make their own")
            ended.append(_jid(child))
        for jid in ended:
            await self._subscribers.remove(owner, node, jid)
        return ()


def answer(namespace: str, child: Element) -> Element:
    """The payload of an answer with one child."""
    return Element("pubsub", namespace, {}, (child,))


def _jid(element: Element) -> Jid:
    try:
        return Jid.parse(element.get("jid") or "")
    except ProtocolError as error:
        raise pubsub_error("bad-request", "invalid-jid", error.message) from None


def _own_jid(iq: Iq, request: Element) -> Jid:
    """The address that subscribes: the sender's, bare or full."""
    jid = _jid(request)
    if jid not in (iq.sender, iq.sender.bare):
        raise pubsub_error("bad-request", "invalid-jid", "everybody subscribes for themselves")
    return jid
