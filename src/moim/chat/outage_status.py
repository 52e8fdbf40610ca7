"""XEP-0455 service outage status: where people look when this server cannot be reached, as the settings have it."""

from __future__ import annotations

from collections.abc import Sequence

from moim.chat.feature import Feature
from moim.proto.xmpp.dataform import Field, form

_NS = "urn:xmpp:sos:0"


def outage_status(addresses: Sequence[str]) -> Feature:
    """The feature that names these ``https:`` addresses, which should not be on this server; none, no form."""
    field = Field("external-status-addresses", "list-multi", tuple(addresses))
    return Feature(
        name="XEP-0455 service outage status",
        server_forms=(form("result", _NS, [field]),) if addresses else (),
    )
