"""The admin API of the certificates: list them, renew one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from moim.trust.credentials import CertificateInfo
from moim.trust.service import Service


def _json(info: CertificateInfo) -> dict[str, Any]:
    return asdict(info) | {"not_before": info.not_before.isoformat(), "not_after": info.not_after.isoformat()}


def admin_routes(service: Service) -> list[BaseRoute]:
    """``GET /certificates`` and ``POST /certificates/{name}/renew``.

    ``name`` is a purpose or a certificate's name. Renewing ``edge`` answers 202: the edge sends a request of its own.
    """

    async def certificates(_request: Request) -> Response:
        return JSONResponse({"certificates": [_json(info) for info in await service.certificates()]})

    async def renew(request: Request) -> Response:
        info = await service.renew(request.path_params["name"])
        if info is None:
            return JSONResponse({"requested": "edge"}, status_code=202)
        return JSONResponse(_json(info))

    return [
        Route("/certificates", certificates, methods=["GET"]),
        Route("/certificates/{name}/renew", renew, methods=["POST"]),
    ]
