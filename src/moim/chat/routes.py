"""HTTP of chat: uploaded files, on the web app's origin."""

from __future__ import annotations

from starlette.routing import BaseRoute

from moim.chat.service import Service
from moim.chat.uploads import upload_routes


def public_routes(service: Service) -> list[BaseRoute]:
    """Routes of the web origin: ``/upload/…``. They answer 503 while the service does not run."""
    return upload_routes(lambda: service.uploads)
