"""Sign-in through the edge, the inner half: edge configuration and the session cookie, as ``moim.proto.mra`` has them.

An ASGI application on a Unix socket that only the tunnel's target ``mra`` leads to; ``X-Forwarded-For`` is the edge's.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from moim.edge.mra_proxy import InsideProxy
from moim.edge.sessions import EdgeSession, Sessions
from moim.errors import AuthError, Forbidden, LimitExceeded, MoimError, NotFound, ProtocolError, UsageError
from moim.model import Address
from moim.proto import mra

_ASKED = 16
_KNOWN_SERVICES = frozenset((*mra.SERVICES, "_cisco-phone-tftp"))
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"]
_log = logging.getLogger("moim.edge.mra")


class PasswordVerifier(Protocol):
    """Checks a user's password: the directory."""

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        """Whether it is right; ``source`` is the client's IP address. Raises LimitExceeded while it has to wait."""
        ...


class InternalSrv(Protocol):
    """Looks SRV records up as a client inside would."""

    async def __call__(self, name: str) -> Sequence[tuple[int, int, int, str]]:
        """(priority, weight, port, host) for ``_cisco-uds._tcp.example.com``. Raises NotFound when there is none."""
        ...


class MraApp:
    """The application. ``base`` is what every edge configuration says besides the services asked for."""

    def __init__(
        self,
        *,
        site_domains: Sequence[str],
        domains: Sequence[str],
        base: mra.EdgeConfig,
        verifier: PasswordVerifier,
        internal_srv: InternalSrv,
        sessions: Sessions,
        proxy: InsideProxy,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._site_domains = tuple(site_domains)
        self._domains = frozenset(domains)
        self._base = base
        self._verifier = verifier
        self._internal_srv = internal_srv
        self._sessions = sessions
        self._proxy = proxy
        self.asgi = Starlette(routes=[Route("/{rest:path}", self._answer, methods=_METHODS)])

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._route(request)
        except AuthError as error:
            self.counters["sign_ins.refused"] += 1
            challenge = {"WWW-Authenticate": f'Basic realm="{mra.REALM}"', "Server": mra.SERVER_INSIDE}
            return PlainTextResponse(error.message + "\n", 401, challenge)
        except LimitExceeded as error:
            self.counters["sign_ins.refused"] += 1
            return PlainTextResponse(str(error) + "\n", 429, {"Retry-After": "30", "Server": mra.SERVER_INSIDE})
        except Forbidden as error:
            _log.warning("refused %s: %s", _client(request) or "a client", error.message)
            return PlainTextResponse(error.message + "\n", 403, {"Server": mra.SERVER_BORDER})
        except ProtocolError as error:
            return PlainTextResponse(error.message + "\n", 404, {"Server": mra.SERVER_INSIDE})
        except MoimError as error:
            _log.error("could not answer %s: %s", request.url.path[:100], error)
            return PlainTextResponse(error.message + "\n", 503, {"Retry-After": "5", "Server": mra.SERVER_INSIDE})

    async def _route(self, request: Request) -> Response:
        target = _target(request)
        path = target.partition("?")[0].rstrip("/")
        if path.endswith("/get_edge_config"):
            return await self._edge_config(request, target)
        if path.count("/") == 2 and path.endswith("/get_edge_sso"):
            return self._edge_sso(path)
        place = mra.parse_proxied_path(target)
        self._hosted(place.domain)
        session = self._sessions.find(mra.read_cookie(request.headers.get("cookie", "")))
        # Credentials that are sent along are checked here even with a session: inside, every client of the edge has
        # the same source address, and one that guesses there would lock the others out.
        basic = request.headers.get("authorization", "").lower().startswith("basic ")
        credentials = None
        if basic or session is None:
            user, password = await self._sign_in(request, place.domain)
            if user.domain != self._site_domains[0]:
                credentials = f"{user}:{password}"  # inside, a name alone is one of the service domain
        elif session.domain != place.domain:
            raise Forbidden("the session is for another domain")
        self.counters["proxied"] += 1
        return await self._proxy.forward(request, place, credentials=credentials)

    async def _edge_config(self, request: Request, target: str) -> Response:
        domain, asked = mra.parse_edge_config_request(target)
        self._hosted(domain)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("only GET is offered here\n", 405, {"Allow": "GET, HEAD"})
        user, _ = await self._sign_in(request, domain)
        names = dict.fromkeys(asked or mra.SERVICES)
        services = [await self._service(name, domain) for name in list(names)[:_ASKED]]
        document = mra.build_edge_config(
            mra.EdgeConfig(
                services=(*services, *self._base.services),
                sip=self._base.sip,
                sip_routes=self._base.sip_routes,
                xmpp=self._base.xmpp,
                http=self._base.http,
                turn=self._base.turn,
                user_uds=self._base.user_uds,
            )
        )
        value, session = self._sessions.open(user, domain)
        self.counters["sign_ins.accepted"] += 1
        _log.info("%s signed in through the edge from %s", user, _client(request) or "?")
        headers = {
            "Set-Cookie": self._cookie(value, session).set_cookie(),
            "Server": mra.SERVER_INSIDE,
            "Cache-Control": "no-store",
        }
        return Response(document, media_type="text/xml", headers=headers)

    def _edge_sso(self, path: str) -> Response:
        """Whether single sign-on is offered: it is not, so clients go on with credentials.

        The body of the answer is not publicly documented; this is the form of the call manager's own probe.
        """
        self._hosted(mra.decode_token(path[1:].partition("/")[0]).lower())
        body = b'<?xml version="1.0" encoding="UTF-8"?>\n'
        body += b'<Response><SingleSignOn version="1.0"><Status enabled="false"/></SingleSignOn></Response>'
        return Response(body, media_type="text/xml", headers={"Server": mra.SERVER_INSIDE, "Cache-Control": "no-store"})

    def _hosted(self, domain: str) -> None:
        if domain not in self._domains:
            raise Forbidden("this domain is not enabled on the edge")

    async def _service(self, name: str, domain: str) -> mra.Service:
        if name not in _KNOWN_SERVICES:
            return mra.Service(name[:64], error="NameError")
        try:
            records = await self._internal_srv(f"{name}._tcp.{domain}")
        except NotFound:
            records = ()
        if not records:
            return mra.Service(name, error="NameError")
        return mra.Service(name, servers=tuple(mra.Srv(p, w, port, host.rstrip(".")) for p, w, port, host in records))

    async def _sign_in(self, request: Request, domain: str) -> tuple[Address, str]:
        """The user of the request's Basic credentials, and the password. Raises AuthError, LimitExceeded.

        A name alone is of the voice services domain that is asked for, or of the service domain when nobody has
        addresses in that one.
        """
        name, password = _basic(request)
        service = self._site_domains[0]
        try:
            user = Address.parse(name if "@" in name else f"{name}@{domain}")
        except UsageError:
            raise AuthError("the user name or the password is wrong") from None
        if user.domain == domain and domain not in self._site_domains:
            user = Address(user.local, service)
        if not await self._verifier.verify_password(str(user), password, source=_client(request)):
            raise AuthError("the user name or the password is wrong")
        return user, password

    def _cookie(self, value: str, session: EdgeSession) -> mra.EdgeCookie:
        return mra.EdgeCookie(value, datetime.fromtimestamp(session.expires, UTC), self._site_domains[0])


def _basic(request: Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic" or len(encoded) > 4096:
        raise AuthError("credentials are needed")
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        raise AuthError("the credentials cannot be read") from None
    if not colon or not name or not password:
        raise AuthError("the credentials are not complete")
    return name, password


def _client(request: Request) -> str:
    return request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()[:45]


def _target(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    query: bytes = request.scope.get("query_string", b"")
    return (raw + (b"?" + query if query else b"")).decode("ascii", "replace")
