"""The admin API of the edge: tunnel, listeners, allow-list, refusals, TURN relays."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from moim.edge.connector import EdgeInsideService
from moim.edge.rules import Rule, write_csv
from moim.errors import LimitExceeded, UsageError

_MAX_CSV = 1024 * 1024


def admin_routes(service: EdgeInsideService) -> list[BaseRoute]:
    """``GET /edge``, ``/edge/rules``, ``/edge/refusals``, ``/edge/relays``; ``GET`` and ``PUT /edge/rules.csv``.

    The CSV form holds the rows for servers inside (``Url,Deployment,HttpMethods,MatchType,Description``); PUT replaces
    the administrator's rows by those of the body.
    """

    async def overview(_request: Request) -> Response:
        status = service.edge_status
        return JSONResponse(
            {
                "tunnels": [asdict(tunnel) for tunnel in service.health()],
                "listeners": [listener.model_dump() for listener in status.listeners],
                "counters": {**status.counters, **service.counters},
            }
        )

    async def rules(_request: Request) -> Response:
        manual = service.manual.rules
        inside = [_row(rule, "manual" if rule in manual else "automatic") for rule in service.inside_rules()]
        edge = [_row(rule, "automatic") for rule in service.desired().http]
        return JSONResponse({"edge": edge, "inside": inside})

    async def export(_request: Request) -> Response:
        headers = {"Content-Disposition": 'attachment; filename="allow-list.csv"'}
        return Response(write_csv(service.inside_rules()), media_type="text/csv", headers=headers)

    async def replace(request: Request) -> Response:
        taken = bytearray()
        async for chunk in request.stream():
            taken += chunk
            if len(taken) > _MAX_CSV:
                raise LimitExceeded("the allow-list is larger than 1 MiB")
        try:
            text = taken.decode("utf-8")
        except UnicodeDecodeError:
            raise UsageError("the allow-list is not UTF-8 text") from None
        manual = await service.replace_manual_rules(text)
        return JSONResponse({"rules": [_row(rule, "manual") for rule in manual]})

    async def refusals(_request: Request) -> Response:
        return JSONResponse({"refusals": [refusal.model_dump() for refusal in service.edge_status.refusals]})

    async def relays(_request: Request) -> Response:
        return JSONResponse({"relays": list(service.edge_status.relays)})

    return [
        Route("/edge", overview, methods=["GET"]),
        Route("/edge/rules", rules, methods=["GET"]),
        Route("/edge/rules.csv", export, methods=["GET"]),
        Route("/edge/rules.csv", replace, methods=["PUT"]),
        Route("/edge/refusals", refusals, methods=["GET"]),
        Route("/edge/relays", relays, methods=["GET"]),
    ]


def _row(rule: Rule, origin: str) -> dict[str, Any]:
    return {**rule.model_dump(mode="json"), "origin": origin}
