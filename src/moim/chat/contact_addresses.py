"""XEP-0157 contact addresses: whom to write to about this server, as the settings have it."""

from __future__ import annotations

from collections.abc import Sequence

from moim.chat.feature import Feature
from moim.proto.xmpp.dataform import Field, form

_SERVER_INFO = "http://jabber.org/network/serverinfo"


def contact_addresses(*, admin: Sequence[str], abuse: Sequence[str], support: Sequence[str]) -> Feature:
    """The feature that shows these URIs (``mailto:``, ``xmpp:``, ``https:``); none of them, no form."""
    given = {"abuse-addresses": abuse, "admin-addresses": admin, "support-addresses": support}
    fields = [Field(var, "list-multi", tuple(values)) for var, values in given.items() if values]
    return Feature(
        name="XEP-0157 contact addresses",
        server_forms=(form("result", _SERVER_INFO, fields),) if fields else (),
    )
