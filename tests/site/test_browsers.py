"""Three browsers on a whole site: alice inside, bob outside through the edge, carol a guest through the relay."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import Browser, async_playwright

from browser.pages import DESKTOP, PHONE, Home, Meeting, SignIn, launch, new_context
from running_site import RunningSite

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
PICTURES = Path(__file__).resolve().parents[1] / "artifacts" / "site"


@pytest.fixture
async def browser(site: RunningSite) -> AsyncIterator[Browser]:
    """Chromium that resolves the edge's name to its address and trusts exactly its certificate."""
    async with async_playwright() as playwright:
        browser = await launch(playwright, *edge_arguments(site))
        yield browser
        await browser.close()


def edge_arguments(site: RunningSite) -> list[str]:
    """Chromium's way to be told a name and a key without touching the machine's resolver or trust store."""
    address, port = site.place("edge-web")
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate((address, port)).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode()
    return [
        f"--host-resolver-rules=MAP edge.moim.test {address}",
        f"--ignore-certificate-errors-spki-list={digest}",
    ]


def outside(site: RunningSite) -> str:
    return f"https://edge.moim.test:{site.place('edge-web')[1]}"


async def test_chat_inside_and_outside(site: RunningSite, browser: Browser) -> None:
    inner = await new_context(browser, locale="ko-KR", viewport=DESKTOP)
    outer = await new_context(browser, locale="en-GB", viewport=PHONE)
    alice = await SignIn(await inner.new_page(), site.status()["web"]).sign_in(
        "alice@moim.test", site.passwords["alice@moim.test"]
    )
    bob = await SignIn(await outer.new_page(), outside(site)).sign_in("bob@moim.test", site.passwords["bob@moim.test"])
    await alice.sees("bob@moim.test", "available")
    await bob.sees("alice@moim.test", "available")
    await alice.set_presence("away")
    await bob.sees("alice@moim.test", "away")
    await alice.open_chat("bob@moim.test")
    await bob.open_chat("alice@moim.test")
    await alice.say("안녕하세요, 밖에서도 잘 보이나요? 👋🏽")
    await bob.expect_texts("안녕하세요, 밖에서도 잘 보이나요? 👋🏽")
    await bob.say("네, 잘 보여요 🎉 <script>alert(1)</script>")
    await alice.expect_texts("안녕하세요, 밖에서도 잘 보이나요? 👋🏽", "네, 잘 보여요 🎉 <script>alert(1)</script>")
    await alice.shot(PICTURES / "chat-inside-ko.png")
    await bob.shot(PICTURES / "chat-outside-phone.png")
    await outer.close()
    await alice.sees("bob@moim.test", "offline")
    assert alice.problems == []
    assert bob.problems == []
    await inner.close()


async def test_a_meeting_of_three_with_a_guest_through_the_relay(site: RunningSite, browser: Browser) -> None:
    inner, outer, guest = [await new_context(browser) for _ in range(3)]
    home = await SignIn(await inner.new_page(), site.status()["web"]).sign_in(
        "alice@moim.test", site.passwords["alice@moim.test"]
    )
    link = await home.create_space("주간 회의")
    path = link[link.index("/meeting/") :]
    bob_home = await SignIn(await outer.new_page(), outside(site)).sign_in(
        "bob@moim.test", site.passwords["bob@moim.test"]
    )
    alice, bob = Meeting(home.page, home.base), Meeting(bob_home.page, bob_home.base)
    carol = Meeting(await guest.new_page(), outside(site))
    await alice.open(link)
    await alice.join()
    await bob.open(outside(site) + path)
    await bob.join()
    await carol.open(outside(site) + path, ice="relay")
    await carol.join("캐럴 (손님)")
    everybody = (alice, bob, carol)
    await asyncio.gather(*(person.participants(3) for person in everybody))
    # 200 frames of two streams each are ten seconds of the fake camera's 20 pictures a second.
    await asyncio.gather(*(person.watches(2, frames=200) for person in everybody))
    assert await carol.local_candidate_types() == {"relay"}
    for name, person in (("alice", alice), ("bob", bob), ("carol", carol)):
        await person.shot(PICTURES / f"meeting-{name}.png")
    await bob.leave()
    await asyncio.gather(alice.participants(2), carol.participants(2))
    await carol.leave()
    await alice.participants(1)
    assert [person.problems for person in everybody] == [[], [], []]
    for context in (inner, outer, guest):
        await context.close()


async def test_a_guest_with_a_wrong_passcode_stays_out(site: RunningSite, browser: Browser) -> None:
    context = await new_context(browser)
    page = await context.new_page()
    guest = Meeting(page, outside(site))
    await guest.open(f"{outside(site)}/meeting/123456789", secret="wrong")
    await guest.at("meeting-name").fill("Mallory")
    await guest.at("meeting-join").click()
    await guest.at("meeting-error").wait_for()
    await guest.shot(PICTURES / "meeting-refused.png")
    await context.close()


async def test_a_wrong_password_is_said_in_plain_words(site: RunningSite, browser: Browser) -> None:
    context = await new_context(browser, locale="ko-KR")
    page = SignIn(await context.new_page(), site.status()["web"])
    await page.open()
    await page.submit("carol@moim.test", "not the password")
    await page.at("signin-error").wait_for()
    await page.shot(PICTURES / "sign-in-wrong-ko.png")
    await context.close()


async def test_the_page_comes_back_after_the_inside_node_is_killed(own_site: RunningSite) -> None:
    async with async_playwright() as playwright:
        browser = await launch(playwright, *edge_arguments(own_site))
        context = await new_context(browser)
        bob: Home = await SignIn(await context.new_page(), outside(own_site)).sign_in(
            "bob@moim.test", own_site.passwords["bob@moim.test"]
        )
        inside = next(n["pid"] for n in own_site.status()["nodes"] if n["name"] == "inside")
        os.kill(inside, signal.SIGKILL)
        await bob.page.locator('[data-testid="connection"]:not([data-state="online"])').wait_for(state="attached")
        await bob.connected()
        await bob.sees("alice@moim.test", "offline")
        await browser.close()
