"""XEP-0156: the files on the web origin that tell clients of the other ways to connect, by BOSH and by WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from xml.sax.saxutils import quoteattr

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

_BOSH = "urn:xmpp:alt-connections:xbosh"
_WEBSOCKET = "urn:xmpp:alt-connections:websocket"
_HEADERS = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=3600", "Vary": "Host"}


class Caller(Protocol):
    """Who asks, as the web app's frame notes it in the request's state."""

    @property
    def outside(self) -> bool:
        """Whether it came through the edge."""
        ...

    @property
    def secure(self) -> bool:
        """Whether it came by HTTPS."""
        ...

    @property
    def authority(self) -> str:
        """Host and port as the client wrote them."""
        ...


def alternative_routes(*, websocket_url: str, bosh: Callable[[], bool]) -> list[BaseRoute]:
    """``/.well-known/host-meta`` and its JSON form (RFC 6415). ``websocket_url`` is for those inside.

    Whoever comes through the edge finds everything on the origin that was asked.
    """

    def links(request: Request) -> list[dict[str, str]]:
        caller: Caller = request.state.caller
        websocket = f"wss://{caller.authority}/xmpp-websocket" if caller.outside else websocket_url
        found = [{"rel": _WEBSOCKET, "href": websocket}]
        if bosh():
            scheme = "https" if caller.secure else "http"
            found.insert(0, {"rel": _BOSH, "href": f"{scheme}://{caller.authority}/http-bind"})
        return found

    async def as_xml(request: Request) -> Response:
        rows = "".join(f"<Link rel={quoteattr(x['rel'])} href={quoteattr(x['href'])}/>" for x in links(request))
        text = f"<?xml version='1.0' encoding='utf-8'?>\n<XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>{rows}</XRD>\n"
        return Response(text, media_type="application/xrd+xml", headers=_HEADERS)

    async def as_json(request: Request) -> Response:
        return JSONResponse({"links": links(request)}, headers=_HEADERS)

    return [
        Route("/.well-known/host-meta", as_xml, methods=["GET"]),
        Route("/.well-known/host-meta.json", as_json, methods=["GET"]),
    ]
