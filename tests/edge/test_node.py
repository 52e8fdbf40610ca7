"""Both halves of the edge together: the tunnel comes up, breaks and comes back; state, certificate and health follow."""

from __future__ import annotations

import asyncio
import socket
import stat

import pytest

from moim.edge import Target

from .conftest import House, Upstream

GET = b"GET / HTTP/1.1\r\nHost: edge.moim.test:18443\r\nConnection: close\r\n\r\n"


async def test_a_request_from_outside_reaches_the_web_target(house: House, upstream: Upstream) -> None:
    house.targets["web"] = Target(path=upstream.path)
    await house.start()
    answer = await house.raw(GET)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"via: 1.1 moim-edge" in answer.lower()
