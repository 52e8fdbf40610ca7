"""HTTP of chat: on the web app's origin uploaded files, BOSH, and where else clients may connect; and the admin API."""

from __future__ import annotations

from typing import Protocol

from starlette.routing import BaseRoute

from moim.chat.alternatives import alternative_routes
from moim.chat.bosh import bosh_routes
from moim.chat.moving import routes as moving
from moim.chat.policy_routes import Directory as PolicyDirectory
from moim.chat.policy_routes import policy_routes
from moim.chat.service import Service
from moim.chat.uploads import upload_routes


class Directory(moving.Directory, PolicyDirectory, Protocol):
    """What administrators' requests need of the directory."""


def admin_routes(service: Service, people: Directory) -> list[BaseRoute]:
    """Moving people in and out, and policies; errors are raised and mapped by the console's frame."""
    return [*moving.admin_routes(service, people), *policy_routes(service, people)]


def public_routes(service: Service, *, websocket_url: str) -> list[BaseRoute]:
    """``/upload/…``, ``/http-bind`` and ``/.well-known/host-meta``; 503 while the service does not run.

    ``websocket_url`` is where clients inside find the WebSocket.
    """
    return [
        *upload_routes(lambda: service.uploads),
        *bosh_routes(lambda: service.bosh, lambda: service.origins),
        *alternative_routes(websocket_url=websocket_url, bosh=lambda: service.bosh is not None),
    ]
