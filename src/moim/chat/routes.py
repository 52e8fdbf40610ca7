"""HTTP of chat on the web app's origin: uploaded files, BOSH, and where else clients may connect."""

from __future__ import annotations

from starlette.routing import BaseRoute

from moim.chat.alternatives import alternative_routes
from moim.chat.bosh import bosh_routes
from moim.chat.service import Service
from moim.chat.uploads import upload_routes


def public_routes(service: Service, *, websocket_url: str) -> list[BaseRoute]:
    """``/upload/…``, ``/http-bind`` and ``/.well-known/host-meta``; 503 while the service does not run.

    ``websocket_url`` is where clients inside find the WebSocket.
    """
    return [
        *upload_routes(lambda: service.uploads),
        *bosh_routes(lambda: service.bosh, lambda: service.origins),
        *alternative_routes(websocket_url=websocket_url, bosh=lambda: service.bosh is not None),
    ]
