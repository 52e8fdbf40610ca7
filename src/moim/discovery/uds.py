"""Reads the documents of the user data service, UDS. Bytes in, values out; ProtocolError for anything else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode
from xml.etree.ElementTree import Element

from moim.discovery.outcome import Device
from moim.errors import ProtocolError
from moim.proto import xmldoc

BASE = "/cucm-uds"

_MAX_SERVERS = 32
_MAX_DEVICES = 200
_HOST = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f:.]{2,45}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ClusterUser:
    """Whether and where a user has their home. ``servers_uri`` lists the UDS servers of that cluster."""

    found: bool
    user_id: str = ""
    home: str = ""
    servers_uri: str = ""


@dataclass(frozen=True, slots=True)
class User:
    """What discovery needs of ``user/{id}``. ``im_enabled`` None: the server does not say."""

    user_id: str
    display_name: str
    home: bool
    im_enabled: bool | None
    im_servers: tuple[str, ...]
    profile_uris: tuple[str, ...]


def cluster_user_path(kind: str, value: str) -> str:
    """``kind`` is ``username``, ``email`` or ``useridentifier``."""
    return f"{BASE}/clusterUser?{urlencode({kind: value})}"


def user_path(user_id: str, rest: str = "") -> str:
    """``…/user/{id}`` and what hangs below it."""
    return f"{BASE}/user/{quote(user_id, safe='')}{rest}"


def read_cluster_user(body: bytes) -> ClusterUser:
    """``<clusterUser><result found uri/><homeCluster serversUri>host</homeCluster></clusterUser>``."""
    root = _root(body, "clusterUser")
    result = xmldoc.child(root, "result")
    if result is None:
        raise ProtocolError("clusterUser has no result")
    if result.get("found", "").strip().lower() != "true":
        return ClusterUser(found=False)
    path = result.get("uri", "")[:2048].partition("?")[0].rstrip("/")
    user_id = unquote(path.rpartition("/user/")[2]) if "/user/" in path else ""
    home = xmldoc.child(root, "homeCluster")
    servers_uri = home.get("serversUri", "")[:2048] if home is not None else ""
    return ClusterUser(True, user_id if "/" not in user_id else "", xmldoc.text(home, limit=254), servers_uri)


def read_servers(body: bytes) -> tuple[str, ...]:
    """``<servers><server>host</server>…``, in the order to use."""
    root = _root(body, "servers")
    hosts = (xmldoc.text(node, limit=254).rstrip(".").lower() for node in xmldoc.children(root, "server"))
    usable = tuple(dict.fromkeys(host for host in hosts if _HOST.fullmatch(host)))
    if not usable:
        raise ProtocolError("the list of servers names none")
    return usable[:_MAX_SERVERS]


def read_version(body: bytes) -> str:
    """``<versionInformation><version>…``."""
    version = xmldoc.text(_root(body, "versionInformation"), "version", limit=64)
    if not version:
        raise ProtocolError("the version document has no version")
    return version


def read_user(body: bytes) -> User:
    """``<user>``: names, IM and Presence, and where the service profile is (the newer link first)."""
    root = _root(body, "user")
    home = xmldoc.child(root, "homeCluster")
    enabled = home.get("enableImAndPresence", "").strip().lower() if home is not None else ""
    im = xmldoc.child(root, "imAndPresence")
    servers = [xmldoc.text(node, limit=254) for node in xmldoc.children(im, "server")] if im is not None else []
    uris = [xmldoc.text(root, kind, "uri", limit=2048) for kind in ("serviceProfile", "jabberProfile")]
    display = xmldoc.text(root, "displayName", limit=255)
    full = f"{xmldoc.text(root, 'firstName', limit=127)} {xmldoc.text(root, 'lastName', limit=127)}".strip()
    return User(
        user_id=xmldoc.text(root, "userName", limit=255) or xmldoc.text(root, "id", limit=255),
        display_name=display or full,
        home=xmldoc.text(home).lower() != "false",
        im_enabled={"true": True, "false": False}.get(enabled),
        im_servers=tuple(host for host in servers[:8] if _HOST.fullmatch(host)),
        profile_uris=tuple(uri for uri in uris if uri),
    )


def read_devices(body: bytes) -> tuple[Device, ...]:
    """``<devices><device><name/><model/><description/></device>…``."""
    root = _root(body, "devices")
    nodes = list(xmldoc.children(root, "device"))[:_MAX_DEVICES]
    read = xmldoc.text
    return tuple(Device(read(n, "name", limit=128), read(n, "model", limit=128), read(n, "description")) for n in nodes)


def _root(body: bytes, wanted: str) -> Element:
    root = xmldoc.parse(body)
    if xmldoc.name(root) != wanted:
        raise ProtocolError(f"<{xmldoc.name(root)[:64]}> where <{wanted}> belongs")
    return root
