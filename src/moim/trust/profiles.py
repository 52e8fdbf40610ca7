"""What each purpose of a certificate needs, as data: key, usages, names, who presents it.

The usages are those of the vendor's tables of certificate requests, one row per system that presents the purpose. A
purpose that two systems of one node share carries the usages of both. EC keys drop the two encipherment bits,
which RFC 8813 section 3 forbids for them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from moim.errors import NotFound

System = Literal["call-manager", "im-presence", "edge"]
KeyType = Literal["ec", "rsa"]
KeyUse = Literal["digital_signature", "key_encipherment", "data_encipherment", "key_cert_sign"]

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
IPSEC_END_SYSTEM = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.5")

SRV_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")

_SIGN: frozenset[KeyUse] = frozenset({"digital_signature"})
_SIGN_DATA: frozenset[KeyUse] = frozenset({"digital_signature", "data_encipherment"})
_SIGN_KEY: frozenset[KeyUse] = frozenset({"digital_signature", "key_encipherment"})
_SIGN_KEY_DATA: frozenset[KeyUse] = frozenset({"digital_signature", "key_encipherment", "data_encipherment"})
_TLS = frozenset({SERVER_AUTH, CLIENT_AUTH})
_TLS_IPSEC = _TLS | {IPSEC_END_SYSTEM}


@dataclass(frozen=True, slots=True)
class Place:
    """Where certificates are used: the domains, and the addresses of the nodes (IP addresses as text)."""

    domain: str
    """The service domain, which the nodes are named in."""
    inside: tuple[str, ...] = ()
    edge: tuple[str, ...] = ()
    here: str = "inside"
    """The name of the inside node that presents the certificate."""
    hosted: tuple[str, ...] = ()
    """Further domains whose users the nodes serve."""

    @property
    def host(self) -> str:
        """The DNS name of that node."""
        return f"{self.here}.{self.domain}"

    @property
    def domains(self) -> tuple[str, ...]:
        """Every domain, the service domain first."""
        return (self.domain, *self.hosted)


@dataclass(frozen=True, slots=True)
class Row:
    """What one system asks for in a request for a purpose: a line of the tables."""

    system: System
    multi_server: bool
    key_usage: frozenset[KeyUse]
    extended: frozenset[x509.ObjectIdentifier]


Names = Callable[[Place], list[x509.GeneralName]]


@dataclass(frozen=True, slots=True)
class Profile:
    """One purpose: its rows of the tables, the services that present it, its trust store and its names."""

    purpose: str
    rows: tuple[Row, ...]
    presented_by: tuple[str, ...]
    trust_store: str
    names: Names

    @property
    def multi_server(self) -> bool:
        """Whether one certificate may name every server of a cluster."""
        return all(row.multi_server for row in self.rows)

    def key_usage(self, key: KeyType) -> frozenset[KeyUse]:
        """The key usages of a certificate for this purpose with such a key."""
        wanted = frozenset[KeyUse]().union(*(row.key_usage for row in self.rows))
        if key == "ec":
            return wanted - {"key_encipherment", "data_encipherment"}
        return wanted

    @property
    def extended(self) -> frozenset[x509.ObjectIdentifier]:
        """The extended key usages."""
        return frozenset[x509.ObjectIdentifier]().union(*(row.extended for row in self.rows))


def srv_name(service: str, domain: str) -> x509.OtherName:
    """An SRVName, ``_service.domain``: RFC 4985 section 2; DER of an IA5String."""
    return x509.OtherName(SRV_NAME, _der_string(0x16, f"_{service}.{domain}".encode("ascii")))


def _der_string(tag: int, value: bytes) -> bytes:
    size = len(value)
    length = (
        bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else bytes([0x82, *divmod(size, 256)])
    )
    return bytes([tag]) + length + value


def _addresses(values: tuple[str, ...]) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(value)) for value in values if value]


def _dns(*names: str) -> list[x509.GeneralName]:
    return [x509.DNSName(name) for name in names]


def _web(place: Place) -> list[x509.GeneralName]:
    return [*_dns(place.host, *place.domains), *_addresses(place.inside)]


def _node(place: Place) -> list[x509.GeneralName]:
    return [x509.DNSName(place.host), *_addresses(place.inside)]


# COMPAT 2026-11: no XmppAddr beside these names. RFC 9525 has left it behind, and ejabberd 23.01 (Debian 12) crashes
# on a peer's certificate that has one; dNSName and SRVName say the same.
def _xmpp_client(place: Place) -> list[x509.GeneralName]:
    services = [srv_name(name, domain) for domain in place.domains for name in ("xmpp-client", "xmpp-server")]
    return [*_dns(place.domain, place.host, *place.hosted), *services]


def _xmpp_server(place: Place) -> list[x509.GeneralName]:
    # Group chat and the like are domains below the users' own.
    names = [name for domain in place.domains for name in (domain, f"*.{domain}")]
    return [*_dns(*names, place.host), *(srv_name("xmpp-server", domain) for domain in place.domains)]


def _edge(place: Place) -> list[x509.GeneralName]:
    services = [srv_name("collab-edge", domain) for domain in place.domains]
    return [*_dns(f"edge.{place.domain}", *place.domains), *services, *_addresses(place.edge)]


_CM: System = "call-manager"
_IMP: System = "im-presence"

PROFILES: dict[str, Profile] = {
    profile.purpose: profile
    for profile in (
        Profile(
            "tomcat",
            (Row(_CM, True, _SIGN_DATA, _TLS), Row(_IMP, True, _SIGN_KEY_DATA, _TLS)),
            ("web", "uds", "admin", "config-https"),
            "tomcat-trust",
            _web,
        ),
        Profile(
            "ipsec",
            (Row(_CM, False, _SIGN_KEY_DATA, _TLS_IPSEC), Row(_IMP, False, _SIGN_KEY_DATA, _TLS_IPSEC)),
            (),
            "ipsec-trust",
            _node,
        ),
        Profile("cup", (Row(_IMP, False, _SIGN_KEY_DATA, _TLS_IPSEC),), (), "cup-trust", _node),
        Profile(
            "cup-xmpp",
            (Row(_IMP, True, _SIGN_KEY_DATA, _TLS_IPSEC),),
            ("xmpp-client", "xmpp-client-tls", "xmpp-websocket", "edge-xmpp"),
            "cup-xmpp-trust",
            _xmpp_client,
        ),
        Profile("cup-xmpp-s2s", (Row(_IMP, True, _SIGN_KEY_DATA, _TLS_IPSEC),), (), "cup-xmpp-trust", _xmpp_server),
        Profile("CallManager", (Row(_CM, True, _SIGN_DATA, _TLS),), (), "CallManager-trust", _node),
        Profile(
            "CAPF",
            (Row(_CM, False, _SIGN | {"key_cert_sign"}, frozenset({SERVER_AUTH})),),
            (),
            "CAPF-trust",
            _node,
        ),
        Profile("TVS", (Row(_CM, False, _SIGN_KEY_DATA, _TLS),), (), "TVS-trust", _node),
        # The edge is no system of the tables: TLS for browsers, clients and the peers it dials.
        Profile("edge", (Row("edge", True, _SIGN_KEY, _TLS),), ("edge-https", "edge-web"), "edge-trust", _edge),
    )
}
"""Every purpose by its name."""

ECDSA = "-ECDSA"
"""What the name of a certificate ends with when its key is an elliptic curve's."""


def certificate_name(purpose: str, key: KeyType) -> str:
    """``tomcat`` with an EC key → ``tomcat-ECDSA``."""
    return purpose + (ECDSA if key == "ec" else "")


def profile_of(name: str) -> tuple[Profile, KeyType | None]:
    """A purpose, and the key type when ``name`` is that of one certificate: ``tomcat-ECDSA``. Raises NotFound."""
    profile = PROFILES.get(name.removesuffix(ECDSA))
    if profile is None:
        raise NotFound(f"there is no certificate purpose '{name}'", hint=f"purposes: {', '.join(PROFILES)}")
    return profile, "ec" if name.endswith(ECDSA) else None
