"""Somebody at any server, with slixmpp unmodified: what they see is kept in queues, and they agree to everything."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

from slixmpp import JID, ClientXMPP
from slixmpp.exceptions import IqError

from running_site import RunningSite


class Person(ClientXMPP):
    """``ca`` is the authority to trust; without one the connection is not encrypted."""

    def __init__(self, address: str, password: str, *, ca: Path | None = None) -> None:
        super().__init__(address, password)
        self.enable_direct_tls = False
        self.enable_starttls = ca is not None
        self.enable_plaintext = ca is None
        if ca is not None:
            self.ssl_context = ssl.create_default_context(cafile=str(ca))
            self.ca_certs = ca
        self.online = asyncio.Event()
        self.seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.chats: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.room: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.errors: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.events: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        for plugin in ("xep_0004", "xep_0030", "xep_0045", "xep_0060", "xep_0115", "xep_0163", "xep_0118", "xep_0199"):
            self.register_plugin(plugin)
        if ca is None:
            self.plugin["feature_mechanisms"].unencrypted_scram = True
        self.auto_authorize = self.auto_subscribe = True
        self.add_event_handler("session_start", self._start)
        self.add_event_handler("presence_available", lambda p: self.seen.put_nowait((p["from"].bare, "there")))
        self.add_event_handler("presence_unavailable", lambda p: self.seen.put_nowait((p["from"].bare, "gone")))
        self.add_event_handler("groupchat_message", lambda m: self.room.put_nowait((m["from"].resource, m["body"])))
        self.add_event_handler("message", self._message)
        self.add_event_handler(
            "message_error", lambda m: self.errors.put_nowait((m["error"]["condition"], m["error"]["text"]))
        )
        self.add_event_handler(
            "user_tune_publish",
            lambda m: self.events.put_nowait((m["from"].bare, m["pubsub_event"]["items"]["item"]["tune"]["title"])),
        )

    @classmethod
    def of(cls, site: RunningSite, address: str) -> Person:
        """A demo user of a site."""
        return cls(address, site.passwords[address], ca=site.ca)

    async def _start(self, _event: object) -> None:
        await self.get_roster()
        self.plugin["xep_0163"].add_interest("http://jabber.org/protocol/tune")
        await self.plugin["xep_0115"].update_caps()
        self.send_presence()
        # The presence counts once the server has answered what came after it; whether it knows pings does not matter.
        with contextlib.suppress(IqError):
            await self.plugin["xep_0199"].send_ping(JID(self.boundjid.domain))
        self.online.set()

    def _message(self, message: Any) -> None:
        if message["type"] in ("chat", "normal") and message["body"]:
            self.chats.put_nowait((message["from"].bare, message["body"]))

    async def sign_in(self, address: str, port: int) -> None:
        """Connects and becomes available."""
        self.connect(address, port)
        await asyncio.wait_for(self.online.wait(), 20)

    async def sees(self, address: str, state: str) -> None:
        """Waits until somebody is ``there`` or ``gone``."""
        async with asyncio.timeout(30):
            while await self.seen.get() != (address, state):
                pass

    async def chat(self) -> tuple[str, str]:
        """The next message: from whom, and what."""
        return await asyncio.wait_for(self.chats.get(), 30)

    async def error(self) -> tuple[str, str]:
        """The next error: its condition, and its text."""
        return await asyncio.wait_for(self.errors.get(), 30)

    async def says(self, nick: str, text: str) -> None:
        """Waits until somebody says something in a room."""
        async with asyncio.timeout(30):
            while await self.room.get() != (nick, text):
                pass

    async def hears_of(self, address: str, title: str) -> None:
        """Waits until somebody's personal event says what they listen to."""
        async with asyncio.timeout(30):
            while await self.events.get() != (address, title):
                pass

    async def befriend(self, other: Person) -> None:
        """Subscribes both ways."""
        mine, theirs = self.boundjid.bare, other.boundjid.bare
        self.send_presence_subscription(theirs, ptype="subscribe")
        await asyncio.gather(self.sees(theirs, "there"), other.sees(mine, "there"))
        async with asyncio.timeout(30):
            while self.client_roster[theirs]["subscription"] != "both":
                await asyncio.sleep(0.05)

    async def open_room(self, room: str, nick: str) -> None:
        """Makes a room that everybody may enter."""
        await self.join(room, nick)
        forms: Any = self.plugin["xep_0004"]
        await self.plugin["xep_0045"].set_room_config(JID(room), forms.make_form(ftype="submit"))

    async def join(self, room: str, nick: str) -> None:
        """Enters a room."""
        await self.plugin["xep_0045"].join_muc_wait(JID(room), nick, maxstanzas=0, timeout=25)

    async def leave(self) -> None:
        """Goes."""
        if self.is_connected():
            await self.disconnect(wait=0.5)
