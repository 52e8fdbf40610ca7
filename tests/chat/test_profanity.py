"""profanity from Debian, unmodified, in a terminal of its own: sign-in with STARTTLS, contacts, presence, chat."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from moim import chat
from moim.net.http_server import HttpServer
from terminal import Terminal

pytestmark = pytest.mark.interop

ACCOUNT = """[alice]
enabled=true
jid=alice@chat.test
server={address}
port={port}
password=wonder land
resource=prof
tls.policy=force
"""


@pytest.fixture
async def place(new_house: Any) -> Any:
    return await new_house(default_contacts=True)


@pytest.fixture
async def profanity(place: Any, tmp_path: Path) -> AsyncIterator[Terminal]:
    assert shutil.which("profanity"), "install profanity"
    assert shutil.which("tmux"), "install tmux"
    home = tmp_path / "home"
    data = home / ".local/share/profanity"
    data.mkdir(parents=True)
    address, port = place.place("xmpp-client")
    (data / "accounts").write_text(ACCOUNT.format(address=address, port=port))
    terminal = Terminal(tmp_path, HOME=str(home), SSL_CERT_FILE=str(place.files.chain))
    await terminal.tmux("new-session", "-d", "-x", "160", "-y", "50", "profanity -a alice")
    yield terminal
    await terminal.tmux("kill-server")


async def test_profanity(place: Any, profanity: Terminal) -> None:
    await profanity.shows("alice@chat.test/prof logged in successfully")
    bob = await place.online("bob", "desk", "<presence><show>away</show><status>점심</status></presence>")
    await profanity.type("/roster")
    assert "Carol" in await profanity.shows("Bob")
    await profanity.type("/msg bob@chat.test 안녕하세요 👋")
    got = await bob.receive()
    while got.name != "message" or got.find("body") is None:
        got = await bob.receive()
    assert (got.get("from"), got.find("body").text) == ("alice@chat.test/prof", "안녕하세요 👋")
    bob.send("<message to='alice@chat.test' type='chat'><body>반가워요 🎉</body></message>")
    await profanity.shows("반가워요")
    bob.send("<presence type='unavailable'/>")
    await profanity.shows("offline")
    await profanity.type("/quit")


async def test_profanity_sends_a_file(place: Any, profanity: Terminal, tmp_path: Path) -> None:
    """Slot, PUT and the link in a message, by a program and an HTTP library that did not come from us."""
    routes = chat.public_routes(place.service, websocket_url="ws://x")
    server = HttpServer(Starlette(routes=routes), address=place.address)
    await server.start()
    place.service.uploads._base = lambda: f"http://{server.address}:{server.port}"
    try:
        await profanity.shows("alice@chat.test/prof logged in successfully")
        bob = await place.online("bob", "desk")
        picture = b"\x89PNG\r\n\x1a\n" + os.urandom(50_000)
        (tmp_path / "바다.png").write_bytes(picture)
        await profanity.type("/msg bob@chat.test")
        await profanity.type(f"/sendfile {tmp_path}/바다.png")
        got = await bob.receive()
        while got.name != "message" or got.find("body") is None:
            got = await bob.receive()
        url = got.find("x", "jabber:x:oob").find("url", "jabber:x:oob").text
        assert got.find("body").text == url
        async with httpx.AsyncClient() as http:
            answer = await http.get(url)
        assert (answer.content, answer.headers["content-type"]) == (picture, "image/png")
        await profanity.type("/quit")
    finally:
        await server.stop()
