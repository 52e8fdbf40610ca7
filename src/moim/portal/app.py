"""The portal as one ASGI application: host check and security headers around the API, other rooms' routes, the app."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moim.errors import Forbidden
from moim.net import http_errors
from moim.portal.api import Api
from moim.portal.assets import Assets
from moim.portal.caller import Hosts, caller_of
from moim.portal.policy import security_headers

_log = logging.getLogger("moim.portal")


class _Frame:
    """Judges the Host header, notes the caller for the handlers, and puts the security headers on every answer.

    A handler's own headers count: a file that people uploaded is locked up tighter than the app's pages.
    """

    def __init__(self, app: ASGIApp, *, hosts: Hosts, api: Api, secure: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._api = api
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        caller = caller_of(connection, secure=self._secure)
        if not self._hosts.serves(caller.authority):
            _log.warning(
                "refused %s from %s: host %r is not ours", scope["path"], caller.source, caller.authority[:100]
            )
            await self._refuse(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        chat = urlsplit(self._api.chat_url(caller))
        headers = security_headers(
            (f"{chat.scheme}://{chat.netloc}", caller.websocket_origin),
            hsts=caller.secure and _is_name(caller.authority),
        )

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                written = MutableHeaders(scope=message)
                for name, value in headers.items():
                    written.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, guarded)

    @staticmethod
    async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = http_errors.response(
            Forbidden("this server does not answer to that name", hint="open the address that 'moim status' shows")
        )
        answer.status_code = 421
        await answer(scope, receive, send)


def _is_name(authority: str) -> bool:
    last = authority.partition(":")[0].rpartition(".")[2]
    return not authority.startswith("[") and not last.isdigit() and last != "localhost"


def web_application(
    *, api: Api, assets: Assets, hosts: Hosts, extra_routes: Sequence[BaseRoute], secure: bool
) -> Starlette:
    """The application. ``extra_routes`` come from other rooms; ``secure`` is whether the direct listener has TLS."""

    async def page(request: Request) -> Response:
        return assets.page(request)

    async def file(request: Request) -> Response:
        return assets.file(request)

    return Starlette(
        routes=[
            *api.routes(),
            *extra_routes,
            Route("/", page, methods=["GET"]),
            Route("/meeting", page, methods=["GET"]),
            Route("/meeting/{rest:path}", page, methods=["GET"]),
            Route("/{path:path}", file, methods=["GET"]),
        ],
        middleware=[Middleware(_Frame, hosts=hosts, api=api, secure=secure)],
        exception_handlers=dict(http_errors.HANDLERS),
    )
