"""What a client and an edge say to each other over HTTPS: edge configuration, proxied URLs, the session cookie.

Both sides import this file: discovery reads what the edge writes. Facts are those of ``wire.md`` section 2. What is not
documented publicly (the form of a proxied path, the port element of ``turnEdgeServer``) stands in one function each.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import parse_qsl, urlencode
from xml.etree.ElementTree import Element, SubElement, tostring

from moim.errors import ProtocolError, UsageError
from moim.model import domain_name
from moim.proto import xmldoc

REALM = "Cisco-Edge"
"""Realm of the edge's Basic challenge."""
SERVER_INSIDE = "CE_C ECS"
"""``Server`` header of an answer (also a 401) that the inner half gave."""
SERVER_BORDER = "CE_E"
"""``Server`` header of a refusal by the border half itself, such as 403 for a domain that is not enabled."""
COOKIE = "X-Auth"
SERVICES = ("_cisco-uds", "_cuplogin")
"""What a client asks for with ``service_name``."""

_MAX_TOKEN = 512
_MAX_ENTRIES = 64
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]", re.ASCII)
_COOKIE_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]{1,256}", re.ASCII)  # RFC 6265 section 4.1.1 cookie-octet


# -- addresses of the edge ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge server, and the domain that it is asked for."""

    host: str
    port: int
    domain: str

    @property
    def origin(self) -> str:
        """``https://edge.example.com:8443``."""
        return f"https://{_bracket(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """An inside server as a client names it through the edge; ``path`` begins with a slash and keeps its query."""

    domain: str
    scheme: str
    host: str
    port: int
    path: str


def encode_token(text: str) -> str:
    """Base64 without ``=``: ``example.com`` → ``ZXhhbXBsZS5jb20``."""
    return base64.b64encode(text.encode("utf-8")).decode("ascii").rstrip("=")


def decode_token(token: str) -> str:
    """The text of a token; both base64 alphabets are read. Raises ProtocolError."""
    if not token or len(token) > _MAX_TOKEN:
        raise ProtocolError("the first part of the path is empty or too long")
    plain = token.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise ProtocolError("the first part of the path is not base64") from None


def edge_config_url(edge: Edge, services: Iterable[str] = SERVICES) -> str:
    """Where a client asks an edge for its configuration."""
    query = urlencode([("service_name", service) for service in services])
    return f"{edge.origin}/{encode_token(edge.domain)}/get_edge_config?{query}"


def parse_edge_config_request(target: str) -> tuple[str, tuple[str, ...]]:
    """``(domain, service names)`` of an HTTP request target for the edge configuration; a trailing slash is allowed.

    Raises ProtocolError when it is another path.
    """
    path, _, query = target.partition("?")
    token, slash, rest = path.lstrip("/").partition("/")
    if not slash or rest.rstrip("/") != "get_edge_config":
        raise ProtocolError("the path is not one of an edge configuration")
    try:
        pairs = parse_qsl(query, max_num_fields=_MAX_ENTRIES)
    except ValueError:
        raise ProtocolError("the query has too many fields") from None
    return _domain(decode_token(token)), tuple(value for key, value in pairs if key == "service_name")


def proxied_path(domain: str, scheme: str, host: str, port: int, path: str) -> str:
    """The path at the edge under which ``scheme://host:port/path`` of the inside is asked for.

    Not publicly documented: base64 of ``domain/scheme/host/port``, then the path. This function and
    ``parse_proxied_path`` are the only places that know it.
    """
    return f"/{encode_token(f'{domain}/{scheme}/{host}/{port}')}/{path.lstrip('/')}"


def proxied_url(edge: Edge, scheme: str, host: str, port: int, path: str) -> str:
    """The URL at ``edge`` for an inside URL in its parts; ``path`` keeps its query."""
    return edge.origin + proxied_path(edge.domain, scheme, host, port, path)


def parse_proxied_path(target: str) -> Target:
    """The inside server and path that an HTTP request target at the edge names. Raises ProtocolError."""
    token, slash, rest = target.removeprefix("/").partition("/")
    parts = decode_token(token).split("/") if slash else []
    if len(parts) != 4:
        raise ProtocolError("the path does not name a server of the inside")
    domain, scheme, host, port = parts
    if scheme not in ("http", "https") or not _HOST.fullmatch(host) or not port.isascii() or not port.isdigit():
        raise ProtocolError("the path does not name a server of the inside")
    number = int(port[:6])
    if not 0 < number < 65536:
        raise ProtocolError("the path names a port that does not exist")
    return Target(_domain(domain), scheme, host.strip("[]").lower(), number, "/" + rest)


# -- getEdgeConfigResponse ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Srv:
    """One SRV record of the inside, as the edge tells it."""

    priority: int
    weight: int
    port: int
    address: str


@dataclass(frozen=True, slots=True)
class Service:
    """The inside's answer for one service: records, or an error name such as ``NameError``, or plain addresses."""

    name: str
    servers: tuple[Srv, ...] = ()
    error: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeServer:
    """One server at the border or, for ``user_uds``, inside; ``port`` is its TLS port (UDP for TURN)."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """The content of a ``getEdgeConfigResponse``."""

    services: tuple[Service, ...]
    sip: tuple[EdgeServer, ...] = ()
    sip_routes: tuple[str, ...] = ()
    xmpp: tuple[EdgeServer, ...] = ()
    http: tuple[EdgeServer, ...] = ()
    turn: tuple[EdgeServer, ...] = ()
    user_uds: tuple[EdgeServer, ...] = ()

    def service(self, name: str) -> Service | None:
        """The answer for one service name, compared without case."""
        return next((item for item in self.services if item.name.lower() == name.lower()), None)


def parse_edge_config(data: bytes) -> EdgeConfig:
    """Reads a ``getEdgeConfigResponse`` document. Raises ProtocolError when it is not one or beyond the bounds."""
    root = xmldoc.parse(data)
    if xmldoc.name(root) != "getEdgeConfigResponse":
        raise ProtocolError(f"the edge answered <{xmldoc.name(root)}> where getEdgeConfigResponse belongs")
    config = xmldoc.child(root, "serviceConfig")
    services = [_read_service(item) for item in xmldoc.children(config, "service")] if config is not None else []
    edge = xmldoc.child(root, "edgeConfig")
    request = xmldoc.child(edge, "sipRequest")
    routes = [xmldoc.text(item) for item in xmldoc.children(request, "route")] if request is not None else []
    return EdgeConfig(
        services=tuple(services[:_MAX_ENTRIES]),
        sip=_read_edge_servers(edge, "sipEdgeServer"),
        sip_routes=tuple(route for route in routes[:_MAX_ENTRIES] if route),
        xmpp=_read_edge_servers(edge, "xmppEdgeServer"),
        http=_read_edge_servers(edge, "httpEdgeServer"),
        turn=_read_edge_servers(edge, "turnEdgeServer"),
        user_uds=_read_edge_servers(edge, "userUdsServer"),
    )


def build_edge_config(config: EdgeConfig) -> bytes:
    """The document for a configuration, with XML declaration, UTF-8."""
    root = Element("getEdgeConfigResponse", version="1.0")
    service_config = SubElement(root, "serviceConfig")
    for service in config.services:
        node = SubElement(service_config, "service")
        SubElement(node, "name").text = service.name
        if service.error:
            SubElement(node, "error").text = service.error
        for server in service.servers:
            entry = SubElement(node, "server")
            SubElement(entry, "priority").text = str(server.priority)
            SubElement(entry, "weight").text = str(server.weight)
            SubElement(entry, "port").text = str(server.port)
            SubElement(entry, "address").text = server.address
        for address in service.addresses:
            SubElement(node, "address").text = address
    edge = SubElement(root, "edgeConfig")
    _write_edge_servers(edge, "sipEdgeServer", config.sip)
    if config.sip_routes:
        request = SubElement(edge, "sipRequest")
        for route in config.sip_routes:
            SubElement(request, "route").text = route
    _write_edge_servers(edge, "xmppEdgeServer", config.xmpp)
    _write_edge_servers(edge, "httpEdgeServer", config.http)
    _write_edge_servers(edge, "turnEdgeServer", config.turn, port_name="udpPort")
    _write_edge_servers(edge, "userUdsServer", config.user_uds)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _read_service(node: Element) -> Service:
    servers = []
    for entry in list(xmldoc.children(node, "server"))[:_MAX_ENTRIES]:
        address = xmldoc.text(entry, "address", limit=254)
        if not _HOST.fullmatch(address):
            raise ProtocolError("the edge configuration names a server without a usable address")
        servers.append(
            Srv(
                _number(entry, "priority", "0"),
                _number(entry, "weight", "0"),
                _number(entry, "port", "", least=1),
                address.rstrip(".").lower(),
            )
        )
    addresses = [xmldoc.text(item, limit=254) for item in xmldoc.children(node, "address")]
    return Service(
        name=xmldoc.text(node, "name", limit=64),
        servers=tuple(servers),
        error=xmldoc.text(node, "error", limit=64),
        addresses=tuple(address for address in addresses[:_MAX_ENTRIES] if address),
    )


def _read_edge_servers(edge: Element | None, section: str) -> tuple[EdgeServer, ...]:
    node = xmldoc.child(edge, section)
    if node is None:
        return ()
    found = []
    for entry in list(xmldoc.children(node, "server"))[:_MAX_ENTRIES]:
        address = xmldoc.text(entry, "address", limit=254)
        port = next((xmldoc.name(item) for item in entry if xmldoc.name(item).lower().endswith("port")), "")
        # An empty address occurs in the field (userUdsServer): it stands for "none".
        if address and port and _HOST.fullmatch(address):
            found.append(EdgeServer(address.rstrip(".").lower(), _number(entry, port, "", least=1)))
    return tuple(found)


def _write_edge_servers(
    edge: Element, section: str, servers: tuple[EdgeServer, ...], port_name: str = "tlsPort"
) -> None:
    node = SubElement(edge, section)
    for server in servers:
        entry = SubElement(node, "server")
        SubElement(entry, "address").text = server.address
        SubElement(entry, port_name).text = str(server.port)


def _number(node: Element, field: str, default: str, *, least: int = 0) -> int:
    written = xmldoc.text(node, field, limit=8) or default
    if not (written.isascii() and written.isdigit()) or not least <= int(written) <= 65535:
        raise ProtocolError(f"the edge configuration has '{written}' where {field} belongs")
    return int(written)


# -- the session cookie ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EdgeCookie:
    """The edge's session: ``domain`` without a leading dot, ``expires`` in UTC."""

    value: str
    expires: datetime
    domain: str

    def covers(self, host: str) -> bool:
        """Whether a client sends it to this host (RFC 6265 section 5.1.3)."""
        folded = host.lower().rstrip(".")
        return folded == self.domain or folded.endswith("." + self.domain)

    def set_cookie(self) -> str:
        """The value of the ``Set-Cookie`` header."""
        stamp = format_datetime(self.expires.astimezone(UTC).replace(microsecond=0), usegmt=True)
        return f"{COOKIE}={self.value}; Expires={stamp}; Domain=.{self.domain}; Path=/; Secure; HttpOnly"

    def header(self) -> str:
        """The value of the ``Cookie`` header that presents it."""
        return f"{COOKIE}={self.value}"


def parse_set_cookie(headers: Iterable[str], host: str, now: datetime) -> EdgeCookie:
    """The session from ``Set-Cookie`` header values that ``host`` sent.

    Raises ProtocolError when there is none, or clients would not use it: no Expires or a past one, or another domain.
    """
    for header in headers:
        first, *attributes = (part.strip() for part in header[:4096].split(";"))
        key, _, value = first.partition("=")
        if key != COOKIE or not _COOKIE_VALUE.fullmatch(value):
            continue
        given = {name.strip().lower(): content.strip() for name, _, content in (a.partition("=") for a in attributes)}
        try:
            stamp = parsedate_to_datetime(given.get("expires", ""))
            expires = stamp.astimezone(UTC) if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            raise ProtocolError("the edge's session cookie has no valid Expires") from None
        cookie = EdgeCookie(value, expires, given.get("domain", host).lstrip(".").lower())
        if cookie.expires <= now:
            raise ProtocolError("the edge's session cookie has expired already")
        if not cookie.covers(host):
            raise ProtocolError(f"the edge's session cookie is for {cookie.domain}, which {host} does not belong to")
        return cookie
    raise ProtocolError("the edge sent no session cookie")


def read_cookie(header: str) -> str:
    """The session value in a ``Cookie`` request header; empty when it holds none."""
    for part in header[:8192].split(";"):
        key, _, value = part.strip().partition("=")
        if key == COOKIE and _COOKIE_VALUE.fullmatch(value):
            return value
    return ""


def _domain(text: str) -> str:
    try:
        return domain_name(text)
    except UsageError:
        raise ProtocolError("the path does not begin with a domain") from None


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
