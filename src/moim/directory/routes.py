"""The admin API of the directory: users, their passwords, and the import with its progress line by line."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, Protocol, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from moim.directory.bulk_import import Importer, Report, count
from moim.directory.profile import FIELDS, Profile
from moim.directory.users import PAGE, Match, Users
from moim.errors import LimitExceeded, MoimError, UsageError
from moim.net import http_errors
from moim.net.http_json import json_object, query_number

_CSV = 64 * 1024 * 1024
_IN_MEMORY = 1024 * 1024


class Directory(Protocol):
    """What the routes need of the room's service."""

    @property
    def users(self) -> Users:
        """The people."""
        ...

    def importer(self) -> Importer:
        """One import."""
        ...


def as_json(profile: Profile) -> dict[str, Any]:
    """A person for administrators; never anything of the password."""
    return {
        "id": profile.id,
        "address": str(profile.address),
        **{field: getattr(profile, field) for field in FIELDS},
        "account_type": profile.account_type,
        "disabled": profile.disabled,
        "created_at": profile.created_at,
        "updated_at": profile.updated_at,
    }


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"'{name}' is missing or not a text")
    return value


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in ("1", "true", "yes")


def admin_routes(service: Directory) -> list[BaseRoute]:
    """Routes of ``/users``; errors are raised and mapped by the console's frame."""

    async def list_users(request: Request) -> Response:
        query = request.query_params.get("query", "").strip()[:128]
        matches = [Match(("local", "display_name", "email", "last_name", "first_name"), "part", query)] if query else []
        found, total = await service.users.page(
            offset=query_number(request, "offset", 0), limit=query_number(request, "limit", PAGE), matches=matches
        )
        return JSONResponse({"users": [as_json(one) for one in found], "total": total})

    async def add_user(request: Request) -> Response:
        given = await json_object(request)
        address = _text(given.pop("address", None), "address")
        password = given.pop("password", None)
        if password is not None:
            _text(password, "password")
        fields = {name: _text(value, name) for name, value in given.items()}
        profile = await service.users.add(address, password, **fields)
        return JSONResponse(as_json(profile), status_code=201)

    async def get_user(request: Request) -> Response:
        return JSONResponse(as_json(await service.users.get(request.path_params["address"])))

    async def change_user(request: Request) -> Response:
        changes = await json_object(request)
        return JSONResponse(as_json(await service.users.update(request.path_params["address"], changes)))

    async def remove_user(request: Request) -> Response:
        await service.users.remove(request.path_params["address"])
        return Response(status_code=204)

    async def set_password(request: Request) -> Response:
        given = await json_object(request)
        password = _text(given.get("password"), "password")
        await service.users.set_password(request.path_params["address"], password)
        return Response(status_code=204)

    async def import_users(request: Request) -> Response:
        file = await _spool(request)
        try:
            # First, so that a file that cannot be used is answered as an error.
            total = await asyncio.to_thread(count, file)
        except BaseException:
            file.close()
            raise
        lines = _import_lines(service.importer(), file, total, all_or_nothing=_flag(request, "all_or_nothing"))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    return [
        Route("/users", list_users, methods=["GET"]),
        Route("/users", add_user, methods=["POST"]),
        Route("/users/import", import_users, methods=["POST"]),
        Route("/users/{address}", get_user, methods=["GET"]),
        Route("/users/{address}", change_user, methods=["PATCH"]),
        Route("/users/{address}", remove_user, methods=["DELETE"]),
        Route("/users/{address}/password", set_password, methods=["PUT"]),
    ]


async def _spool(request: Request) -> BinaryIO:
    """The body in a file, since an import reads it twice and must not hold the client up."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("text/csv", "application/octet-stream", ""):
        raise UsageError(f"the body is {kind}", hint="send text/csv")
    file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _CSV:
                raise LimitExceeded(f"the file is larger than {_CSV >> 20} MiB", hint="split it")
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return cast(BinaryIO, file)


async def _import_lines(
    importer: Importer, file: BinaryIO, total: int, *, all_or_nothing: bool
) -> AsyncIterator[bytes]:
    """Progress lines while the import runs, then the report or the error that ended it."""
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def tell(report: Report) -> None:
        queue.put_nowait(report.progress())

    async def work() -> dict[str, Any]:
        try:
            return (await importer.run(file, total=total, all_or_nothing=all_or_nothing, progress=tell)).final()
        except MoimError as error:
            return dict(http_errors.body(http_errors.code_of(error), error.message, error.hint))
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(work(), name="directory:import")
    try:
        while (line := await queue.get()) is not None:
            yield json.dumps(line).encode() + b"\n"
        yield json.dumps(await task, ensure_ascii=False).encode() + b"\n"
    finally:
        task.cancel()
        file.close()
