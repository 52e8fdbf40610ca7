"""XEP-0030 service discovery: says what the listed features declare, so that it is always the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moim.chat.accounts import Accounts
from moim.chat.feature import Feature, Iq, IqKey, NodeView, Payload
from moim.chat.rosters import Rosters
from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.caps import verification


class Discovery:
    """Answers ``disco#info`` and ``disco#items`` for each hosted domain and its accounts, from ``features``."""

    def __init__(self, name: str, *, accounts: Accounts, rosters: Rosters) -> None:
        self._name = name
        self._accounts = accounts
        self._rosters = rosters
        self._features: Sequence[Feature] = ()
        self._caps_nodes: dict[str, str] = {}
        self._components: Callable[[str], Sequence[tuple[str, str]]] = lambda domain: ()
        info: IqKey = ("get", ns.DISCO_INFO, "query")
        items: IqKey = ("get", ns.DISCO_ITEMS, "query")
        variables = (ns.DISCO_INFO, ns.DISCO_ITEMS)
        self.feature = Feature(
            name="XEP-0030 service discovery",
            server_vars=variables,
            account_vars=variables,
            server_iq={info: self._server_info, items: self._server_items},
            account_iq={info: self._account_info, items: self._account_items},
        )

    def describe(
        self,
        features: Sequence[Feature],
        components: Callable[[str], Sequence[tuple[str, str]]],
    ) -> None:
        """The features to speak of, and domain and name of each domain's components."""
        self._features = features
        self._components = components

    def caps(self, domain: str, node: str) -> Element:
        """What the stream announces of the server (XEP-0115 section 6.3); ``node`` is a URI."""
        version = verification(self._server(domain), "sha-1") or ""
        self._caps_nodes[domain] = f"{node}#{version}"
        return Element("c", ns.CAPS, {"hash": "sha-1", "node": node, "ver": version})

    def _server(self, domain: str, node: str | None = None) -> Element:
        variables = {var for feature in self._features for var in feature.server_vars}
        forms = [form for feature in self._features for form in feature.server_forms]
        for feature in self._features:
            if feature.domain_vars is not None:
                variables.update(feature.domain_vars(domain))
            if feature.domain_forms is not None:
                forms += feature.domain_forms(domain)
        info = _info([("server", "im", self._name)], sorted(variables), node)
        return info.with_children((*info.children, *forms))

    def _server_info(self, iq: Iq) -> Payload:
        node = iq.payload.get("node")
        if node is not None and node == self._caps_nodes.get(iq.to.domain):
            return (self._server(iq.to.domain, node),)
        if (view := self._node(iq)) is not None:
            return (_info([view.identity], view.variables, node),)
        return (self._server(iq.to.domain),)

    def _node(self, iq: Iq) -> NodeView | None:
        """What features say of the node that is asked for; None when none is. Raises StanzaError for nobody's node."""
        node = iq.payload.get("node")
        if not node:
            return None
        for feature in self._features:
            if feature.server_node is not None and (view := feature.server_node(iq, node)) is not None:
                return view
        raise StanzaError("item-not-found", "there is no such node")

    def _server_items(self, iq: Iq) -> Payload:
        if (view := self._node(iq)) is not None:
            attrs = {"jid": str(iq.to)}
            below = [Element("item", ns.DISCO_ITEMS, attrs | {"node": n, "name": name}) for n, name in view.items]
            return (Element("query", ns.DISCO_ITEMS, {"node": iq.payload.get("node") or ""}, tuple(below)),)
        services = [*self._components(iq.to.domain)]
        for feature in self._features:
            if feature.server_items is not None:
                services += feature.server_items()
        found = [Element("item", ns.DISCO_ITEMS, {"jid": jid, "name": name}) for jid, name in services]
        return (Element("query", ns.DISCO_ITEMS, {}, tuple(found)),)

    async def _account_info(self, iq: Iq) -> Payload:
        if (view := await self._account_node(iq)) is not None:
            return (_info([view.identity], view.variables, iq.payload.get("node")),)
        if not await self._visible(iq):
            raise StanzaError("service-unavailable")
        _no_node(iq)
        offered = [f for f in self._features if f.offered is None or f.offered(str(iq.to))]
        variables = sorted({var for feature in offered for var in feature.account_vars})
        others = [(*identity, "") for feature in self._features for identity in feature.account_identities]
        return (_info([("account", "registered", ""), *others], variables),)

    async def _account_items(self, iq: Iq) -> Payload:
        """The resources of an account are for those who see its presence; others find nothing (XEP-0030 section 8)."""
        if (view := await self._account_node(iq)) is not None:
            attrs = {"jid": str(iq.to)}
            below = [
                Element("item", ns.DISCO_ITEMS, attrs | ({"node": n} if n else {}) | {"name": name})
                for n, name in view.items
            ]
            return (Element("query", ns.DISCO_ITEMS, {"node": iq.payload.get("node") or ""}, tuple(below)),)
        if not await self._visible(iq):
            return (Element("query", ns.DISCO_ITEMS, {"node": node} if (node := iq.payload.get("node")) else {}),)
        _no_node(iq)
        account = self._accounts.get(str(iq.to))
        sessions = account.available() if account is not None else ()
        found = [Element("item", ns.DISCO_ITEMS, {"jid": str(s.full)}) for s in sessions if s.jid != iq.sender]
        for feature in self._features:
            if feature.account_items is not None:
                found += await feature.account_items(iq)
        return (Element("query", ns.DISCO_ITEMS, {}, tuple(found)),)

    async def _account_node(self, iq: Iq) -> NodeView | None:
        """What features say of the account's node that is asked for; None when none is, or it is not for the asker."""
        node = iq.payload.get("node")
        for feature in self._features if node else ():
            if feature.account_node is not None and (view := await feature.account_node(iq, node or "")) is not None:
                return view
        return None

    async def _visible(self, iq: Iq) -> bool:
        if iq.own:
            return True
        return (await self._rosters.get(str(iq.to))).item(str(iq.sender.bare)).state.seen


def _no_node(iq: Iq) -> None:
    if iq.payload.get("node"):
        raise StanzaError("item-not-found", "there is no such node")


def _info(identities: Sequence[tuple[str, str, str]], variables: Sequence[str], node: str | None = None) -> Element:
    children = []
    for category, kind, name in identities:
        attrs = {"category": category, "type": kind} | ({"name": name} if name else {})
        children.append(Element("identity", ns.DISCO_INFO, attrs))
    children.extend(Element("feature", ns.DISCO_INFO, {"var": var}) for var in variables)
    return Element("query", ns.DISCO_INFO, {"node": node} if node else {}, tuple(children))
