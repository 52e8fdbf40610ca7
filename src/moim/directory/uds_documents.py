"""The XML documents of UDS, as values in and elements out. Field names are those of the public API documents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import quote
from xml.etree.ElementTree import Element

from moim.directory.devices import Device
from moim.directory.profile import Profile
from moim.directory.sign_in import SignIns
from moim.proto.xmlout import element

VERSION = "11.5.1"
"""The version of the interface that is spoken; clients judge by it what they may ask."""

LOCALES = (("Korean", "ko_KR"), ("English", "en_US"))


class Links(Protocol):
    """Where the documents point to; see ``uds.Links``."""

    @property
    def host(self) -> str: ...

    @property
    def domain(self) -> str: ...

    @property
    def nodes(self) -> Sequence[str]: ...

    @property
    def base(self) -> str: ...

    @property
    def profile_url(self) -> str: ...

    def device_url(self, name: str) -> str: ...


def _user_url(links: Links, user: Profile) -> str:
    return f"{links.base}/user/{quote(_user_name(links, user), safe='')}"


def _user_name(links: Links, user: Profile) -> str:
    """What a person is called within the cluster: those of other domains than its own by their whole address."""
    return user.address.local if user.address.domain == links.domain else str(user.address)


def version(links: Links, *, search_needs_sign_in: bool) -> Element:
    """``versionInformation``."""
    return element(
        "versionInformation",
        element("version", VERSION),
        element("capabilities", element("usersResourceAuthEnabled", search_needs_sign_in)),
        uri=f"{links.base}/version",
        version=VERSION,
    )


def servers(links: Links) -> Element:
    """``servers``: every node that answers UDS."""
    found = (element("server", host) for host in links.nodes)
    return element("servers", *found, version=VERSION, uri=f"{links.base}/servers")


def cluster_user(links: Links, user: Profile | None) -> Element:
    """``clusterUser``: whether the user is known here, and their home cluster."""
    root = element("clusterUser", version=VERSION, uri=f"{links.base}/clusterUser")
    if user is None:
        root.append(element("result", found=False, version=VERSION))
        return root
    root.append(element("result", found=True, uri=_user_url(links, user), version=VERSION))
    root.append(element("homeCluster", links.host, serversUri=f"{links.base}/servers"))
    root.append(
        element(
            "homeClusterDetails",
            element("selfProvisioningSecureMode", False),
            element("adminProvisionMode", False),
        )
    )
    return root


def options(links: Links) -> Element:
    """``options``: links to the lists that are served."""
    base = f"{links.base}/options"
    return element("options", element("installedLocales", uri=f"{base}/installedLocales"), uri=base, version=VERSION)


def installed_locales(links: Links) -> Element:
    """``installedLocales``."""
    return element(
        "installedLocales",
        *(element("locale", element("name", name), element("value", value)) for name, value in LOCALES),
        uri=f"{links.base}/options/installedLocales",
        version=VERSION,
    )


def single_sign_on() -> Element:
    """The answer to the probe for single sign-on: people sign in with their password."""
    return element("Response", element("SingleSignOn", element("Status", enabled=False), version="1.0"))


def _named(links: Links, one: Profile) -> tuple[Element, ...]:
    return (
        element("id", one.id),
        element("userName", _user_name(links, one)),
        element("firstName", one.first_name),
        element("lastName", one.last_name),
        element("middleName"),
        element("nickName"),
        element("displayName", one.name),
        element("phoneNumber", one.phone),
        element("homeNumber"),
        element("mobileNumber", one.mobile),
    )


def _described(one: Profile) -> tuple[Element, ...]:
    return (
        element("email", one.email or str(one.address)),
        element("directoryUri", str(one.address)),
        element("msUri"),
        element("department", one.department),
        element("manager", one.manager),
        element("title", one.title),
        element("pager"),
    )


def users(links: Links, found: Sequence[Profile], *, start: int, requested: int, total: int) -> Element:
    """``users``: one page of a search."""
    return element(
        "users",
        *(
            element(
                "user",
                *_named(links, one),
                *_described(one),
                uri=_user_url(links, one),
            )
            for one in found
        ),
        uri=f"{links.base}/users",
        version=VERSION,
        start=start,
        requestedCount=requested,
        returnedCount=len(found),
        totalCount=total,
    )


def user(links: Links, one: Profile) -> Element:
    """``user``: everything a client reads of its own user."""
    own = _user_url(links, one)
    return element(
        "user",
        *_named(links, one),
        element("mobileConnect", False),
        element("remoteDestinationLimit", 0),
        element("userLocale", uri=f"{links.base}/options/installedLocales", value="", appliesToAllDevices=False),
        *_described(one),
        element("selfServiceId"),
        element("accountType", one.account_type, useLdapAuth=one.account_type == "ldap"),
        element("homeCluster", True, enableImAndPresence=True, enableCalendarPresence=False),
        element("imAndPresence", *(element("server", host) for host in links.nodes)),
        element("primaryExtension"),
        element("callForwardAllDestination", element("sendToVoiceMailPilotNumber", False), element("destination")),
        element("enableDoNotDisturb", False),
        element("devices", uri=f"{own}/devices"),
        element("credentials", uri=f"{own}/credentials"),
        element("extensions", uri=f"{own}/extensions"),
        element("serviceProfile", element("uri", links.profile_url)),
        uri=own,
        version=VERSION,
    )


def _device_body(device: Device) -> list[Element]:
    return [
        element("id", device.id),
        element("name", device.name),
        element("type", device.type),
        element("model", device.model),
        element("description", device.description, editable=False),
        element("protocol", device.protocol),
    ]


def devices(links: Links, user: Profile, found: Sequence[Device]) -> Element:
    """``devices``: the list, each with the link to its own document."""
    own = _user_url(links, user)
    return element(
        "devices",
        *(element("device", *_device_body(one), uri=f"{own}/device/{one.id}") for one in found),
        uri=f"{own}/devices",
        version=VERSION,
    )


def device(links: Links, user: Profile, one: Device) -> Element:
    """``device``: with the URL of its configuration file in the first ``uri`` element, where clients look for it."""
    own = _user_url(links, user)
    return element(
        "device",
        element("uri", links.device_url(one.name)),
        *_device_body(one),
        element("hasPrimaryNumber", False),
        element("extensions", uri=f"{own}/extensions"),
        uri=f"{own}/device/{one.id}",
        version=VERSION,
    )


def extensions(links: Links, user: Profile) -> Element:
    """``extensions``: numbers that ring the user's devices; none while the site routes no calls."""
    return element("extensions", uri=f"{_user_url(links, user)}/extensions", version=VERSION)


def credentials(links: Links, user: Profile, history: SignIns) -> Element:
    """``credentials``: the last sign-in, never a secret."""
    last = datetime.fromtimestamp(history.succeeded_at, UTC).isoformat() if history.succeeded_at > 0 else ""
    return element(
        "credentials",
        element(
            "credential",
            element("lastSuccessfulLogin", last),
            element("lastSuccessfulLoginIp", history.source),
            element("loginFailures", history.failures),
            type="password",
        ),
        uri=f"{_user_url(links, user)}/credentials",
        version=VERSION,
    )


def error(code: int, message: str) -> Element:
    """The body of an answer that is no success."""
    return element("errors", element("error", element("code", code), element("message", message)))
