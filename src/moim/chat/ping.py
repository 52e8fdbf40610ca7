"""XEP-0199 ping: the domain, and one's own account, answer."""

from __future__ import annotations

from moim.chat.feature import Feature, Iq, Payload
from moim.proto.xmpp import ns


def _answer(_iq: Iq) -> Payload:
    return ()


feature = Feature(
    name="XEP-0199 ping",
    server_vars=(ns.PING,),
    account_vars=(ns.PING,),
    server_iq={("get", ns.PING, "ping"): _answer},
    account_iq={("get", ns.PING, "ping"): _answer},
)
