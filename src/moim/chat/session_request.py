"""The session request of RFC 3921: RFC 6121 dropped it, old clients still send it, and it does nothing."""

from __future__ import annotations

from moim.chat.feature import Feature, Iq, Payload
from moim.proto.xmpp import Element, ns


def _answer(_iq: Iq) -> Payload:
    return ()


feature = Feature(
    name="RFC 3921 session request",
    server_iq={("set", ns.SESSION, "session"): _answer},
    account_iq={("set", ns.SESSION, "session"): _answer},
    # Marked optional, clients that know RFC 6121 skip the round trip (draft-cridland-xmpp-session).
    stream_features=(Element("session", ns.SESSION, {}, (Element("optional", ns.SESSION),)),),
)
