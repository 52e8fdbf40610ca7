"""Files in the web chat of a running site: one person inside, one through the edge, in both languages."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import httpx
import pytest
from playwright.async_api import FilePayload, async_playwright, expect

from browser.pages import PHONE, SignIn, launch, new_context
from running_site import RunningSite

pytestmark = [pytest.mark.browser, pytest.mark.interop]
SHOTS = Path(__file__).parents[1] / "artifacts" / "web"
ALICE, BOB = "alice@moim.test", "bob@moim.test"


def picture(width: int, height: int) -> bytes:
    """A PNG with a gradient."""
    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (40 + 160 * x // width, 90 + 120 * y // height, 150))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


async def test_a_picture_and_a_file_from_inside_to_outside_and_back(site: RunningSite) -> None:
    host, port = site.place("edge-web")
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        inner = await new_context(browser, locale="ko-KR")
        outer = await new_context(browser, viewport=PHONE, ignore_https_errors=True)
        alice = await SignIn(await inner.new_page(), site.status()["web"]).sign_in(ALICE, site.passwords[ALICE])
        bob = await SignIn(await outer.new_page(), f"https://{host}:{port}").sign_in(BOB, site.passwords[BOB])
        await alice.open_chat(BOB)
        await bob.open_chat(ALICE)
        image = picture(320, 200)
        await alice.at("chat-file").set_input_files(
            [
                FilePayload(name="바다 풍경.png", mimeType="image/png", buffer=image),
                FilePayload(name="회의록.html", mimeType="text/html", buffer=b"<script>alert(1)</script>"),
            ]
        )
        for screen in (alice, bob):
            shown = screen.at("chat-picture").last.locator("img")
            await expect(shown).to_have_js_property("naturalWidth", 320)
            await expect(screen.at("chat-file-link").last).to_contain_text("회의록.html")
        link = await bob.at("chat-file-link").last.get_attribute("href")
        assert link is not None
        assert link.startswith("/upload/")
        answer = httpx.get(f"{site.status()['web'].rstrip('/')}{link}")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
        await bob.at("chat-file").set_input_files(
            {"name": "답장.png", "mimeType": "image/png", "buffer": picture(64, 64)}
        )
        for screen in (bob, alice):
            await expect(screen.at("chat-picture").last.locator("img")).to_have_js_property("naturalWidth", 64)
        await alice.shot(SHOTS / "files-inside-ko.png")
        await bob.shot(SHOTS / "files-outside-en-phone.png")
        await alice.at("chat-file").set_input_files({"name": "empty.txt", "mimeType": "text/plain", "buffer": b""})
        await expect(alice.at("chat-upload-error")).to_contain_text("서버에 이 파일을 둘 자리가 없습니다")
        assert alice.problems == []
        assert bob.problems == []
        await browser.close()
