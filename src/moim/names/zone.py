"""A zone of the site as one view sees it: built once from the settings, then only looked up. Each domain has one.

The same domain holds different records inside and outside (split view): inside, the SRV records of the call manager's
user data service lead to the inside node; outside, ``_collab-edge._tls`` leads to the edge, and no name to the inside.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset
from dns.name import Name
from dns.rdatatype import RdataType
from dns.rrset import RRset

from moim.errors import ConfigError
from moim.names.settings import Record, Settings
from moim.settings import Site

View = Literal["inside", "outside"]

# Standard port numbers of the catalogue (docs/architecture.md); what is published is what is bound.
_UDS: Final = 8443
_EDGE: Final = 8443
_XMPP: Final = 5222
_XMPPS: Final = 5223
_INSIDE_SERVICES: Final = (
    ("_cisco-uds._tcp", _UDS), ("_cuplogin._tcp", _UDS), ("_xmpp-client._tcp", _XMPP), ("_xmpps-client._tcp", _XMPPS),
)  # fmt: skip
"""What every inside node offers; clients choose among them evenly, and try the others when one does not answer."""
_XMPP_SERVER: Final = 5269
_XMPPS_SERVER: Final = 5270

MAX_SET: Final = 16 * 1024
"""Largest set of records of one name and type, in bytes: several fit into a message."""

_ADDRESSES = (RdataType.A, RdataType.AAAA)
_MAX_CHAIN = 8
_WILDCARD = dns.name.Name((b"*",))


@dataclass(frozen=True, slots=True)
class Servers:
    """How other XMPP servers find the site: ``hosts`` are its domains (the site's own and those of rooms and the like).

    ``advertised`` and ``port`` are name and port in front of a NAT, for the outside view; empty and 0: the edge's own.
    Without ``enabled`` the records say that there is no such service (RFC 2782).
    """

    hosts: tuple[str, ...] = ()
    enabled: bool = True
    advertised: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What the zone holds for a question. ``answer`` empty with ``exists`` is NODATA, without it NXDOMAIN."""

    answer: tuple[RRset, ...]
    additional: tuple[RRset, ...]
    exists: bool
    negative: bool
    """Whether the SOA goes into the authority section: the (end of the) chain of names has no such data."""


class Zone:
    """An immutable zone. Names compare without case, as in the DNS."""

    def __init__(self, origin: Name, soa: RRset, sets: Iterable[RRset], *, negative_ttl: int) -> None:
        self.origin = origin
        self.soa = soa
        # RFC 2308 section 3: the SOA in a negative answer carries the lower of its own TTL and its last field.
        self.negative_soa = _copy(soa, soa.name, min(soa.ttl, negative_ttl))
        self._nodes: dict[Name, dict[RdataType, RRset]] = {}
        for rrset in (soa, *sets):
            self._nodes.setdefault(rrset.name, {})[rrset.rdtype] = rrset
        self._terminals: set[Name] = set(self._nodes)
        for name in tuple(self._nodes):
            for parent in _parents(name, origin):
                self._nodes.setdefault(parent, {})  # RFC 4592 section 2.2.2: empty non-terminals exist

    def holds(self, name: Name) -> bool:
        """Whether the name is at or below the zone's origin."""
        return name.is_subdomain(self.origin)

    def lookup(self, name: Name, kind: RdataType) -> Found:
        """Everything for one name and type, CNAMEs inside the zone followed. ``holds(name)`` must be true."""
        chain: list[RRset] = []
        for _ in range(_MAX_CHAIN):
            node = self._node(name)
            if node is None:
                return Found(tuple(chain), (), exists=bool(chain), negative=True)
            rrset = node.get(kind)
            if rrset is not None:
                chain.append(_owned(rrset, name))
                return Found(tuple(chain), tuple(self._glue(rrset, name)), exists=True, negative=False)
            alias = node.get(RdataType.CNAME)
            if alias is None:
                return Found(tuple(chain), (), exists=True, negative=True)
            chain.append(_owned(alias, name))
            name = alias[0].target
            if not self.holds(name):
                break
        return Found(tuple(chain), (), exists=True, negative=False)

    def exists(self, name: Name) -> bool:
        """Whether the name has records, stands above a name that has, or matches a wildcard."""
        return self._node(name) is not None

    def everything(self) -> Iterator[RRset]:
        """All sets but the SOA, for a zone transfer."""
        for name in sorted(self._terminals):
            for kind, rrset in self._nodes[name].items():
                if kind != RdataType.SOA:
                    yield rrset

    def _node(self, name: Name) -> dict[RdataType, RRset] | None:
        node = self._nodes.get(name)
        if node is not None:
            return node
        for encloser in _parents(name, self.origin):
            if encloser in self._nodes:
                return self._nodes.get(_WILDCARD + encloser)  # RFC 4592 section 4.3.3, at the closest encloser only
        return None

    def _glue(self, rrset: RRset, owner: Name) -> Iterator[RRset]:
        seen = {owner} if rrset.rdtype in _ADDRESSES else set()
        for rdata in rrset:
            target: Name | None = None
            if rrset.rdtype in (RdataType.SRV, RdataType.NS):
                target = rdata.target
            elif rrset.rdtype == RdataType.MX:
                target = rdata.exchange
            if target is None or target in seen or not self.holds(target):
                continue
            seen.add(target)
            node = self._node(target) or {}
            for kind in _ADDRESSES:
                if kind in node:
                    yield _owned(node[kind], target)


def build(
    site: Site, settings: Settings, view: View, *, serial: int, servers: Servers | None = None, domain: str = ""
) -> Zone:
    """The zone of one of a site's domains, by default the service domain, for one view.

    Only the service domain has the names of nodes; the others' records lead there. Raises ConfigError naming the record
    that cannot be served.
    """
    domain = domain or site.domain
    servers = servers or Servers((domain,))
    origin = dns.name.from_text(domain)
    sets: dict[tuple[Name, RdataType], RRset] = {}

    def add(owner: Name, kind: RdataType, value: str, ttl: int = 0) -> None:
        rdata = dns.rdata.from_text(dns.rdataclass.IN, kind, value, origin=origin, relativize=False)
        rrset = sets.setdefault((owner, kind), RRset(owner, dns.rdataclass.IN, kind))
        rrset.add(rdata, ttl or settings.ttl)

    def host(node: str, address: str) -> None:
        kind = RdataType.AAAA if ":" in address else RdataType.A
        if domain == site.domain:
            add(dns.name.from_text(node, origin), kind, address)
        if node != "edge" or view == "outside":
            add(origin, kind, address)

    def service(name: str, standard: int, target: str, weight: int = 0) -> None:
        value = f"0 {weight} {site.settings.ports.bind(standard)} {_node(site, target)}"
        add(dns.name.from_text(name, origin), RdataType.SRV, value)

    nodes = site.settings.nodes
    if view == "inside":
        master = site.here
        for name, node in site.inside_nodes.items():
            host(name, _published(name, node.address))
            for label, standard in _INSIDE_SERVICES:
                service(label, standard, name, _weight(site))
        host("edge", _published("edge", nodes.edge.address, nodes.edge.public_address))
    else:
        master = "edge"
        host("edge", _published("edge", nodes.edge.public_address or nodes.edge.address))
        service("_collab-edge._tls", _EDGE, "edge")
        service("_xmpp-client._tcp", _XMPP, "edge")
    for owner, value in _server_records(site, view, servers):
        if _zone_of(site, owner) == origin:
            add(owner, RdataType.SRV, value)
    add(origin, RdataType.NS, _node(site, master))
    for number, record in enumerate(settings.records):
        if record.view in (view, "both") and (record.domain or site.domain) == domain:
            try:
                add(_owner(record, origin), RdataType[record.type], record.value, record.ttl)
            except (dns.exception.DNSException, ValueError, UnicodeError) as error:
                raise ConfigError(
                    f"moim.toml: names.records[{number}] ({record.name} {record.type}) cannot be served: {error}",
                    hint="write the value as in a zone file",
                ) from None
    _check_aliases(sets)
    for (owner, kind), rrset in sets.items():
        if wire_size(rrset) > MAX_SET:
            raise ConfigError(f"moim.toml: names.records: {owner} has more than {MAX_SET} bytes of {kind.name} records")
    soa = dns.rrset.from_text(
        origin,
        settings.ttl,
        dns.rdataclass.IN,
        RdataType.SOA,
        f"{_node(site, master)} hostmaster.{origin} {serial & 0xFFFF_FFFF} 3600 600 604800 {settings.negative_ttl}",
    )
    return Zone(origin, soa, sets.values(), negative_ttl=settings.negative_ttl)


def _server_records(site: Site, view: View, servers: Servers) -> Iterator[tuple[Name, str]]:
    """The SRV records by which other XMPP servers find each host of the site (RFC 6120 section 3.2.1, XEP-0368)."""
    bind = site.settings.ports.bind
    for name in servers.hosts:
        host = dns.name.from_text(name)
        plain, direct = (dns.name.from_text(f"_{service}._tcp", host) for service in ("xmpp-server", "xmpps-server"))
        if not servers.enabled:
            yield plain, "0 0 0 ."
        elif view == "inside":
            for node in site.inside_nodes:
                yield plain, f"0 {_weight(site)} {bind(_XMPP_SERVER)} {_node(site, node)}"
                yield direct, f"0 {_weight(site)} {bind(_XMPPS_SERVER)} {_node(site, node)}"
        else:
            target = f"{servers.advertised}." if servers.advertised else _node(site, "edge")
            yield plain, f"0 0 {servers.port or bind(_XMPP_SERVER)} {target}"


def _node(site: Site, name: str) -> str:
    return f"{name}.{site.domain}."


def _zone_of(site: Site, owner: Name) -> Name | None:
    """The origin of the zone that a name belongs to: the site's nearest domain above it."""
    above = (origin for domain in site.domains if owner.is_subdomain(origin := dns.name.from_text(domain)))
    return max(above, key=len, default=None)


def _weight(site: Site) -> int:
    """Of one inside node's SRV records: several share the load evenly (RFC 2782)."""
    return 10 if len(site.inside_nodes) > 1 else 0


def wire_size(rrset: RRset) -> int:
    """An upper bound of the bytes that a set takes in a message (names uncompressed)."""
    owner = len(rrset.name.to_wire() or b"")
    return sum(owner + 10 + len(rdata.to_wire() or b"") for rdata in rrset)


def _published(node: str, address: str, instead: str = "") -> str:
    if not ipaddress.ip_address(address).is_unspecified:
        return address
    if instead:
        return instead
    raise ConfigError(
        f"nodes.{node}.address is {address}, which no client can connect to",
        hint=f"write the node's own address, or set nodes.{node}.public_address",
    )


def _owner(record: Record, origin: Name) -> Name:
    return origin if record.name == "@" else dns.name.from_text(record.name, origin)


def _check_aliases(sets: dict[tuple[Name, RdataType], RRset]) -> None:
    """RFC 1034 section 3.6.2: an alias stands alone at its name, and is one."""
    for (owner, kind), rrset in sets.items():
        if kind != RdataType.CNAME:
            continue
        if len(rrset) > 1 or any(other == owner and also != kind for other, also in sets):
            raise ConfigError(
                f"moim.toml: names.records: {owner} has a CNAME beside other records",
                hint="an alias must be the only record of its name",
            )


def _parents(name: Name, origin: Name) -> Iterator[Name]:
    while name != origin and len(name.labels) > len(origin.labels):
        name = name.parent()
        yield name


def _owned(rrset: RRset, owner: Name) -> RRset:
    return rrset if rrset.name == owner else _copy(rrset, owner, rrset.ttl)


def _copy(rrset: RRset, owner: Name, ttl: int) -> RRset:
    copy = RRset(owner, rrset.rdclass, rrset.rdtype)
    for rdata in rrset:
        copy.add(rdata, ttl)
    return copy
