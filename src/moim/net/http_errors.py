"""Errors of ``moim.errors`` as JSON over HTTP: one shape for every API of the program.

``{"error": {"code", "message", "hint"}}``; ``code`` is the class name in kebab case.
"""

from __future__ import annotations

import logging
import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moim.errors import (
    AuthError,
    ConfigError,
    Conflict,
    Forbidden,
    LimitExceeded,
    MoimError,
    NotFound,
    PeerError,
    PeerTimeout,
    Refused,
    Unavailable,
    UsageError,
)

_log = logging.getLogger("moim.net.http")

_STATUS: tuple[tuple[type[MoimError], int], ...] = (
    (AuthError, 401),
    (LimitExceeded, 429),
    (Forbidden, 403),
    (Refused, 403),
    (NotFound, 404),
    (Conflict, 409),
    (PeerTimeout, 504),
    (PeerError, 502),
    (Unavailable, 503),
    (ConfigError, 500),
    (UsageError, 400),
)


def code_of(error: MoimError) -> str:
    """``LimitExceeded`` → ``limit-exceeded``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()


def body(code: str, message: str, hint: str = "") -> dict[str, dict[str, str]]:
    """The error object as a dictionary."""
    return {"error": {"code": code, "message": message, "hint": hint}}


def response(error: MoimError) -> JSONResponse:
    """The HTTP answer to an error of the tree."""
    status = next((number for kind, number in _STATUS if isinstance(error, kind)), 500)
    return JSONResponse(body(code_of(error), error.message, error.hint), status_code=status)


async def _on_moim_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, MoimError)
    answer = response(error)
    if answer.status_code >= 500:
        _log.warning("%s %s failed: %s", request.method, request.url.path, error)
    return answer


async def _on_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        body(f"http-{error.status_code}", error.detail),
        status_code=error.status_code,
        headers=dict(error.headers or {}),
    )


async def _on_crash(request: Request, error: Exception) -> Response:
    _log.error("%s %s crashed", request.method, request.url.path, exc_info=error)
    return JSONResponse(
        body("internal", "the server made a mistake", "look into the node's log for the time of this request"),
        status_code=500,
    )


HANDLERS = {MoimError: _on_moim_error, HTTPException: _on_http_exception, Exception: _on_crash}
"""Pass to ``Starlette(exception_handlers=HANDLERS)``."""
