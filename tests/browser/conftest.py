"""A browser, and the web app on stand-ins: the portal for real, Prosody for chat, ``stand_in`` for the other rooms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.async_api import Browser, Page, async_playwright

from browser.pages import launch, new_context
from browser.prosody import Prosody
from browser.stand_in import MIXER, Meetings, People, discover
from moim.bus import Bus
from moim.portal import Service, Settings, make_sessions
from moim.settings import Site, SiteSettings

DOMAIN = "moim.test"
PEOPLE = {
    "alice": ("Alice Kim", "correct horse 1"),
    "bob": ("박보배", "correct horse 2"),
    "carol": ("Carol Lee", "correct horse 3"),
}


@dataclass
class StandIn:
    """The running web app; ``url`` is where to open it."""

    url: str
    prosody: Prosody
    meetings: Meetings
    portal: Service

    def password(self, local: str) -> str:
        return PEOPLE[local][1]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium."""
    async with async_playwright() as playwright:
        chromium = await launch(playwright)
        yield chromium
        await chromium.close()


NewPage = Callable[..., Awaitable[Page]]


@pytest.fixture
async def new_page(browser: Browser) -> NewPage:
    """``await new_page(locale="ko-KR", viewport=PHONE, dark=True)``: a page with cookies and storage of its own."""

    async def make(**options: object) -> Page:
        context = await new_context(browser, **options)  # type: ignore[arg-type]
        return await context.new_page()

    return make


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StandIn]:
    """The web app without the other rooms."""
    prosody = Prosody(tmp_path, DOMAIN, {name: password for name, (_, password) in PEOPLE.items()})
    settings = Settings()
    site = Site(tmp_path, SiteSettings(domain=DOMAIN), {"portal": settings})
    sessions = make_sessions(settings)
    meetings = Meetings(sessions, "http://127.0.0.1")
    portal = Service(
        site,
        Bus(),
        users=People(DOMAIN, PEOPLE),
        discover=discover,
        websocket_url=prosody.url,
        credential=_no_credential,
        extra_routes=meetings.routes(),
        sessions=sessions,
        port=0,
    )
    prosody.start()
    await portal.start()
    yield StandIn(portal.url.rstrip("/"), prosody, meetings, portal)
    await portal.stop()
    prosody.stop()


@pytest.fixture
async def mixer(stand_in: StandIn, browser: Browser) -> Meetings:
    """The stand-in meeting server with its media side running."""
    page = await browser.new_page()
    await page.goto("about:blank")
    await page.add_script_tag(content=MIXER.read_text())
    stand_in.meetings.mixer = page
    return stand_in.meetings


def _no_credential(purpose: str) -> NoReturn:
    raise AssertionError(f"loopback needs no certificate for {purpose}")
