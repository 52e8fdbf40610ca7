"""Clients by others, unmodified, on hosts of the lab: they find the site by its names and standard ports.

poezio (Debian) in a terminal, and @xmpp/client (npm) by STARTTLS and by WebSocket.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from federation_lab import DOMAIN, FederationLab
from terminal import Terminal

pytestmark = [pytest.mark.interop, pytest.mark.lab, pytest.mark.xdist_group("federation-lab")]

_XMPP_JS = Path(__file__).with_name("xmpp_js.mjs")
_POEZIO = """[Poezio]
jid = alice@{domain}/poezio
password = {password}
ca_cert_path = {ca}
default_nick = alice
use_log = false
"""
# poezio refuses to be run by root: on a host of the lab it sees itself as user 1000.
_AS_A_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


@pytest.mark.parametrize("service", [f"xmpp://{DOMAIN}:5222", f"wss://inside.{DOMAIN}:5281/xmpp-websocket"])
def test_xmpp_js(lab: FederationLab, service: str) -> None:
    bob = lab.person("bob")
    alice = f"alice@{DOMAIN}"
    client = lab.site_host.start(
        "node", "--experimental-websocket", str(_XMPP_JS),
        service, DOMAIN, "alice", lab.site.passwords[alice], bob.address, "안녕 from node",
        environment={"NODE_EXTRA_CA_CERTS": str(lab.site.ca)},
    )  # fmt: skip
    assert bob.chat() == [alice, "안녕 from node"]
    bob.say(alice, "welcome")
    output, _ = client.communicate(timeout=60)
    seen = json.loads(output)
    assert seen["message"]["body"] == "welcome"
    assert seen["message"]["from"].startswith(f"{bob.address}/")
    assert seen["secure"]
    assert {"urn:xmpp:carbons:2", "urn:xmpp:ping"} <= set(seen["features"])
    bob.leave()


async def _type(terminal: Terminal, line: str) -> None:
    """Types a line and then, once it is there, the key that ends it: poezio takes what comes at once for pasted text.

    The slash of a command goes first: in the list of contacts it opens the line.
    """
    for part in ("/", line[1:]) if line.startswith("/") else (line,):
        before = _last(await terminal.tmux("capture-pane", "-p"))
        await terminal.tmux("send-keys", "-l", part)
        for _ in range(100):
            if _last(await terminal.tmux("capture-pane", "-p")) not in (before, ""):
                break
            await asyncio.sleep(0.1)
    await terminal.shows(line)
    await terminal.tmux("send-keys", "Enter")


def _last(screen: str) -> str:
    return (screen.rstrip().splitlines() or [""])[-1]


def _poezio(lab: FederationLab, folder: Path) -> tuple[Terminal, list[str]]:
    """A terminal, and the words that start poezio in it as alice."""
    for command in ("poezio", "tmux"):
        assert shutil.which(command), f"install {command}"
    folder.mkdir()
    config = folder / "poezio.cfg"
    password = lab.site.passwords[f"alice@{DOMAIN}"]
    config.write_text(_POEZIO.format(domain=DOMAIN, password=password, ca=lab.site.ca))
    terminal = Terminal(folder, HOME=str(folder), PATH=os.environ["PATH"])
    return terminal, [*lab.site_host.prefix, *_AS_A_USER, "poezio", "-f", str(config), "-d", str(folder / "debug.log")]


async def test_poezio_binds_to_what_tls_has_not(lab: FederationLab, tmp_path: Path) -> None:
    """slixmpp 1.8 takes -PLUS with tls-unique, and in vain: both its person and the administrator are told why."""
    terminal, words = _poezio(lab, tmp_path / "refused")
    await terminal.tmux("new-session", "-d", "-x", "160", "-y", "50", *words)
    try:
        await terminal.shows("is too old to use it")
        await _type(terminal, "/quit")
    finally:
        await terminal.tmux("kill-server")
    said = (lab.site.root / "log/inside.log").read_text()
    assert "chat.channel_binding = false" in said


async def test_poezio(lab: FederationLab, tmp_path: Path) -> None:
    with lab.settings("chat", "channel_binding = false"):
        bob, room = lab.person("bob"), f"poets@rooms.{DOMAIN}"
        bob.open_room(room, "bob")
        terminal, words = _poezio(lab, tmp_path / "let-in")
        await terminal.tmux("new-session", "-d", "-x", "160", "-y", "50", *words)
        try:
            assert bob.address in await terminal.shows("bob@")
            await _type(terminal, f"/message {bob.address} 안녕하세요 👋")
            assert await asyncio.to_thread(bob.chat) == [f"alice@{DOMAIN}", "안녕하세요 👋"]
            bob.say(f"alice@{DOMAIN}", "반가워요")
            await terminal.shows("반가워요")
            await _type(terminal, f"/join {room}/alice")
            await terminal.shows("alice (participant)")
            bob.say(room, "a line", "groupchat")
            await terminal.shows("a line")
            await _type(terminal, "another line")
            await asyncio.to_thread(bob.says, "alice", "another line")
            await _type(terminal, "/quit")
        finally:
            await terminal.tmux("kill-server")
        bob.leave()
