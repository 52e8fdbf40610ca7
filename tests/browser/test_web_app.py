"""The web app alone in Chromium: sign-in, chat, reconnecting, meetings; with pictures in ``tests/artifacts``."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from browser.pages import PHONE, Home, Meeting, SignIn
from browser.stand_in import Meetings

from .conftest import NewPage, StandIn

pytestmark = [pytest.mark.browser, pytest.mark.interop]
SHOTS = Path(__file__).parents[1] / "artifacts" / "web"
ALICE, BOB = "alice@moim.test", "bob@moim.test"


async def sign_in(stand_in: StandIn, new_page: NewPage, name: str, **options: object) -> Home:
    page = SignIn(await new_page(**options), stand_in.url)
    return await page.sign_in(f"{name}@moim.test", stand_in.password(name))


async def befriend(alice: Home, bob: Home) -> None:
    await alice.add_contact(BOB)
    await bob.accept(ALICE)
    await alice.sees(BOB, "available")
    await bob.sees(ALICE, "available")


async def test_signs_in_and_shows_how_the_service_was_found(stand_in: StandIn, new_page: NewPage) -> None:
    alice = await sign_in(stand_in, new_page, "alice")
    await alice.at("account").click()
    await expect(alice.at("discovery-step")).to_have_count(6)
    await expect(alice.at("location")).to_have_attribute("data-location", "inside")
    await expect(alice.at("own-name")).to_have_text("Alice Kim")
    assert alice.problems == []


async def test_says_in_plain_words_why_sign_in_failed(stand_in: StandIn, new_page: NewPage) -> None:
    page = SignIn(await new_page(locale="ko-KR"), stand_in.url)
    await page.open()
    await page.submit(ALICE, "wrong")
    await expect(page.at("signin-error")).to_have_attribute("data-code", "wrong-credentials")
    await expect(page.at("signin-error")).to_contain_text("비밀번호가 맞지 않습니다")
    await page.submit("alice@elsewhere.test", "wrong")
    await expect(page.at("signin-error")).to_have_attribute("data-code", "not-hosted")
    for _ in range(5):
        await page.submit(ALICE, "wrong")
        await expect(page.at("signin-submit")).to_be_enabled()
    await expect(page.at("signin-error")).to_have_attribute("data-code", "rate-limited")
    assert page.problems == []


async def test_two_people_chat(stand_in: StandIn, new_page: NewPage) -> None:
    alice = await sign_in(stand_in, new_page, "alice")
    bob = await sign_in(stand_in, new_page, "bob", locale="ko-KR", viewport=PHONE)
    await befriend(alice, bob)
    await alice.say("안녕하세요 👋🏽 see https://example.com/a?b=c.")
    await expect(bob.contact(ALICE)).to_have_attribute("data-unread", "1")
    await bob.open_chat(ALICE)
    await expect(bob.contact(ALICE)).to_have_attribute("data-unread", "0")
    await bob.say("반갑습니다! 🎉\n두 번째 줄 <b>&amp;</b>")
    texts = "안녕하세요 👋🏽 see https://example.com/a?b=c.", "반갑습니다! 🎉\n두 번째 줄 <b>&amp;</b>"
    for one in (alice, bob):
        await one.expect_texts(*texts)
    await expect(alice.at("chat-message").first).to_have_attribute("data-state", "delivered")
    await bob.set_presence("dnd")
    await alice.sees(BOB, "dnd")
    await bob.sign_out()
    await alice.sees(BOB, "offline")
    assert alice.problems + bob.problems == []


async def test_comes_back_and_loses_nothing_when_the_server_restarts(stand_in: StandIn, new_page: NewPage) -> None:
    alice = await sign_in(stand_in, new_page, "alice")
    bob = await sign_in(stand_in, new_page, "bob")
    await befriend(alice, bob)
    stand_in.prosody.stop()
    await expect(alice.at("connection")).to_have_attribute("data-state", "waiting")
    await alice.say("sent while away")
    await expect(alice.at("chat-message")).to_have_attribute("data-state", "queued")
    stand_in.prosody.start()
    await alice.connected()
    await alice.sees(BOB, "available")
    await bob.open_chat(ALICE)
    await bob.expect_texts("sent while away")
    assert alice.problems + bob.problems == []


async def test_three_people_meet(stand_in: StandIn, new_page: NewPage, mixer: Meetings) -> None:
    alice = await sign_in(stand_in, new_page, "alice")
    link = await alice.create_space("Design review")
    host = Meeting(alice.page, stand_in.url)
    await alice.page.locator("article").filter(has_text="Design review").get_by_test_id("space-enter").click()
    await host.join()
    guests = [Meeting(await new_page(viewport=PHONE), stand_in.url), Meeting(await new_page(), stand_in.url)]
    await guests[0].open(link, name="Guest", audioMuted="1", skipJoinOptions="1")
    await guests[0].joined()
    await guests[1].open(link)
    await guests[1].join("손님")
    for one in (host, *guests):
        await one.participants(3)
        await expect(one.page.locator("video.on")).to_have_count(3)
    await expect(host.tile("Guest")).to_have_attribute("data-audio", "false")
    for one in (host, *guests):
        await one.watches(2)
    await guests[1].at("camera-toggle").click()
    await expect(host.tile("손님")).to_have_attribute("data-video", "false")
    await guests[1].at("camera-toggle").click()
    await expect(host.tile("손님")).to_have_attribute("data-video", "true")
    await guests[0].leave()
    await host.participants(2)
    mixer.drop_all()
    await host.joined()
    await host.participants(2)
    assert alice.problems + host.problems + guests[0].problems + guests[1].problems == []


async def test_wrong_passcode_and_unknown_meeting(stand_in: StandIn, new_page: NewPage) -> None:
    guest = Meeting(await new_page(), stand_in.url)
    await guest.page.goto(f"{stand_in.url}/meeting/")
    await guest.at("join-target").fill("123 456 789")
    await guest.at("join-submit").click()
    await guest.at("meeting-name").fill("Guest")
    await guest.at("meeting-join").click()
    await expect(guest.at("meeting-error")).to_have_attribute("data-code", "not-found")
    await guest.page.goto(f"{stand_in.url}/meeting/700100201")
    await guest.at("meeting-name").fill("Guest")
    await guest.at("meeting-passcode").fill("0000")
    await guest.at("meeting-join").click()
    await expect(guest.at("meeting-error")).to_have_attribute("data-code", "wrong-passcode")
    assert guest.problems == []
