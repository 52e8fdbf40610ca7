"""Pictures of every screen for people to look at, in ``tests/artifacts/web``: desktop and phone, Korean and English."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import ViewportSize, expect

from browser.pages import DESKTOP, PHONE, Home, Meeting, SignIn
from browser.stand_in import Meetings

from .conftest import NewPage, StandIn

pytestmark = [pytest.mark.browser, pytest.mark.interop]
SHOTS = Path(__file__).parents[1] / "artifacts" / "web"
ALICE, BOB = "alice@moim.test", "bob@moim.test"
LOOKS = [
    ("desktop-en", DESKTOP, "en-GB", False),
    ("desktop-ko-dark", DESKTOP, "ko-KR", True),
    ("phone-ko", PHONE, "ko-KR", False),
    ("phone-en-dark", PHONE, "en-GB", True),
]


@pytest.mark.parametrize(("look", "viewport", "locale", "dark"), LOOKS, ids=[look[0] for look in LOOKS])
async def test_every_screen(
    stand_in: StandIn,
    new_page: NewPage,
    mixer: Meetings,
    look: str,
    viewport: ViewportSize,
    locale: str,
    dark: bool,
) -> None:
    async def fits(screen: SignIn | Home | Meeting, name: str) -> None:
        wide = await screen.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is {wide} px too wide"
        await screen.shot(SHOTS / f"{look}-{name}.png")

    options = {"locale": locale, "viewport": viewport, "dark": dark}
    page = SignIn(await new_page(**options), stand_in.url)
    await page.open()
    await fits(page, "01-signin")
    await page.submit(ALICE, "wrong")
    await expect(page.at("signin-error")).to_be_visible()
    await fits(page, "02-signin-error")
    alice = await page.sign_in(ALICE, stand_in.password("alice"))
    await fits(alice, "03-nobody")
    await alice.at("contact-add").click()
    await fits(alice, "04-add-contact")
    await alice.page.keyboard.press("Escape")

    bob = await SignIn(await new_page(), stand_in.url).sign_in(BOB, stand_in.password("bob"))
    await bob.add_contact(ALICE)
    await expect(alice.at(f"request-{BOB}")).to_be_visible()
    await fits(alice, "05-request")
    await alice.accept(BOB)
    await alice.sees(BOB, "available")
    await bob.say("안녕하세요, 앨리스 님 👋🏽")
    await bob.say(
        "오늘 회의 자료를 정리했습니다. 아래 링크에서 볼 수 있어요: https://files.moim.test/2026/11/weekly-review"
    )
    await fits(alice, "06-unread")
    await alice.open_chat(BOB)
    await alice.say("Thanks! I will read it before the meeting. 🎉")
    await alice.say("Shall we start at 14:00?")
    await bob.say("네, 14시에 시작하죠.")
    await bob.set_presence("away")
    await expect(alice.at("chat-message")).to_have_count(5)
    await expect(alice.at("chat-presence")).to_have_attribute("data-presence", "away")
    await fits(alice, "07-chat")
    stand_in.prosody.stop()
    await expect(alice.at("connection")).to_have_attribute("data-state", "waiting")
    await alice.say("이 메시지는 나중에 갑니다.")
    await fits(alice, "08-offline")
    stand_in.prosody.start()
    await alice.connected()
    if viewport is PHONE:
        await alice.at("chat-back").click()
    await alice.at("account").click()
    await alice.at("connection-details").click()
    await fits(alice, "09-account")
    await alice.page.keyboard.press("Escape")

    link = await alice.create_space("디자인 검토 Design review")
    await fits(alice, "10-meetings")
    await alice.page.goto(link)
    host = Meeting(alice.page, stand_in.url)
    await expect(host.at("meeting-join")).to_be_enabled()
    await fits(host, "11-preview")
    await host.join()
    await fits(host, "12-alone")
    names = ["손님 Guest", "김하늘", "Robert Longname Featherstonehaugh"]
    for name in names:
        guest = Meeting(await new_page(), stand_in.url)
        await guest.open(link, name=name, skipJoinOptions="1", videoDisabled="1" if name == "김하늘" else "0")
        await guest.joined()
    await host.participants(4)
    await host.watches(2)
    await fits(host, "13-meeting")
    await host.at("participants-toggle").click()
    await fits(host, "14-participants")
    await host.leave()
    await fits(host, "15-left")
    guest = Meeting(await new_page(**options), stand_in.url)
    await guest.page.goto(f"{stand_in.url}/meeting/")
    await fits(guest, "16-guest-join")
    assert page.problems == []
