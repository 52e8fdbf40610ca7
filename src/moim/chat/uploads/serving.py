"""Files over HTTP: PUT fills a slot once, GET gives the file, and nothing that a file says is believed by a browser.

A file's URL is its secret: whoever has it may read, from any site and any web page. Files lie on the web app's own
origin, so none of them may run there: a closed sandbox, no sniffing, and shown in place only when it is a picture,
sound, film or plain text.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from moim.chat.uploads.files import Upload
from moim.chat.uploads.slots import PATH, Uploads
from moim.errors import Conflict, MoimError, ProtocolError, Unavailable

_IDLE_S = 30.0
_LEAST_RATE = 4096  # bytes per second that an upload must make in the long run
_SPARE_S = 60.0
_YEAR = 365 * 86_400
_INLINE = frozenset(
    {
        *("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp", "image/heic"),
        *("audio/mpeg", "audio/mp4", "audio/aac", "audio/ogg", "audio/opus", "audio/webm", "audio/wav", "audio/flac"),
        *("video/mp4", "video/webm", "video/ogg", "video/quicktime", "text/plain"),
    }
)
# Types that a browser would run or apply on this origin are told as nothing but bytes.
_HARMLESS = re.compile(r"(?:image|audio|video|font)/(?!svg)[a-z0-9.+-]+|application/(?:pdf|zip|gzip|octet-stream)")
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Content-Length, Content-Range, Content-Disposition, Accept-Ranges, ETag",
}
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, OPTIONS",
    "Access-Control-Allow-Headers": "Content-Type, Range, If-None-Match, If-Range",
    "Access-Control-Max-Age": "86400",
}

_log = logging.getLogger("moim.chat.uploads")

Handler = Callable[[Uploads, Request], Awaitable[Response]]


def upload_routes(uploads: Callable[[], Uploads | None]) -> list[BaseRoute]:
    """The routes below ``/upload``; ``uploads`` is the service while it runs."""

    def route(handler: Handler, *methods: str) -> Route:
        async def serve(request: Request) -> Response:
            service = uploads()
            if service is None:
                return _text(503, "uploads are not available at the moment", {"Retry-After": "10"})
            try:
                return await handler(service, request)
            except Unavailable as error:
                _log.error("%s %s failed: %s", request.method, request.url.path[:100], error)
                return _text(503, error.message, {"Retry-After": "60"})

        return Route(PATH + "/{id}/{name}", serve, methods=list(methods))

    return [route(_get, "GET", "HEAD"), route(_put, "PUT"), route(_options, "OPTIONS")]


def _text(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(
        sentence + "\n", status, headers={"Cache-Control": "no-store", **_CORS, **_sandbox(), **(headers or {})}
    )


def _sandbox() -> dict[str, str]:
    return {
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


async def _options(_uploads: Uploads, _request: Request) -> Response:
    return Response(status_code=204, headers={**_CORS, **_PREFLIGHT})


async def _find(uploads: Uploads, request: Request) -> Upload | None:
    found = await uploads.files.find(request.path_params["id"])
    return found if found is not None and found.name == request.path_params["name"] else None


async def _get(uploads: Uploads, request: Request) -> Response:
    upload = await _find(uploads, request)
    if upload is None or not upload.stored:
        return _text(404, "there is no such file, or its time is over")
    path = uploads.files.path(upload.id)
    try:
        stat = await asyncio.to_thread(path.stat)
    except FileNotFoundError:
        _log.error("the file of upload %s is missing on the disk", upload.id[:6])
        return _text(404, "there is no such file any more")
    inline = upload.type in _INLINE
    kind = upload.type if inline or _HARMLESS.fullmatch(upload.type) else "application/octet-stream"
    left = max(0, min(_YEAR, int(upload.expires_at - time.time())))
    tag = f'"{upload.id}"'
    headers = {
        "Cache-Control": f"public, max-age={left}, immutable",
        "Content-Disposition": f"{'inline' if inline else 'attachment'}; {_disposition(upload.name)}",
        "Content-Type": f"{kind}; charset=utf-8" if kind == "text/plain" else kind,
        "ETag": tag,
        **_CORS,
        **_sandbox(),
    }
    if tag in [known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, headers=headers, stat_result=stat)


def _disposition(name: str) -> str:
    """The file name for a header: for everybody (RFC 6266), and once more in ASCII for programs that read no other."""
    plain = "".join(char if " " <= char <= "~" and char not in '"\\' else "_" for char in name)
    return f"filename=\"{plain}\"; filename*=utf-8''{quote(name, safe='')}"


async def _put(uploads: Uploads, request: Request) -> Response:
    upload = await _find(uploads, request)
    token = request.query_params.get("token", "")
    if upload is None or not hmac.compare_digest(uploads.token(upload).encode(), token.encode()):
        _log.warning("an upload from %s is refused: no such slot", request.client.host if request.client else "?")
        return _refuse(403, "there is no such slot, or its time is over")
    if upload.stored:
        return _refuse(409, "this slot is used already")
    length = request.headers.get("content-length")
    if length is not None and length != str(upload.size):
        too_much = length.isascii() and length.isdigit() and int(length[:19]) > upload.size
        return _refuse(413 if too_much else 400, f"the slot is for {upload.size} bytes")
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if upload.type and given and given != upload.type:
        return _refuse(415, f"the slot is for {upload.type}")
    try:
        await uploads.files.receive(upload, _pieces(request, upload.size), upload.type or given[:127])
    except Conflict as error:
        return _refuse(409, error.message)
    except ProtocolError as error:
        return _refuse(413 if error.message.startswith("more") else 400, error.message)
    except TimeoutError:
        return _refuse(408, "the file did not arrive in time")
    except ClientDisconnect:
        return _refuse(400, "the connection ended before the file")
    except Unavailable as error:
        _log.error("an upload of %s failed: %s", upload.owner, error)
        return _refuse(507, error.message)
    except MoimError as error:
        _log.error("an upload of %s failed: %s", upload.owner, error)
        return _refuse(500, "the file could not be stored")
    _log.info("%s uploaded %d bytes (%s)", upload.owner, upload.size, upload.type or given or "no type")
    return Response(status_code=201, headers={**_CORS, "Cache-Control": "no-store"})


def _refuse(status: int, sentence: str) -> Response:
    """An answer to a PUT whose body may be unread: the connection ends with it."""
    return _text(status, sentence, {"Connection": "close"})


async def _pieces(request: Request, size: int) -> AsyncIterator[bytes]:
    """The body. Raises TimeoutError when it stalls, or comes so slowly that it would hold its place for ever."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _SPARE_S + size / _LEAST_RATE
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout_at(min(end, loop.time() + _IDLE_S)):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        yield piece
