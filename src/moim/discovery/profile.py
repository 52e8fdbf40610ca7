"""The service profile and the configuration file: which parameters they set, and which of them counts (D8).

The profile wins per parameter; a value that only the file sets counts; empty in both means the profile's default. Where
the profile says which product does IM and Presence is not publicly documented: ``product_type`` alone knows our
reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from moim.discovery.outcome import Authenticator
from moim.errors import ProtocolError
from moim.proto import xmldoc

SECTIONS = (
    "Voicemail",
    "MailStore",
    "Conferencing",
    "Directory",
    "IMandPresence",
    "CTI",
    "VideoConferenceSchedulingPortal",
)
FILE_SECTIONS = ("Client", "Directory", "Options", "Phone", "Policies", "Presence", "Voicemail")

_MAX_PARAMETERS = 1000
_MAX_VALUE = 2048
_PLACES = ("Primary", "Backup1", "Backup2")


@dataclass(frozen=True, slots=True)
class Place:
    """A server of a section; ``port`` 0 when it is not said; ``protocol`` as written, upper case."""

    host: str
    port: int
    protocol: str


def read_profile(body: bytes) -> dict[str, str]:
    """``Section/Name`` → value of every parameter in the known sections, empty ones too. Raises ProtocolError."""
    root = xmldoc.parse(body)
    found = _parameters(root, SECTIONS)
    if not found and not any(xmldoc.name(node) in SECTIONS for node in root.iter()):
        raise ProtocolError(f"<{xmldoc.name(root)[:64]}> holds no section of a service profile")
    return found


def read_config(body: bytes) -> dict[str, str]:
    """The same of a ``jabber-config.xml``. Raises ProtocolError."""
    root = xmldoc.parse(body)
    if xmldoc.name(root) != "config":
        raise ProtocolError(f"<{xmldoc.name(root)[:64]}> where <config> belongs")
    return _parameters(root, FILE_SECTIONS)


def merge(profile: Mapping[str, str], file: Mapping[str, str]) -> dict[str, str]:
    """One value per parameter; names compare without case, the profile's spelling is kept."""
    merged = dict(profile)
    spelled = {name.lower(): name for name in profile}
    for name, value in file.items():
        known = spelled.get(name.lower())
        if known is None:
            merged[name] = value
        elif not merged[known]:
            merged[known] = value
    return merged


def product_type(profile: Mapping[str, str]) -> Authenticator:
    """The authenticator by the IM and Presence product type; without a configuration it is the call manager."""
    section = {
        name.partition("/")[2].lower(): value for name, value in profile.items() if name.startswith("IMandPresence/")
    }
    kind = next((section[key] for key in ("producttype", "type") if section.get(key)), "").lower()
    if "webex" in kind or "hosted" in kind:
        return "hosted"
    if kind and kind not in ("unset", "none", "not set"):
        return "im-and-presence"
    return "im-and-presence" if any(section.get(f"{place.lower()}address") for place in _PLACES) else "call-manager"


def places(configuration: Mapping[str, str], section: str) -> tuple[Place, ...]:
    """The servers of a section: primary, first and second backup."""
    found = []
    for place in _PLACES:
        host = configuration.get(f"{section}/{place}Address", "").strip().rstrip(".").lower()
        port = configuration.get(f"{section}/{place}Port", "").strip()
        number = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
        if host and not any(char.isspace() or char in "/@" for char in host):
            protocol = configuration.get(f"{section}/{place}Protocol", "").strip().upper()
            found.append(Place(host, number if number < 65536 else 0, protocol))
    return tuple(found)


def _parameters(root: Element, sections: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in root.iter():
        section = xmldoc.name(node)
        if section not in sections:
            continue
        for name, value in node.attrib.items():
            found.setdefault(f"{section}/{name.rpartition('}')[2]}", value.strip()[:_MAX_VALUE])
        for leaf in node:
            if len(leaf) == 0 and xmldoc.name(leaf) and len(found) < _MAX_PARAMETERS:
                found.setdefault(f"{section}/{xmldoc.name(leaf)}", (leaf.text or "").strip()[:_MAX_VALUE])
    return found
