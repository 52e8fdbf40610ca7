"""Strophe, an npm library that did not come from us, over BOSH in Chromium: inside, and through the edge."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Browser

from running_site import RunningSite

pytestmark = [pytest.mark.browser, pytest.mark.interop]
STROPHE = Path(__file__).parents[2] / "web/node_modules/strophe.js/dist/strophe.umd.min.js"
ALICE, BOB = "alice@moim.test", "bob@moim.test"

# Signs in, says hello, and gives what it got once the other one's words are there.
CHAT = """([url, jid, password, peer]) => new Promise((done, failed) => {
  const { Strophe, $msg, $pres } = window.Strophe.Strophe ? window.Strophe : window;
  const connection = new Strophe.Connection(url);
  let requests = 0, greeting = 0, got = null;
  connection.xmlOutput = () => requests++;
  connection.connect(jid, password, (status, condition) => {
    if (status === Strophe.Status.CONNECTED) {
      connection.addHandler(stanza => {
        got = stanza.getElementsByTagName('body')[0].textContent;
        clearInterval(greeting);
        setTimeout(() => connection.disconnect('done'), 1000);
        return false;
      }, null, 'message', 'chat');
      connection.send($pres());
      const greet = () => connection.send($msg({ to: peer, type: 'chat' }).c('body').t('안녕 from ' + jid));
      greet();
      greeting = setInterval(greet, 500);
    }
    if (status === Strophe.Status.AUTHFAIL || status === Strophe.Status.CONNFAIL) failed(new Error(condition));
    if (status === Strophe.Status.DISCONNECTED) done({ got, requests });
  });
})"""


@pytest.mark.parametrize("side", ["web", "edge-web"])
async def test_strophe_signs_in_and_chats(site: RunningSite, browser: Browser, side: str) -> None:
    host, port = site.place(side)
    base = f"http://{host}:{port}" if side == "web" else f"https://{host}:{port}"
    context = await browser.new_context(bypass_csp=True, ignore_https_errors=True)

    async def chat(jid: str, peer: str) -> dict[str, str]:
        page = await context.new_page()
        await page.goto(base)
        await page.add_script_tag(path=STROPHE)
        found: dict[str, str] = await page.evaluate(CHAT, [f"{base}/http-bind", jid, site.passwords[jid], peer])
        return found

    alice, bob = await asyncio.wait_for(asyncio.gather(chat(ALICE, BOB), chat(BOB, ALICE)), 90)
    assert alice["got"] == f"안녕 from {BOB}"
    assert bob["got"] == f"안녕 from {ALICE}"
    assert int(alice["requests"]) > 5
    await context.close()
