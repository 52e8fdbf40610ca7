"""What was said, out of the archive of a running site: by slixmpp, and in the web chat after a reload."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

from browser.pages import PHONE, SignIn, launch, new_context
from running_site import RunningSite
from slixmpp_client import Client

pytestmark = [pytest.mark.browser, pytest.mark.interop]
SHOTS = Path(__file__).parents[1] / "artifacts" / "web"
ALICE, BOB = "alice@moim.test", "bob@moim.test"
WORDS = 120


async def fill(site: RunningSite) -> None:
    """Alice and bob say something in turns; then slixmpp reads it back page by page."""
    alice, bob = Client(site, ALICE), Client(site, BOB)
    for client in (alice, bob):
        client.register_plugin("xep_0313")
        await client.sign_in(site, "xmpp-client-tls")
    for number in range(WORDS):
        source, target, listener = (alice, BOB, bob) if number % 2 else (bob, ALICE, alice)
        source.send_message(target, f"이야기 {number}", mtype="chat")
        await listener.message()
    mam = alice.plugin["xep_0313"]
    read = [
        message["mam_result"]["forwarded"]["stanza"]["body"]
        async for message in mam.iterate(with_jid=BOB, rsm={"max": 50})
    ]
    assert read == [f"이야기 {number}" for number in range(WORDS)]
    newest = [
        message["mam_result"]["forwarded"]["stanza"]["body"]
        async for message in mam.iterate(rsm={"max": 30}, reverse=True, total=60)
    ]
    assert sorted(newest) == sorted(f"이야기 {number}" for number in range(WORDS - 60, WORDS))
    for client in (alice, bob):
        client.disconnect()
    await asyncio.sleep(0)


async def test_a_reload_shows_what_was_said(own_site: RunningSite) -> None:
    await fill(own_site)
    web = own_site.status()["web"]
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        for address, other, options in (
            (ALICE, BOB, {"locale": "ko-KR"}),
            (BOB, ALICE, {"viewport": PHONE}),
        ):
            context = await new_context(browser, **options)
            screen = await SignIn(await context.new_page(), web).sign_in(address, own_site.passwords[address])
            await screen.open_chat(other)
            texts = screen.at("chat-text")
            await expect(texts.last).to_have_text(f"이야기 {WORDS - 1}" if address == ALICE else f"지금 {ALICE}")
            await screen.say(f"지금 {address}")
            await expect(texts.last).to_have_text(f"지금 {address}")
            for _ in range(10):
                if await texts.first.inner_text() == "이야기 0":
                    break
                before = await texts.count()
                await screen.at("chat-messages").evaluate("list => { list.scrollTop = 0 }")
                await expect(texts).not_to_have_count(before)
            await expect(texts.first).to_have_text("이야기 0")
            await expect(texts.last).not_to_be_in_viewport()  # who reads what was said stays where they are
            shown = await texts.all_inner_texts()
            assert [text for text in shown if text.startswith("이야기")] == [f"이야기 {n}" for n in range(WORDS)]
            language = "ko" if address == ALICE else "en-phone"
            await screen.shot(SHOTS / f"history-{language}.png")
            await screen.page.reload()
            if await screen.at("signin-submit").is_visible():
                screen = await SignIn(screen.page, web).sign_in(address, own_site.passwords[address])
            assert screen.problems == []
        await browser.close()
