"""Dino (Debian, unmodified), a graphical client, on a host of its own: driven with keyboard and mouse.

It finds the site by its names, trusts the machine's authorities, and signs in with the settings that a new site has.
What it sends is seen by bob with slixmpp, and what reaches it in its own database.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from desktop import Desktop
from federation_lab import DOMAIN, FederationLab
from lab import Host

pytestmark = [pytest.mark.interop, pytest.mark.lab, pytest.mark.xdist_group("federation-lab")]

_ALICE, _BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"
# Where things are in its window on this screen.
_SET_UP, _JOIN, _ATTACH, _MIDDLE, _DIALOG = (600, 521), (297, 27), (338, 663), (700, 500), (200, 91)


class Dino:
    """One Dino and its person; ``stop`` and ``start`` are leaving and coming back."""

    def __init__(self, host: Host, home: Path) -> None:
        self.desktop = Desktop(host, home)
        self._database = home / ".local/share/dino/dino.db"
        self._program: Any = None

    def start(self) -> None:
        self._program = self.desktop.start("dino-im", "--print-xmpp", "all")
        self.desktop.window("Dino")

    def sign_in(self, address: str, password: str) -> None:
        """As a newcomer does."""
        self.desktop.click(*_SET_UP, opens="Add Account")
        asks_address = self.desktop.window("Add Account")
        self.desktop.point(*_DIALOG)
        self.desktop.type(address)
        self.desktop.key("Return")
        self.desktop.changed("Add Account", asks_address)
        self.desktop.type(password)
        self.desktop.key("Return")
        self.until("SELECT 1 FROM account WHERE bare_jid = ? AND enabled", address)
        self.desktop.key("Return")
        self.desktop.point(*_MIDDLE)

    def open(self, address: str) -> None:
        """Opens a conversation."""
        self.desktop.call("dino-im", f"xmpp:{address}?message")
        self.desktop.point(*_MIDDLE)

    def say(self, text: str) -> None:
        """Types a message into the open conversation."""
        self.desktop.type(text)
        self.desktop.key("Return")

    def ask(self, query: str, *words: object) -> list[tuple[Any, ...]]:
        """Asks its database."""
        database = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=10)
        try:
            return database.execute(query, words).fetchall()
        finally:
            database.close()

    def until(self, query: str, *words: object) -> list[tuple[Any, ...]]:
        """Waits until its database answers; it tells nobody when something changes."""
        until = time.monotonic() + 30
        while not (rows := self.ask(query, *words)):
            assert time.monotonic() < until, f"never came: {query} {words}; see {self.desktop.picture('failed')}"
            time.sleep(0.1)
        return rows

    def hears(self, text: str) -> None:
        """Waits until a message has come in."""
        self.until("SELECT 1 FROM message WHERE direction = 0 AND body = ?", text)

    def stop(self) -> None:
        self.desktop.run("xdotool", "key", "ctrl+q")
        self._program.communicate(timeout=20)

    def close(self) -> None:
        self.desktop.close()


@pytest.fixture(scope="module")
def dino(lab: FederationLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dino]:
    for command, package in (("dino-im", "dino-im"), ("Xvfb", "xvfb"), ("xdotool", "xdotool"), ("scrot", "scrot")):
        assert shutil.which(command), f"install {package}"
    desk = lab.desk()
    made = Dino(desk, tmp_path_factory.mktemp("dino"))
    try:
        made.start()
        made.sign_in(_ALICE, lab.site.passwords[_ALICE])
        yield made
        made.desktop.picture("last")
    finally:
        made.close()


def test_contacts_presence_and_chat(lab: FederationLab, dino: Dino) -> None:
    assert dino.until("SELECT name FROM roster WHERE jid = ? AND subscription = 'both'", _BOB)
    bob = lab.person("bob")
    bob.sees(_ALICE, "there")
    dino.open(_BOB)
    dino.say("안녕 Bob")
    bob.hears(_ALICE, "안녕 Bob")
    bob.say(_ALICE, "반가워요 🎉")
    dino.hears("반가워요 🎉")
    bob.leave()


def test_receipts_markers_and_corrections(lab: FederationLab, dino: Dino) -> None:
    bob = lab.person("bob")
    dino.open(_BOB)
    asked = bob.say_and_ask(_ALICE, "are you thre?")
    bob.confirmed("received", asked)
    bob.confirmed("displayed", asked)
    bob.correct(_ALICE, asked, "are you there?")
    dino.until("SELECT 1 FROM message_correction WHERE to_stanza_id = ?", asked)
    dino.hears("are you there?")
    dino.say("a corection")
    bob.hears(_ALICE, "a corection")
    dino.desktop.key("Up")
    dino.desktop.key("ctrl+a")
    dino.say("a correction")
    assert bob.corrected() == "a correction"
    bob.leave()


def test_a_file(lab: FederationLab, dino: Dino) -> None:
    bob = lab.person("bob")
    picture = dino.desktop.home / "sea.png"
    picture.write_bytes(_png(64, 48, lambda x, y: (4 * x, 5 * y, 128)))
    dino.open(_BOB)
    dino.desktop.click(*_ATTACH, opens="Select file")
    dino.desktop.point(*_DIALOG)
    dino.desktop.type(str(picture))
    dino.desktop.key("Return")
    dino.desktop.point(*_MIDDLE)
    dino.desktop.key("Return")
    sender, url = bob.chat()
    assert sender == _ALICE
    assert url.endswith("/sea.png")
    assert bob.fetch_digest(url, str(lab.site.ca)) == hashlib.sha256(picture.read_bytes()).hexdigest()
    bob.leave()


def test_a_room_and_what_was_said_while_away(lab: FederationLab, dino: Dino) -> None:
    bob, room = lab.person("bob"), f"seaside@rooms.{DOMAIN}"
    bob.open_room(room, "bob")
    dino.desktop.call("dino-im", f"xmpp:{room}?join")
    dino.desktop.click(*_JOIN)
    dino.desktop.point(*_MIDDLE)
    dino.say("good evening")
    bob.says("alice", "good evening")
    bob.say(room, "what a fine beach", "groupchat")
    dino.hears("what a fine beach")
    bob.say(_ALICE, "see you later")
    dino.hears("see you later")
    dino.stop()
    bob.sees(_ALICE, "gone")
    bob.say(_ALICE, "while you were away")
    bob.say(room, "the tide is coming in", "groupchat")
    bob.says("bob", "the tide is coming in")
    dino.start()
    bob.sees(_ALICE, "there")
    dino.hears("while you were away")
    dino.hears("the tide is coming in")
    for text in ("while you were away", "the tide is coming in", "see you later", "what a fine beach"):
        assert len(dino.ask("SELECT 1 FROM message WHERE body = ?", text)) == 1, f"{text} came twice"
    bob.leave()


def test_an_avatar(lab: FederationLab, dino: Dino) -> None:
    bob = lab.person("bob")
    picture = dino.desktop.home / "bob.png"
    picture.write_bytes(_png(48, 48, lambda x, y: (200, 5 * x, 5 * y)))
    digest = bob.show_avatar(str(picture), "image/png")
    dino.until("SELECT 1 FROM contact_avatar WHERE hash = ?", digest)
    kept = dino.desktop.home / ".local/share/dino/avatars" / digest
    until = time.monotonic() + 30
    while not kept.exists() or kept.read_bytes() != picture.read_bytes():
        assert time.monotonic() < until, f"the picture never came: {kept}"
        time.sleep(0.1)
    bob.leave()


def test_what_it_publishes(lab: FederationLab, dino: Dino) -> None:
    """Its keys for end-to-end encryption, which contacts may read, and its rooms, which only itself may."""
    bob = lab.person("bob")
    assert bob.published(_ALICE, "eu.siacs.conversations.axolotl.devicelist") == [
        "{eu.siacs.conversations.axolotl}list"
    ]
    alice = lab.person("alice")
    assert "{urn:xmpp:bookmarks:1}conference" in alice.published(_ALICE, "urn:xmpp:bookmarks:1")
    for somebody in (alice, bob):
        somebody.leave()


def _png(width: int, height: int, colour: Callable[[int, int], tuple[int, int, int]]) -> bytes:
    """A picture, pixel by pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in colour(x, y)) for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
