"""Three real browsers in one meeting: everybody's frames are decoded by everybody, and who leaves is missed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

pytestmark = pytest.mark.browser

_CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
_ARGUMENTS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)
_PATIENCE_S = 40


@pytest.fixture
def extra_routes() -> list[BaseRoute]:
    page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

    async def serve(_request: Request) -> Response:
        return HTMLResponse(page)

    return [Route("/", serve)]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_ARGUMENTS))
        yield browser
        await browser.close()


async def _join(browser: Browser, room: Any, **message: str) -> Page:
    page = await (await browser.new_context()).new_page()
    await page.goto(room.http)
    await page.evaluate("message => join(message)", message)
    await page.wait_for_function("state.self !== ''", timeout=_PATIENCE_S * 1000)
    return page


async def _sees(page: Page, count: int, more_than: int = 0) -> dict[str, dict[str, int]]:
    """Waits until the page has decoded more than so many frames, and heard something, of each of ``count`` others."""
    async with asyncio.timeout(_PATIENCE_S):
        seen: dict[str, dict[str, int]] = await page.evaluate(
            "([count, frames]) => until(count, frames)", [count, more_than]
        )
    return seen


async def test_three_browsers_meet_and_one_leaves(room: Any, browser: Browser) -> None:
    space = await room.service.spaces.create("Planning")
    pages = [
        await _join(browser, room, callId=space.call_id, secret=space.secret, name="하나"),
        await _join(browser, room, callId=space.call_id, passcode=space.passcode, name="Bora"),
        await _join(browser, room, callId=space.call_id, secret=space.secret, token="token-of-alice"),
    ]
    before = [await _sees(page, 2) for page in pages]
    for page, seen in zip(pages, before, strict=True):
        await _sees(page, 2, more_than=max(one["frames"] for one in seen.values()) + 30)
    assert {person["name"] for person in (await pages[0].evaluate("state.people")).values()} == {"Bora", "alice"}
    gone = await pages[2].evaluate("state.self")
    await pages[2].evaluate("leave()")
    for page in pages[:2]:
        await page.wait_for_function("id => !(id in state.people)", arg=gone, timeout=_PATIENCE_S * 1000)
        seen = await _sees(page, 1)
        assert gone not in seen
        await _sees(page, 1, more_than=max(one["frames"] for one in seen.values()) + 20)
    # A newcomer takes over the media sections of who left.
    pages[2] = await _join(browser, room, callId=space.call_id, secret=space.secret, name="Dan")
    for page in pages:
        await _sees(page, 2, more_than=10)
        assert await page.evaluate("state.errors") == []
    sections = await pages[0].evaluate("state.pc.remoteDescription.sdp.split('\\r\\nm=').length - 1")
    assert sections == 6
