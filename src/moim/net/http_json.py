"""What requests to an API bring, read within bounds: JSON bodies, and numbers in the query."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from moim.errors import LimitExceeded, UsageError

_MAX_BODY = 64 * 1024


async def json_object(request: Request, *, limit: int = _MAX_BODY) -> dict[str, Any]:
    """The body as a JSON object. Raises UsageError when it is none, LimitExceeded beyond ``limit`` bytes.

    Only ``application/json`` is taken: no form of another site can send that without a CORS preflight.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UsageError("the body is not JSON", hint="send Content-Type: application/json")
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > limit:
                raise LimitExceeded(f"the body is larger than {limit} bytes")
    except ClientDisconnect:
        raise UsageError("the connection ended before the body") from None
    try:
        value = json.loads(data)
        # Half a character of UTF-16 is JSON, and nothing that can be hashed, stored or sent.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise UsageError("the body is not a JSON object")
    return value


def query_number(request: Request, name: str, default: int) -> int:
    """A whole number of up to nine digits from the URL's query. Raises UsageError for anything else."""
    text = request.query_params.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UsageError(f"'{name}' is not a number")
    return int(text) if text else default
