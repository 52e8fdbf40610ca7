"""User data services: the HTTPS interface by which clients find their home cluster, profile and devices.

Paths, names and codes are those of the vendor's public API documents; the documents name no 400 and no 403, so what
a user may not read is answered with 401, and only requests that cannot be understood at all with 400.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from xml.etree.ElementTree import Element

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from moim.directory import uds_documents as documents
from moim.directory.profile import Profile, canonical
from moim.directory.users import Match, Users
from moim.errors import LimitExceeded, MoimError, NotFound, ProtocolError, Unavailable, UsageError
from moim.model import Address
from moim.net.http_clients import source_of
from moim.net.rate import RateLimit
from moim.proto import xmldoc
from moim.proto.xmlout import document

REALM = "Cisco Web Services Realm"
_PAGE, _LARGEST_PAGE = 64, 500
_BODY = 16 * 1024
_CRITERIA = {
    "first": (("first_name",), "prefix"),
    "last": (("last_name",), "prefix"),
    "name": (("display_name", "first_name", "last_name", "local"), "part"),
    "displayname": (("display_name",), "part"),
    "number": (("phone", "mobile"), "prefix"),
    "numberlast": (("phone", "mobile"), "suffix"),
    "email": (("email",), "prefix"),
}

_log = logging.getLogger("moim.directory.uds")

Handler = Callable[[Request], Awaitable[Response]]


class Links(Protocol):
    """Where the answers point to."""

    @property
    def host(self) -> str:
        """The node's DNS name."""
        ...

    @property
    def domain(self) -> str:
        """The service domain: its people are named without it."""
        ...

    @property
    def nodes(self) -> Sequence[str]:
        """The names of all inside nodes: any of them answers."""
        ...

    @property
    def base(self) -> str:
        """``https://host:port/cucm-uds``."""
        ...

    @property
    def profile_url(self) -> str:
        """The service profile's file."""
        ...

    def device_url(self, name: str) -> str:
        """A device's configuration file."""
        ...


class _Unauthorized(Exception):
    """Credentials are missing or wrong, or the account is locked for now."""


class Uds:
    """The requests of UDS over the directory's users. ``app`` is the ASGI application."""

    def __init__(
        self,
        users: Users,
        links: Links,
        *,
        search_needs_sign_in: bool,
        lookups_per_second: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._users = users
        self._links = links
        self._search_needs_sign_in = search_needs_sign_in
        self._lookups = RateLimit(per_s=lookups_per_second, burst=5 * lookups_per_second)
        self._clock = clock
        own = "/cucm-uds/user/{id}"
        self.app = Starlette(
            routes=[
                Route("/cucm-uds/version", self._open(self._version), methods=["GET"]),
                Route("/cucm-uds/servers", self._open(self._servers), methods=["GET"]),
                Route("/cucm-uds/clusterUser", self._open(self._cluster_user), methods=["GET"]),
                Route("/cucm-uds/options", self._open(self._options), methods=["GET"]),
                Route("/cucm-uds/options/installedLocales", self._open(self._locales), methods=["GET"]),
                Route("/cucm-uds/users", self._open(self._search), methods=["GET"]),
                Route(own, self._own(self._user), methods=["GET"]),
                Route(f"{own}/devices", self._own(self._devices), methods=["GET"]),
                Route(f"{own}/device/{{pkid}}", self._own(self._device), methods=["GET"]),
                Route(f"{own}/extensions", self._own(self._extensions), methods=["GET"]),
                Route(f"{own}/credentials", self._own(self._credentials), methods=["GET"]),
                Route(f"{own}/credentials", self._own(self._set_credentials), methods=["PUT"]),
                Route("/ssosp/ws/public/singleSignOn", self._open(self._single_sign_on), methods=["GET"]),
            ],
            exception_handlers={
                _Unauthorized: self._on_unauthorized,
                MoimError: self._on_error,
                HTTPException: self._on_http,
                Exception: self._on_crash,
            },
        )
        self.app.router.redirect_slashes = False

    # Who asks.

    def _open(self, work: Handler) -> Handler:
        """A request without sign-in: bounded per source, since it tells whether an address exists."""

        async def handle(request: Request) -> Response:
            if not self._lookups.take(source_of(request), self._clock()):
                _log.warning("refused %s from %s: too many requests", request.url.path, source_of(request))
                raise Unavailable("too many requests", hint="try again in a few seconds")
            return await work(request)

        return handle

    def _own(self, work: Callable[[Request, Profile], Awaitable[Response]]) -> Handler:
        """A request that only the user of its path may make."""

        async def handle(request: Request) -> Response:
            user = await self._signed_in(request)
            if not self._names(request.path_params["id"], user):
                _log.warning("refused %s to %s: not their own", request.url.path, user.address)
                raise _Unauthorized
            return await work(request, user)

        return handle

    def _names(self, given: str, user: Profile) -> bool:
        if given in (user.id, user.address.local):  # whoever signed in is sure; the short name may do
            return True
        try:
            return self._address(given) == user.address
        except UsageError:
            return False

    def _address(self, name: str) -> Address:
        """A user's name as people type it; without a domain it is of the service domain. Raises UsageError."""
        domains = self._users.domains
        return canonical(name if "@" in name else f"{name}@{domains[0]}", domains)

    async def _signed_in(self, request: Request) -> Profile:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            raise _Unauthorized
        try:
            name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
            if not colon:
                raise _Unauthorized
            address = self._address(name)
        except (binascii.Error, UnicodeDecodeError, UsageError):
            raise _Unauthorized from None
        try:
            right = await self._users.verify_password(str(address), password, source=source_of(request))
        except LimitExceeded:
            raise _Unauthorized from None  # the documents answer a locked account so, too
        user = await self._users.profile(address) if right else None
        if user is None:
            raise _Unauthorized
        return user

    # What is asked.

    async def _version(self, _request: Request) -> Response:
        return _xml(documents.version(self._links, search_needs_sign_in=self._search_needs_sign_in))

    async def _servers(self, _request: Request) -> Response:
        return _xml(documents.servers(self._links))

    async def _options(self, _request: Request) -> Response:
        return _xml(documents.options(self._links))

    async def _locales(self, _request: Request) -> Response:
        return _xml(documents.installed_locales(self._links))

    async def _single_sign_on(self, _request: Request) -> Response:
        return _xml(documents.single_sign_on())

    async def _cluster_user(self, request: Request) -> Response:
        given = {key.lower(): value.strip()[:1024] for key, value in request.query_params.items()}
        user: Profile | None = None
        if name := given.get("username") or given.get("useridentifier"):
            user = await self._by_name(name)
        if user is None and (email := given.get("email") or given.get("useridentifier")):
            user = await self._users.by_email(email)
        if not any(given.get(key) for key in ("username", "email", "useridentifier")):
            raise UsageError("clusterUser needs one of username, email, useridentifier")
        return _xml(documents.cluster_user(self._links, user if user and not user.disabled else None))

    async def _by_name(self, name: str) -> Profile | None:
        try:
            address = self._address(name)
        except UsageError:
            return None
        return await self._users.profile(address)

    async def _search(self, request: Request) -> Response:
        if self._search_needs_sign_in:
            await self._signed_in(request)
        given = {key.lower(): value.strip()[:128] for key, value in request.query_params.items()}
        matches = [Match(*rule, given[key]) for key, rule in _CRITERIA.items() if given.get(key)]
        if uri := given.get("uri", "").removeprefix("sip:").removeprefix("im:"):
            local, _, domain = uri.partition("@")
            matches.append(Match(("local",), "prefix" if not domain else "whole", local))
            matches.append(Match(("domain",), "prefix", domain))
        start = _count(given.get("start", ""), 0, 0, 1_000_000)
        wanted = _count(given.get("max", ""), _PAGE, 1, _LARGEST_PAGE)
        found, total = await self._users.page(offset=start, limit=wanted, matches=matches)
        return _xml(documents.users(self._links, found, start=start, requested=wanted, total=total))

    async def _user(self, _request: Request, user: Profile) -> Response:
        return _xml(documents.user(self._links, user))

    async def _devices(self, _request: Request, user: Profile) -> Response:
        return _xml(documents.devices(self._links, user, await self._users.devices(user)))

    async def _device(self, request: Request, user: Profile) -> Response:
        wanted = request.path_params["pkid"].lower()
        for device in await self._users.devices(user):
            if device.id == wanted:
                return _xml(documents.device(self._links, user, device))
        raise NotFound("the user has no such device")

    async def _extensions(self, _request: Request, user: Profile) -> Response:
        return _xml(documents.extensions(self._links, user))

    async def _credentials(self, _request: Request, user: Profile) -> Response:
        return _xml(documents.credentials(self._links, user, await self._users.sign_in.history(user.id)))

    async def _set_credentials(self, request: Request, user: Profile) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/xml", "text/xml"):
            raise HTTPException(415, "send application/xml")
        root = xmldoc.parse(await _body(request), max_bytes=_BODY)
        if xmldoc.name(root) != "credentials":
            raise ProtocolError("the body is not a credentials element")
        given = list(xmldoc.children(root, "credential"))
        if len(given) != 1 or given[0].get("type") != "password":
            raise ProtocolError("one credential of type 'password' can be set here")
        # The text is the new password; some clients wrap it in one more element.
        inner = given[0][0] if len(given[0]) == 1 else given[0]
        await self._users.set_password(user.address, inner.text or "")
        return Response(status_code=204)

    # Answers that are no documents.

    async def _on_unauthorized(self, _request: Request, _error: Exception) -> Response:
        answer = _xml(documents.error(401, "sign in with your own address and password"), 401)
        answer.headers["WWW-Authenticate"] = f'Basic realm="{REALM}"'
        return answer

    async def _on_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, MoimError)
        known = ((NotFound, 404), (LimitExceeded, 503), (Unavailable, 503), (UsageError, 400), (ProtocolError, 400))
        code = next((number for kind, number in known if isinstance(error, kind)), 500)
        if code == 500:
            _log.error("%s %s failed: %s", request.method, request.url.path, error)
        return _xml(documents.error(code, error.message), code)

    async def _on_http(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = _xml(documents.error(error.status_code, error.detail), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    async def _on_crash(self, request: Request, error: Exception) -> Response:
        _log.error("%s %s crashed", request.method, request.url.path, exc_info=error)
        return _xml(documents.error(500, "the server made a mistake"), 500)


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _BODY:
            raise UsageError(f"the body is longer than {_BODY} bytes")
    return bytes(data)


def _count(text: str, default: int, least: int, most: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError("start and max are numbers")
    return min(max(int(text), least), most)


def _xml(root: Element, status: int = 200) -> Response:
    return Response(document(root), status_code=status, media_type="application/xml")
