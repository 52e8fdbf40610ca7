"""Judges the head of an HTTP request from outside before anything is done with it.

Two parsers that read one request differently are how requests get smuggled, so everything that RFC 9112 lets a server
be lenient about is refused here: folded lines, bare LF, two framings, two lengths, odd targets, ambiguous paths.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

import h11

from moim.edge.rules import checked_path
from moim.errors import ProtocolError, Refused

MAX_HEAD = 32 * 1024
MAX_FIELDS = 100
MAX_TARGET = 8 * 1024

Headers = list[tuple[bytes, bytes]]

_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\x00")
_FOLD = re.compile(rb"\r\n[ \t]")
_LENGTH = re.compile(rb"\r\ncontent-length[ \t]*:([^\r]*)", re.IGNORECASE)
_METHOD = re.compile(r"[A-Z]{1,16}", re.ASCII)
_QUERY = re.compile(r"[\x21\x24-\x3b\x3d\x3f-\x5a\x5b\x5d\x5f\x61-\x7a\x7b\x7c\x7d\x7e%]*", re.ASCII)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,254})(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
# Never taken from outside: who the client is, where it came from, and proxies' own business (CVE-2016-5385: Proxy).
_NOT_FROM_OUTSIDE = frozenset(
    (
        *(b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"x-original-url", b"x-rewrite-url"),
        *(b"proxy", b"proxy-authorization", b"http2-settings", b"host", b"content-length"),
    )
)


class Rejected(Refused):
    """The request gets an answer of the edge's own: ``status`` with a sentence and headers."""

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = tuple(headers)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request that can be judged: ``path`` is canonical, ``host`` lower case without port, ``headers`` to pass on."""

    method: str
    host: str
    authority: str
    path: str
    query: str
    websocket: bool
    length: int | None
    chunked: bool
    headers: Headers

    @property
    def target(self) -> str:
        """Origin form: path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def scheme(self) -> str:
        """The scheme that the allow-list knows."""
        return "wss" if self.websocket else "https"


def check_bytes(head: bytes) -> None:
    """Judges the raw head up to and with its empty line. Raises Rejected (400, 431)."""
    if _BARE.search(head):
        raise Rejected(400, "the head has a line end that is not CR LF, or a NUL")
    if _FOLD.search(head):
        raise Rejected(400, "the head has a folded line (RFC 9112 section 5.2)")
    lengths = _LENGTH.findall(head)
    if len(lengths) > 1 or any(b"," in value for value in lengths):
        raise Rejected(400, "the head has Content-Length more than once")
    if head.count(b"\r\n") > MAX_FIELDS + 2:
        raise Rejected(431, f"the head has more than {MAX_FIELDS} fields")


def read(request: h11.Request, hosts: frozenset[str] | None) -> RequestHead:
    """Judges a parsed request; ``hosts`` are the names and addresses that the edge answers for, None for any.

    Raises Rejected with 400, 405, 414, 421, 426 or 505.
    """
    method = request.method.decode("ascii", "replace")
    if not _METHOD.fullmatch(method) or method in ("CONNECT", "TRACE"):
        raise Rejected(405, f"the method {method[:16]!r} is not offered", [("Allow", "GET, POST, PUT, HEAD, DELETE")])
    if request.http_version not in (b"1.0", b"1.1"):
        raise Rejected(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    length, chunked = _framing(request)
    authority, path, query = _target(request)
    host = _host(request, authority, hosts)
    websocket = _websocket(request, method, length, chunked)
    return RequestHead(
        method=method,
        host=host,
        authority=_one(request, b"host").decode("ascii"),
        path=path,
        query=query,
        websocket=websocket,
        length=length,
        chunked=chunked,
        headers=passed_on(list(request.headers), from_outside=True),
    )


def passed_on(headers: Headers, *, from_outside: bool) -> Headers:
    """The end-to-end fields of a message: without hop-by-hop fields, those that Connection names, and framing.

    ``from_outside`` also drops what a client must not claim (who it is, what other proxies said).
    """
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    kept: Headers = []
    for name, value in headers:
        if name in _HOP_BY_HOP or name in named:
            continue
        if from_outside and (name in _NOT_FROM_OUTSIDE or name.startswith(b"x-forwarded") or b"_" in name):
            continue
        kept.append((name, value))
    return kept


def field(headers: Headers, name: bytes) -> bytes:
    """The value of a field, several joined as one list; empty when absent."""
    return b", ".join(value for key, value in headers if key == name)


def _one(request: h11.Request, name: bytes) -> bytes:
    values = [value for key, value in request.headers if key == name]
    if len(values) > 1:
        raise Rejected(400, f"the head has {name.decode()} more than once")
    return values[0] if values else b""


def _framing(request: h11.Request) -> tuple[int | None, bool]:
    encoding = _one(request, b"transfer-encoding")
    length = _one(request, b"content-length")
    if encoding and length:
        raise Rejected(400, "the head has both Content-Length and Transfer-Encoding")
    if encoding and (encoding.lower() != b"chunked" or request.http_version != b"1.1"):
        raise Rejected(400, "the transfer coding is not exactly 'chunked' of HTTP/1.1")
    if length and not (length.isdigit() and len(length) <= 15):
        raise Rejected(400, "Content-Length is not a number")
    return (int(length) if length else None), bool(encoding)


def _target(request: h11.Request) -> tuple[str, str, str]:
    if len(request.target) > MAX_TARGET:
        raise Rejected(414, f"the request target is longer than {MAX_TARGET} bytes")
    target = request.target.decode("ascii", "replace")
    authority = ""
    if not target.startswith("/"):
        scheme, separator, rest = target.partition("://")
        if not separator or scheme.lower() not in ("https", "http"):
            raise Rejected(400, "the request target is neither a path nor an absolute URL")
        authority, slash, path = rest.partition("/")
        target = slash + path or "/"
        if "?" in authority or not authority:
            raise Rejected(400, "the absolute URL has no host or no path")
    path, _, query = target.partition("?")
    try:
        checked_path(path)
    except ProtocolError as error:
        raise Rejected(400, error.message) from None
    if not _QUERY.fullmatch(query):
        raise Rejected(400, "the query of the request has characters that no query may have")
    return authority, path, query


def _host(request: h11.Request, authority: str, hosts: frozenset[str] | None) -> str:
    given = _one(request, b"host").decode("ascii", "replace")
    if not given:
        raise Rejected(400, "the head has no Host")
    if authority and authority.lower() != given.lower():
        raise Rejected(400, "the absolute URL and Host name different servers")
    match = _HOST.fullmatch(given)
    if match is None or int(match["port"] or 1) > 65535:
        raise Rejected(400, "Host is not a host name with an optional port")
    name = match["name"].lower().rstrip(".")
    if name.startswith("["):
        try:
            name = ipaddress.IPv6Address(name[1:-1]).compressed
        except ValueError:
            raise Rejected(400, "Host is not an address") from None
    if hosts is not None and name not in hosts:
        raise Rejected(421, f"this edge does not answer for the host {name[:100]!r}")
    return name


def _websocket(request: h11.Request, method: str, length: int | None, chunked: bool) -> bool:
    headers = list(request.headers)
    upgrades = {token.strip().lower() for token in field(headers, b"upgrade").split(b",")}
    if b"websocket" not in upgrades:
        return False
    connection = {token.strip().lower() for token in field(headers, b"connection").split(b",")}
    if method != "GET" or b"upgrade" not in connection or request.http_version != b"1.1" or length or chunked:
        raise Rejected(
            400, "the WebSocket handshake is not a plain GET with Connection: Upgrade (RFC 6455 section 4.1)"
        )
    if upgrades != {b"websocket"}:
        raise Rejected(400, "the handshake asks for other protocols beside WebSocket")
    if _one(request, b"sec-websocket-version") != b"13":
        raise Rejected(426, "only WebSocket version 13 is spoken here", [("Sec-WebSocket-Version", "13")])
    if not re.fullmatch(rb"[A-Za-z0-9+/]{22}==", _one(request, b"sec-websocket-key")):
        raise Rejected(400, "Sec-WebSocket-Key is not a nonce of 16 bytes")
    return True
