"""XEP-0215 external services: relays for calls, with credentials of the moment for whoever asks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

from moim.chat.feature import Feature, Iq, Payload
from moim.proto.xmpp import Element, StanzaError, ns

_EDGE = "edge-"
"""What the names of listeners begin with whose clients are outside."""


class Relays(Protocol):
    """The TURN servers of the site."""

    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        """RTCIceServer dictionaries with credentials for ``name``, reachable from that side; empty without relays."""
        ...


class ExternalServices:
    """Answers the domain's own users."""

    def __init__(self, relays: Relays) -> None:
        self._relays = relays
        self.feature = Feature(
            name="XEP-0215 external services",
            server_vars=(ns.EXTERNAL_SERVICES,),
            server_iq={
                ("get", ns.EXTERNAL_SERVICES, "services"): self._services,
                ("get", ns.EXTERNAL_SERVICES, "credentials"): self._credentials,
            },
        )

    def _services(self, iq: Iq) -> Payload:
        kind = iq.payload.get("type")
        found = tuple(service for service in self._issue(iq) if kind in (None, service.get("type")))
        attrs = {"type": kind} if kind is not None else {}
        return (Element("services", ns.EXTERNAL_SERVICES, attrs, found),)

    def _credentials(self, iq: Iq) -> Payload:
        asked = iq.payload.find("service", ns.EXTERNAL_SERVICES)
        if asked is None or not asked.get("host") or not asked.get("type"):
            raise StanzaError("bad-request", "credentials are asked for with the host and the type of a service")
        keys = [key for key in ("host", "type", "port") if asked.get(key) is not None]
        found = tuple(s for s in self._issue(iq) if all(s.get(key) == asked.get(key) for key in keys))
        if not found:
            raise StanzaError("item-not-found", "there is no such service")
        return (Element("credentials", ns.EXTERNAL_SERVICES, {}, found),)

    def _issue(self, iq: Iq) -> list[Element]:
        if iq.session is None:
            raise StanzaError("forbidden", "relays are for the domain's own users")
        outside = iq.session.connection.name.startswith(_EDGE)
        found: list[Element] = []
        for server in self._relays.issue(iq.sender.local, outside):
            for url in server["urls"]:
                attrs = _service(url)
                if attrs is None:
                    continue
                if attrs["type"] == "turn" and attrs.get("transport") == "udp":
                    # The site's relays answer Binding requests of anybody, so that peers learn their addresses.
                    found.append(Element("service", ns.EXTERNAL_SERVICES, attrs | {"type": "stun"}))
                if "username" in server:
                    user = str(server["username"])
                    attrs |= {"username": user, "password": str(server["credential"]), "restricted": "true"}
                    attrs |= _expires(user)
                found.append(Element("service", ns.EXTERNAL_SERVICES, attrs))
        return found


def _service(url: str) -> dict[str, str] | None:
    """Type, host, port and transport of a URI of RFC 7064 or RFC 7065; None when it is neither."""
    kind, _, rest = url.partition(":")
    place, _, query = rest.partition("?")
    host, _, port = place.rpartition(":") if place.rpartition(":")[2].isdigit() else (place, "", "")
    if kind not in ("stun", "stuns", "turn", "turns") or not host:
        return None
    transport = query.removeprefix("transport=") if query.startswith("transport=") else ""
    attrs = {"type": kind, "host": host.strip("[]")}
    attrs |= {"port": port} if port else {}
    return attrs | ({"transport": transport} if transport else {})


def _expires(user: str) -> dict[str, str]:
    """When credentials end that have their end in the user name, as those of shared secrets do."""
    end = user.partition(":")[0]
    if not (end.isascii() and end.isdigit() and len(end) <= 11):
        return {}
    moment = datetime.fromtimestamp(int(end), UTC)
    return {"expires": f"{moment:%Y-%m-%dT%H:%M:%SZ}"}
