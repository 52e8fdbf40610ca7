"""The files as values in and XML out: service profile, client configuration, device configuration.

Section and parameter names of the service profile are those that public troubleshooting tools read; its root element
and the place of the IM and Presence product are not publicly documented, and chosen here alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from moim.proto.xmlout import document, element
from moim.provisioning.settings import CONFIG_SECTIONS, PROFILE_SECTIONS, Parameters
from moim.settings import Site

PRODUCT = "Unified CM (IM and Presence)"
"""IM and Presence on premises, in the vendor's words; clients take the authenticator from it."""

_PLACES = ("Primary", "Backup1", "Backup2")
_PLACE_PARTS = ("Address", "Port", "Protocol")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the services of the site are: the inside node's name, and ports as they are really bound.

    ``web_scheme`` is ``https``, or ``http`` on loopback.
    """

    host: str
    uds: int
    xmpp: int
    web: int
    web_scheme: str = "https"
    backups: tuple[str, ...] = ()
    """Further inside nodes, which offer the same."""

    @classmethod
    def of(cls, site: Site) -> Endpoints:
        """The catalogue's ports; the web app is plain HTTP where only this machine reaches it."""
        bind, loopback = site.settings.ports.bind, site.settings.nodes.inside.loopback
        web, scheme = (bind(8080), "http") if loopback else (bind(443), "https")
        first, *others = (f"{name}.{site.domain}" for name in site.inside_nodes)
        return cls(first, bind(8443), bind(5222), web, scheme, tuple(others[:2]))


def service_profile(endpoints: Endpoints, own: Parameters, *, relogin: tuple[int, int] = (120, 537)) -> bytes:
    """``SPDefault.cnf.xml``. Every section has its primary and backups, empty where the site has no such service.

    ``own`` is what the administrator set: it wins. ``relogin`` are the limits in seconds between which a client waits
    before it signs in again after a failure.
    """
    host = endpoints.host
    known: Parameters = {
        "Conferencing": _primary(host, endpoints.web, endpoints.web_scheme.upper()),
        "Directory": {"UseUDS": "true", "UseUserCredential": "true"} | _servers(endpoints, endpoints.uds, "HTTPS"),
        "IMandPresence": {
            "ProductType": PRODUCT,
            "ClientReLoginLowerLimit": str(relogin[0]),
            "ClientReLoginUpperLimit": str(relogin[1]),
        }
        | _servers(endpoints, endpoints.xmpp, "TCP"),
    }
    empty = {f"{place}{part}": "" for place in _PLACES for part in _PLACE_PARTS}
    sections = {name: empty | known.get(name, {}) | own.get(name, {}) for name in PROFILE_SECTIONS}
    return document(_sections("ServiceProfile", PROFILE_SECTIONS, sections))


def client_config(own: Parameters) -> bytes:
    """``jabber-config.xml``: what the administrator set, by section. The service profile wins over it."""
    directory = {"DirectoryServerType": "UDS"} | own.get("Directory", {})
    return document(_sections("config", CONFIG_SECTIONS, own | {"Directory": directory}))


def device_config(name: str, user_id: str, protocol: str) -> bytes:
    """``CSF<USER>.cnf.xml``: whose device it is. It lists no call managers while the site routes no calls."""
    return document(
        element(
            "device",
            element("fullConfig", True),
            element("deviceName", name),
            element("deviceProtocol", protocol),
            element("userId", user_id),
            element("devicePool", element("callManagerGroup", element("members"))),
            element("vendorConfig"),
            element("ciscoSupportField"),
        )
    )


def _primary(host: str, port: int, protocol: str) -> dict[str, str]:
    return {"PrimaryAddress": host, "PrimaryPort": str(port), "PrimaryProtocol": protocol}


def _servers(endpoints: Endpoints, port: int, protocol: str) -> dict[str, str]:
    """Every inside node: the first is the primary, the others back it up."""
    found: dict[str, str] = {}
    for place, host in zip(_PLACES, (endpoints.host, *endpoints.backups), strict=False):
        found |= {f"{place}Address": host, f"{place}Port": str(port), f"{place}Protocol": protocol}
    return found


def _sections(root: str, names: tuple[str, ...], values: Mapping[str, Mapping[str, str]]) -> Element:
    made = element(root, version="1.0")
    for name in names:
        if name in values:
            made.append(element(name, *(element(key, value) for key, value in values[name].items())))
    return made
