"""HTTP of meetings: people's own spaces and the WebSocket on the web app, all spaces for administrators."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from moim.errors import AuthError, LimitExceeded, UsageError
from moim.meetings.messages import Refusal
from moim.meetings.service import Service
from moim.meetings.signalling import client_of
from moim.meetings.spaces import PAGE, Space
from moim.model import Address
from moim.net.http_json import json_object, query_number

COOKIE = "moim_session"  # the web app's
_MAX_BODY = 16 * 1024
_NO_STORE = {"Cache-Control": "no-store"}


def as_json(service: Service, space: Space) -> dict[str, Any]:
    """A space for those who may hand it out: everything that lets people in."""
    return {
        "id": space.id,
        "name": space.name,
        "callId": space.call_id,
        "passcode": space.passcode,
        "link": service.link(space),
    }


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"'{name}' is not a text")
    return value


def _user(service: Service, connection: HTTPConnection) -> Address:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        token = connection.cookies.get(COOKIE, "")
    user = service.sessions.user_for(token.strip()) if token else None
    if user is None:
        raise AuthError("nobody is signed in here", hint="sign in")
    return user


def public_routes(service: Service) -> list[BaseRoute]:
    """Routes of the web app: ``/meet/ws``, ``/api/spaces`` for who is signed in, ``/api/meeting/{callId}`` for all."""

    async def list_own(request: Request) -> Response:
        owner = _user(service, request)
        found, total = await service.spaces.page(
            owner=owner, offset=query_number(request, "offset", 0), limit=query_number(request, "limit", PAGE)
        )
        spaces = [as_json(service, space) for space in found]
        return JSONResponse({"spaces": spaces, "total": total}, headers=_NO_STORE)

    async def create_own(request: Request) -> Response:
        owner = _user(service, request)
        given = await json_object(request, limit=_MAX_BODY)
        space = await service.spaces.create(
            _text(given, "name") or "", owner=owner, passcode=_text(given, "passcode") or None
        )
        return JSONResponse(as_json(service, space), status_code=201, headers=_NO_STORE)

    async def remove_own(request: Request) -> Response:
        await service.remove_space(request.path_params["space"], owner=_user(service, request))
        return Response(status_code=204)

    async def look(request: Request) -> Response:
        call_id, secret = request.path_params["call_id"][:64], request.query_params.get("secret", "")[:128]
        client, _ = client_of(request)
        try:
            space = await service.admission.look_up(call_id, secret, client)
        except Refusal as refusal:
            raise LimitExceeded(refusal.message, hint=refusal.hint) from None
        # The same answer whether the call exists or not, so that nobody finds call IDs by asking.
        answer = {"callId": space.call_id if space else call_id} | ({"name": space.name} if space else {})
        return JSONResponse(answer, headers=_NO_STORE)

    return [
        WebSocketRoute("/meet/ws", service.signalling.serve),
        Route("/api/spaces", list_own, methods=["GET"]),
        Route("/api/spaces", create_own, methods=["POST"]),
        Route("/api/spaces/{space}", remove_own, methods=["DELETE"]),
        Route("/api/meeting/{call_id}", look, methods=["GET"]),
    ]


def admin_routes(service: Service) -> list[BaseRoute]:
    """Routes of the admin API: ``/spaces`` and ``/meetings``. A space goes by its GUID or its call ID."""

    def full(space: Space) -> dict[str, Any]:
        owner = str(space.owner) if space.owner is not None else None
        return as_json(service, space) | {"owner": owner, "createdAt": space.created_at}

    async def list_spaces(request: Request) -> Response:
        owner = request.query_params.get("owner", "")
        found, total = await service.spaces.page(
            owner=Address.parse(owner) if owner else None,
            offset=query_number(request, "offset", 0),
            limit=query_number(request, "limit", PAGE),
        )
        return JSONResponse({"spaces": [full(space) for space in found], "total": total})

    async def create_space(request: Request) -> Response:
        given = await json_object(request, limit=_MAX_BODY)
        owner, passcode = _text(given, "owner"), _text(given, "passcode")
        space = await service.spaces.create(
            _text(given, "name") or "", owner=Address.parse(owner) if owner else None, passcode=passcode or None
        )
        return JSONResponse(full(space), status_code=201)

    async def get_space(request: Request) -> Response:
        return JSONResponse(full(await service.spaces.get(request.path_params["space"])))

    async def change_space(request: Request) -> Response:
        given = await json_object(request, limit=_MAX_BODY)
        renew = given.get("regenerateSecret", False)
        if not isinstance(renew, bool):
            raise UsageError("'regenerateSecret' is true or false")
        space = await service.spaces.update(
            request.path_params["space"],
            name=_text(given, "name"),
            passcode=_text(given, "passcode"),
            regenerate_secret=renew,
        )
        return JSONResponse(full(space))

    async def remove_space(request: Request) -> Response:
        await service.remove_space(request.path_params["space"])
        return Response(status_code=204)

    async def list_meetings(_request: Request) -> Response:
        return JSONResponse({"meetings": list(service.live.snapshot())})

    return [
        Route("/spaces", list_spaces, methods=["GET"]),
        Route("/spaces", create_space, methods=["POST"]),
        Route("/spaces/{space}", get_space, methods=["GET"]),
        Route("/spaces/{space}", change_space, methods=["PATCH"]),
        Route("/spaces/{space}", remove_space, methods=["DELETE"]),
        Route("/meetings", list_meetings, methods=["GET"]),
    ]
