"""XEP-0199 ping: the domain answers everybody, an account those who see its presence."""

from __future__ import annotations

from collections.abc import Awaitable

from moim.chat.feature import Feature, Iq, Payload
from moim.chat.rosters import Rosters
from moim.proto.xmpp import StanzaError, ns


def ping(rosters: Rosters) -> Feature:
    """The feature. To others an account that does not exist looks like one that does (RFC 6121 section 8.5.1)."""

    def server(_iq: Iq) -> Payload:
        return ()

    def account(iq: Iq) -> Payload | Awaitable[Payload]:
        return () if iq.own else another(iq)

    async def another(iq: Iq) -> Payload:
        if not (await rosters.get(str(iq.to))).item(str(iq.sender.bare)).state.seen:
            raise StanzaError("service-unavailable")
        return ()

    return Feature(
        name="XEP-0199 ping",
        server_vars=(ns.PING,),
        account_vars=(ns.PING,),
        server_iq={("get", ns.PING, "ping"): server},
        account_iq={("get", ns.PING, "ping"): account},
    )
