"""BOSH over HTTP: ``/http-bind`` on the web origin, for the web pages that may also connect by WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from moim.chat.bosh.connections import Bosh
from moim.net.origins import same_host
from moim.proto.xmpp import bosh

PATH = "/http-bind"
_BODY_S = 20.0
_TYPE = "text/xml; charset=utf-8"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type",
    "Access-Control-Max-Age": "86400",
}


class Caller(Protocol):
    """Who asks, as the web app's frame notes it in the request's state."""

    @property
    def source(self) -> str:
        """The client's IP address."""
        ...

    @property
    def outside(self) -> bool:
        """Whether it came through the edge."""
        ...

    @property
    def authority(self) -> str:
        """Host and port as the client wrote them."""
        ...


def caller_of(connection: HTTPConnection) -> tuple[str, bool, str]:
    """Address, whether from outside, and host and port; without the frame's note, by the connection itself."""
    state = connection.scope.get("state", {})
    caller: Caller | None = state.get("caller")
    if caller is not None:
        return caller.source, caller.outside, caller.authority
    address = connection.client.host if connection.client else ""
    return address, state.get("outside") is True, connection.headers.get("host", "")


def bosh_routes(connections: Callable[[], Bosh | None], origins: Callable[[], Collection[str]]) -> list[BaseRoute]:
    """The route; ``connections`` is the connection manager while it runs, ``origins`` the web pages that may use it."""

    async def serve(request: Request) -> Response:
        source, outside, authority = caller_of(request)
        origin = request.headers.get("origin")
        if origin is not None and not _may(origin, authority, origins()):
            return PlainTextResponse("pages of this origin may not connect\n", 403)
        headers = {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin is not None else {}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={**headers, **_PREFLIGHT})
        manager = connections()
        if manager is None:
            return PlainTextResponse("BOSH is not available\n", 503, headers={**headers, "Retry-After": "10"})
        try:
            data = await _body(request)
        except TimeoutError:
            return PlainTextResponse(
                "the request did not arrive in time\n", 408, headers={**headers, "Connection": "close"}
            )
        except ClientDisconnect:
            return Response(status_code=400)
        if data is None:
            answer = bosh.ending("policy-violation")
        else:
            answer = await manager.request(data, source, outside=outside)
        return Response(answer, media_type=_TYPE, headers={**headers, "Cache-Control": "no-store"})

    async def explain(_request: Request) -> Response:
        return PlainTextResponse("This is BOSH (XEP-0124): a chat client sends its requests here.\n")

    return [Route(PATH, serve, methods=["POST", "OPTIONS"]), Route(PATH, explain, methods=["GET"])]


def _may(origin: str, authority: str, origins: Collection[str]) -> bool:
    return origin in origins or "*" in origins or same_host(origin, authority)


async def _body(request: Request) -> bytes | None:
    """The request's body; None when it is too large."""
    data = bytearray()
    async with asyncio.timeout(_BODY_S):
        async for piece in request.stream():
            data += piece
            if len(data) > bosh.MAX_BODY:
                return None
    return bytes(data)
