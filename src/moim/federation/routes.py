"""The admin API of federation: its state, its peers, the policy of a domain, and the check of a domain."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from moim.errors import NotFound, UsageError
from moim.federation.policies import Override
from moim.federation.service import Service
from moim.federation.settings import pattern
from moim.model import domain_name
from moim.net.http_json import json_object

_MAX_BODY = 16 * 1024


def admin_routes(service: Service) -> list[BaseRoute]:
    """Routes of the admin API.

    ``GET /federation``, ``GET /federation/peers``, ``GET`` and ``DELETE /federation/peers/{domain}`` (ends its streams
    and lets it be tried at once): of all inside nodes, ``missing`` names those that did not answer. ``GET
    /federation/policies``, ``GET``, ``PUT`` and ``DELETE /federation/policies/{domain}``. ``POST /federation/check``
    answers with a JSON object in each line, the verdict last.
    """

    async def overview(_request: Request) -> Response:
        return JSONResponse(service.overview())

    async def peers(_request: Request) -> Response:
        rows, missing = await service.peers()
        return JSONResponse({"peers": rows, "missing": missing})

    async def peer(request: Request) -> Response:
        name = pattern(request.path_params["domain"])
        rows, missing = await service.peers()
        for row in rows:
            if _canonical(row["domain"]) == name:
                return JSONResponse(row | {"missing": missing})
        raise NotFound(f"nothing was exchanged with {name} yet", hint=f"try: moim federation check {name}")

    async def reset(request: Request) -> Response:
        name = pattern(request.path_params["domain"])
        streams, missing = await service.reset(name, "reset by an administrator")
        return JSONResponse({"domain": name, "streams": streams, "missing": missing})

    async def policies(_request: Request) -> Response:
        await service.refresh()
        listed = [service.policy(domain) for domain in service.policies.overrides()]
        return JSONResponse({"defaults": service.policies.of("").as_json(), "policies": listed})

    async def policy(request: Request) -> Response:
        await service.refresh()
        return JSONResponse(service.policy(request.path_params["domain"]))

    async def put_policy(request: Request) -> Response:
        given: dict[str, Any] = await json_object(request, limit=_MAX_BODY)
        return JSONResponse(await service.set_policy(request.path_params["domain"], Override.read(given)))

    async def drop_policy(request: Request) -> Response:
        await service.drop_policy(request.path_params["domain"])
        return Response(status_code=204)

    async def check(request: Request) -> Response:
        given = await json_object(request, limit=_MAX_BODY)
        domain = given.get("domain")
        if not isinstance(domain, str):
            raise UsageError("'domain' is the domain to check")
        sender = given.get("from", "")
        if not isinstance(sender, str):
            raise UsageError("'from' is the domain of this site to check it for")
        steps = service.check(domain_name(domain), domain_name(sender) if sender else "")

        async def lines() -> AsyncIterator[str]:
            async for step in steps:
                yield json.dumps(step, ensure_ascii=False) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return [
        Route("/federation/check", check, methods=["POST"]),
        Route("/federation", overview, methods=["GET"]),
        Route("/federation/peers", peers, methods=["GET"]),
        Route("/federation/peers/{domain}", peer, methods=["GET"]),
        Route("/federation/peers/{domain}", reset, methods=["DELETE"]),
        Route("/federation/policies", policies, methods=["GET"]),
        Route("/federation/policies/{domain}", policy, methods=["GET"]),
        Route("/federation/policies/{domain}", put_policy, methods=["PUT"]),
        Route("/federation/policies/{domain}", drop_policy, methods=["DELETE"]),
    ]


def _canonical(domain: str) -> str:
    """A peer's domain as an administrator may have written it; one that is no name stays as it is."""
    try:
        return pattern(domain)
    except UsageError:
        return domain
