"""JSON bodies: what is none, is too large or never comes whole is refused with a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from starlette.requests import Request

from moim.errors import LimitExceeded, MoimError, UsageError
from moim.net.http_json import json_object


async def _read(*pieces: bytes, whole: bool = True, limit: int = 100) -> dict[str, Any]:
    coming = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    end = {"type": "http.request", "body": b"", "more_body": False} if whole else {"type": "http.disconnect"}

    async def receive() -> Any:
        return coming.pop(0) if coming else end

    headers: Sequence[tuple[bytes, bytes]] = [(b"content-type", b"application/json; charset=utf-8")]
    return await json_object(Request({"type": "http", "method": "POST", "headers": headers}, receive), limit=limit)


async def test_an_object_in_pieces() -> None:
    assert await _read(b'{"a', '": "모임"}'.encode()) == {"a": "모임"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", UsageError),
        (b"[]", UsageError),
        (b"[" * 90, UsageError),
        (b'{"a": "\\ud800"}', UsageError),
        (b'{"a": "\xff"}', UsageError),
        (b" " * 101, LimitExceeded),
    ],
)
async def test_what_is_no_object(body: bytes, kind: type[MoimError]) -> None:
    with pytest.raises(kind):
        await _read(body)


async def test_whoever_leaves_in_the_middle_is_told_so() -> None:
    with pytest.raises(UsageError, match="ended"):
        await _read(b'{"a":', whole=False)
