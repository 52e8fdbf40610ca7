"""What a person gives to be signed in: an address they type, or a configuration link that they click (D1).

The link is ``scheme://provision?ServicesDomain=…``; the schemes ``moim`` and ``ciscojabber`` are read. Parameter names
compare without case, because the published examples write them both ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qsl

from moim.errors import UsageError
from moim.model import Address, domain_name

SCHEMES = ("moim", "ciscojabber")
EXCLUDABLE = ("WEBEX", "CUCM", "CUP")
"""What ``ServiceDiscoveryExcludedServices`` may name: hosted look-ups, ``_cisco-uds``, ``_cuplogin``."""

_MAX_TEXT = 4096
_MAX_PARAMETERS = 64
_LINK = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*):(?://)?provision/?\?(?P<query>.*)", re.IGNORECASE | re.DOTALL)
# Every parameter that a link or managed configuration may carry, with the values it takes; None: free text.
_PARAMETERS: Mapping[str, tuple[str, ...] | None] = {
    "ServicesDomain": None,
    "VoiceServicesDomain": None,
    "ServiceDiscoveryExcludedServices": None,
    "ServicesDomainSsoEmailPrompt": ("ON", "OFF"),
    "InvalidCertificateBehavior": ("RejectAndNotify", "PromptPerSession"),
    "PRTCertificateUrl": None,
    "Telephony_Enabled": ("true", "false"),
    "ForceLaunchBrowser": ("true", "false"),
    "EnablePRTEncryption": ("true", "false"),
    "PRTCertificateName": None,
    "FIPS_MODE": ("true", "false"),
    "AllowUrlProvisioning": ("true", "false"),
    "IP_Mode": None,
}
_CANONICAL = {name.lower(): name for name in _PARAMETERS}


@dataclass(frozen=True, slots=True)
class Target:
    """Whom and where to look for.

    ``domain`` is the services domain; ``voice_domain`` the one whose SRV records are asked for (the same unless given).
    ``address`` is None when a link gave only a domain. ``options`` holds the link's other parameters by canonical name,
    ``ignored`` what was in the link and means nothing here.
    """

    text: str
    source: Literal["address", "link"]
    domain: str
    voice_domain: str
    address: Address | None = None
    excluded: frozenset[str] = frozenset()
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    ignored: tuple[str, ...] = ()


def parse_target(text: str, *, user: str = "") -> Target:
    """Reads an address or a link. ``user`` names the person when a link does not: an address, or its part before ``@``.

    Raises UsageError with what is wrong.
    """
    text = text.strip()
    if len(text) > _MAX_TEXT:
        raise UsageError(f"the address or link has more than {_MAX_TEXT} characters")
    link = _LINK.fullmatch(text)
    if link is not None:
        return _link(text, link["scheme"].lower(), link["query"], user)
    if re.match(r"(moim|ciscojabber):", text, re.IGNORECASE):
        raise UsageError("the link is not a configuration link", hint="it begins with moim://provision?ServicesDomain=")
    address = Address.parse(text)
    return Target(text, "address", address.domain, address.domain, address)


def _link(text: str, scheme: str, query: str, user: str) -> Target:
    if scheme not in SCHEMES:
        raise UsageError(f"links with '{scheme}:' are not read", hint=f"known: {', '.join(s + ':' for s in SCHEMES)}")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise UsageError(f"the link has more than {_MAX_PARAMETERS} parameters") from None
    given: dict[str, str] = {}
    ignored: list[str] = []
    for key, value in pairs:
        name = _CANONICAL.get(key.strip().lower())
        allowed = _PARAMETERS[name] if name is not None else None
        chosen = next((word for word in allowed if word.lower() == value.strip().lower()), None) if allowed else value
        if name is None or chosen is None or name in given:
            ignored.append(key[:64])
        else:
            given[name] = chosen.strip()
    services = given.pop("ServicesDomain", "")
    if not services:
        raise UsageError("the link has no ServicesDomain", hint="it is the one parameter that a link must have")
    domain = domain_name(services)
    voice = given.pop("VoiceServicesDomain", "")
    names = [part.strip().upper() for part in given.pop("ServiceDiscoveryExcludedServices", "").split(",")]
    ignored += [name for name in names if name and name not in EXCLUDABLE]
    address = None
    if user:
        address = Address.parse(user if "@" in user else f"{user}@{domain}")
    return Target(
        text,
        "link",
        domain,
        domain_name(voice) if voice else domain,
        address,
        frozenset(name for name in names if name in EXCLUDABLE),
        MappingProxyType(given),
        tuple(ignored),
    )
