"""XEP-0157 contact addresses: whom to write to about this server, as the settings have it."""

from __future__ import annotations

from collections.abc import Callable

from moim.chat.feature import Feature
from moim.chat.settings import Settings
from moim.proto.xmpp import Element
from moim.proto.xmpp.dataform import Field, form

_SERVER_INFO = "http://jabber.org/network/serverinfo"


def contact_addresses(settings: Callable[[str], Settings]) -> Feature:
    """The feature that shows each domain's URIs (``mailto:``, ``xmpp:``, ``https:``)."""
    return Feature(name="XEP-0157 contact addresses", domain_forms=lambda domain: contact_forms(settings(domain)))


def contact_forms(settings: Settings) -> tuple[Element, ...]:
    """The form with the URIs, for discovery of a domain and of its services; no form where there are none."""
    given = {
        "abuse-addresses": settings.abuse_addresses,
        "admin-addresses": settings.admin_addresses,
        "support-addresses": settings.support_addresses,
    }
    fields = [Field(var, "list-multi", values) for var, values in given.items() if values]
    return (form("result", _SERVER_INFO, fields),) if fields else ()
