"""XEP-0092 software version: the program's name and version, not the operating system's."""

from __future__ import annotations

import moim
from moim.chat.feature import Feature, Iq, Payload
from moim.proto.xmpp import Element, ns


def _answer(_iq: Iq) -> Payload:
    name = Element("name", ns.VERSION, {}, ("Moim",))
    version = Element("version", ns.VERSION, {}, (moim.__version__,))
    return (Element("query", ns.VERSION, {}, (name, version)),)


feature = Feature(
    name="XEP-0092 software version",
    server_vars=(ns.VERSION,),
    server_iq={("get", ns.VERSION, "query"): _answer},
)
