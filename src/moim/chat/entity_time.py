"""XEP-0202 entity time: the server's clock in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from moim.chat.feature import Feature, Iq, Payload
from moim.proto.xmpp import Element, ns, timestamp


def _answer(_iq: Iq) -> Payload:
    zone = Element("tzo", ns.TIME, {}, ("+00:00",))
    utc = Element("utc", ns.TIME, {}, (timestamp(datetime.now(UTC)),))
    return (Element("time", ns.TIME, {}, (zone, utc)),)


feature = Feature(
    name="XEP-0202 entity time",
    server_vars=(ns.TIME,),
    server_iq={("get", ns.TIME, "time"): _answer},
)
