"""XEP-0030 service discovery: says what the listed features declare, so that it is always the truth."""

from __future__ import annotations

from collections.abc import Sequence

from moim.chat.accounts import Accounts
from moim.chat.feature import Feature, Iq, IqKey, Payload
from moim.chat.rosters import Rosters
from moim.proto.xmpp import Element, StanzaError, ns


class Discovery:
    """Answers ``disco#info`` and ``disco#items`` for the domain and its accounts, from ``features``."""

    def __init__(self, name: str, *, accounts: Accounts, rosters: Rosters) -> None:
        self._name = name
        self._accounts = accounts
        self._rosters = rosters
        self._features: Sequence[Feature] = ()
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

    def describe(self, features: Sequence[Feature]) -> None:
        """The features to speak of; called once by the service."""
        self._features = features

    def _server_info(self, iq: Iq) -> Payload:
        _no_node(iq)
        variables = sorted({var for feature in self._features for var in feature.server_vars})
        return (_info(iq, ("server", "im", self._name), variables),)

    def _server_items(self, iq: Iq) -> Payload:
        _no_node(iq)
        return (Element("query", ns.DISCO_ITEMS),)

    async def _account_info(self, iq: Iq) -> Payload:
        await self._check_visible(iq)
        _no_node(iq)
        variables = sorted({var for feature in self._features for var in feature.account_vars})
        return (_info(iq, ("account", "registered", ""), variables),)

    async def _account_items(self, iq: Iq) -> Payload:
        """The resources of an account are for those who see its presence (XEP-0030 section 8)."""
        await self._check_visible(iq)
        _no_node(iq)
        account = self._accounts.get(str(iq.to))
        sessions = account.available() if account is not None else ()
        found = tuple(Element("item", ns.DISCO_ITEMS, {"jid": str(s.full)}) for s in sessions if s.jid != iq.sender)
        return (Element("query", ns.DISCO_ITEMS, {}, found),)

    async def _check_visible(self, iq: Iq) -> None:
        if iq.own:
            return
        roster = await self._rosters.get(str(iq.to))
        if not roster.item(str(iq.sender.bare)).state.seen:
            raise StanzaError("service-unavailable")


def _no_node(iq: Iq) -> None:
    if iq.payload.get("node"):
        raise StanzaError("item-not-found", "there is no such node")


def _info(iq: Iq, identity: tuple[str, str, str], variables: Sequence[str]) -> Element:
    category, kind, name = identity
    attrs = {"category": category, "type": kind} | ({"name": name} if name else {})
    children = [Element("identity", ns.DISCO_INFO, attrs)]
    children.extend(Element("feature", ns.DISCO_INFO, {"var": var}) for var in variables)
    return Element("query", ns.DISCO_INFO, {}, tuple(children))
