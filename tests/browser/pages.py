"""The screens of the web app as tests drive them: by ``data-testid``, as docs/rooms/portal.md lists them.

They work on any site: the whole program or the stand-ins. Playwright's async API.
"""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser, BrowserContext, Locator, Page, Playwright, ViewportSize, expect

CHROMIUM = "/usr/bin/chromium"
ARGS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
WAIT_MS = 30_000

# Keeps every peer connection of a page for ``Meeting.decoded`` and ``Meeting.paths`` to ask.
_RECORD_PEERS = """
window.testPeers = [];
window.RTCPeerConnection = class extends RTCPeerConnection {
  constructor(...given) { super(...given); window.testPeers.push(this); }
};
"""
_STATS = """async kind => {
  const found = [];
  for (const pc of window.testPeers ?? []) {
    if (pc.connectionState === 'closed') continue;
    for (const entry of (await pc.getStats()).values()) if (entry.type === kind) found.push(entry);
  }
  return found;
}"""


_WATCHES = """async ([count, more, before]) => {
  const frames = {};
  for (const pc of window.testPeers ?? []) {
    if (pc.connectionState === 'closed') continue;
    for (const entry of (await pc.getStats()).values()) {
      if (entry.type !== 'inbound-rtp' || entry.kind !== 'video') continue;
      frames[entry.trackIdentifier] = entry.framesDecoded ?? 0;
    }
  }
  return Object.entries(frames).filter(([track, now]) => now >= (before[track] ?? 0) + more).length >= count;
}"""


async def launch(playwright: Playwright, *extra: str) -> Browser:
    """Debian's Chromium with fake camera and microphone."""
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGS, *extra])


async def new_context(
    browser: Browser, *, locale: str = "en-GB", viewport: ViewportSize = DESKTOP, dark: bool = False, **more: object
) -> BrowserContext:
    """A browser of its own: cookies, storage, language. ``more`` goes to Playwright (``ignore_https_errors`` …)."""
    context = await browser.new_context(
        locale=locale,
        viewport=viewport,
        color_scheme="dark" if dark else "light",
        has_touch=viewport["width"] < 600,
        permissions=["camera", "microphone"],
        **more,  # type: ignore[arg-type]
    )
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    await context.add_init_script(_RECORD_PEERS)
    return context


class Screen:
    """A page, with what went wrong in it: ``problems`` are errors on the console and refusals of the content policy."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base.rstrip("/")
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda m: self.problems.append(m.text) if "Content Security Policy" in m.text else None)

    def at(self, testid: str) -> Locator:
        """An element by its ``data-testid``."""
        return self.page.get_by_test_id(testid)

    async def shot(self, path: Path) -> None:
        """A picture for people to look at."""
        path.parent.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=path, animations="disabled")


class SignIn(Screen):
    """The sign-in page."""

    async def open(self) -> None:
        await self.page.goto(f"{self.base}/")
        await expect(self.at("signin-submit")).to_be_visible()

    async def submit(self, address: str, password: str) -> None:
        """Types both and presses the button."""
        await self.at("signin-address").fill(address)
        await self.at("signin-password").fill(password)
        await self.at("signin-submit").click()

    async def sign_in(self, address: str, password: str) -> Home:
        """All the way to the main page with a chat connection."""
        await self.open()
        await self.submit(address, password)
        home = Home(self.page, self.base)
        home.problems = self.problems
        await home.connected()
        return home


class Home(Screen):
    """The main page: contacts, chat, spaces."""

    async def connected(self) -> None:
        await expect(self.at("connection")).to_have_attribute("data-state", "online")

    def contact(self, address: str) -> Locator:
        return self.at(f"contact-{address}")

    async def sees(self, address: str, presence: str) -> None:
        """Waits until a contact is ``available``, ``away``, ``dnd`` or ``offline``."""
        await expect(self.contact(address)).to_have_attribute("data-presence", presence)

    async def set_presence(self, presence: str) -> None:
        """``available``, ``away`` or ``dnd``."""
        await self._open_account()
        await self.at(f"own-presence-{presence}").check(force=True)
        await self.page.keyboard.press("Escape")

    async def add_contact(self, address: str) -> None:
        await self.at("contact-add").click()
        await self.at("contact-add-address").fill(address)
        await self.at("contact-add-submit").click()

    async def accept(self, address: str) -> None:
        await self.at(f"request-accept-{address}").click()

    async def open_chat(self, address: str) -> None:
        await self.contact(address).click()
        await expect(self.at("conversation")).to_have_attribute("data-address", address)

    async def say(self, text: str) -> None:
        await self.at("chat-input").fill(text)
        await self.at("chat-send").click()

    async def expect_texts(self, *texts: str) -> None:
        """Waits until these are the last messages of the open conversation, in this order."""
        for back, text in enumerate(reversed(texts), start=1):
            await expect(self.at("chat-text").nth(-back)).to_have_text(text)

    async def create_space(self, name: str) -> str:
        """Creates a space and returns its link."""
        await self.at("nav-meetings").click()
        await self.at("space-name").fill(name)
        await self.at("space-create").click()
        card = self.page.locator("article").filter(has_text=name)
        return (await card.get_by_test_id("space-link").inner_text()).strip()

    async def sign_out(self) -> None:
        await self._open_account()
        await self.at("sign-out").click()

    async def _open_account(self) -> None:
        if await self.at("chat-back").is_visible():  # on a phone an open conversation hides the navigation
            await self.at("chat-back").click()
        await self.at("account").click()


class Meeting(Screen):
    """The meeting page, from the preview to the end."""

    async def open(self, link: str, **query: str) -> None:
        """Opens a meeting link with more of its query: ``name``, ``audioMuted``, ``ice="relay"`` …"""
        more = "".join(f"&{key}={value}" for key, value in query.items())
        await self.page.goto(f"{link}{more if '?' in link else more.replace('&', '?', 1)}")

    async def join(self, name: str | None = None) -> None:
        """From the preview onto the stage."""
        if name is not None:
            await self.at("meeting-name").fill(name)
        await self.at("meeting-join").click()
        await self.joined()

    async def joined(self) -> None:
        await expect(self.at("meeting")).to_have_attribute("data-status", "connected")

    async def participants(self, count: int) -> None:
        """Waits until so many people are on the stage, oneself included."""
        await expect(self.at("meeting")).to_have_attribute("data-participants", str(count))

    def tile(self, name: str) -> Locator:
        """Somebody's tile by their name."""
        return self.page.locator(f'[data-testid^="tile-"][data-name="{name}"]')

    async def decoded(self, kind: str = "video") -> dict[str, int]:
        """Frames (video) or packets (audio) decoded so far, by the browser's track identifier."""
        entries = await self.page.evaluate(_STATS, "inbound-rtp")
        counter = "framesDecoded" if kind == "video" else "packetsReceived"
        return {e["trackIdentifier"]: e.get(counter, 0) for e in entries if e["kind"] == kind and e["trackIdentifier"]}

    async def watches(self, count: int, frames: int = 10) -> None:
        """Waits until ``count`` video streams have each decoded so many frames more than now."""
        before = await self.decoded()
        await self.page.wait_for_function(_WATCHES, arg=[count, frames, before], polling=100)

    async def local_candidate_types(self) -> set[str]:
        """Kinds of the local candidates of the pairs in use: ``host``, ``srflx``, ``prflx``, ``relay``."""
        pairs = await self.page.evaluate(_STATS, "candidate-pair")
        locals_ = {e["id"]: e["candidateType"] for e in await self.page.evaluate(_STATS, "local-candidate")}
        return {locals_[p["localCandidateId"]] for p in pairs if p.get("nominated") and p["state"] == "succeeded"}

    async def leave(self) -> None:
        await self.at("leave").click()
        await expect(self.at("meeting-left")).to_be_visible()
