"""Runs slixmpp clients on the host of a lab that this program is started on, as its input says, line by line.

``{"id", "who", "call", "args"}`` calls a method of somebody; ``{"id", "result"}`` or ``{"id", "error"}`` is the answer.
``make`` makes somebody: address, password, authority (a path, or null: without encryption).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import sys
from pathlib import Path
from typing import Any, Literal

import httpx
from slixmpp import JID

from federation_person import Person


class LabPerson(Person):
    """Somebody with carbons, an archive and uploads."""

    def __init__(self, address: str, password: str, ca: str | None) -> None:
        super().__init__(address, password, ca=Path(ca) if ca else None)
        self._copies: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._confirmed: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._corrected: asyncio.Queue[str] = asyncio.Queue()
        for plugin in ("xep_0084", "xep_0184", "xep_0280", "xep_0308", "xep_0313", "xep_0333", "xep_0363"):
            self.register_plugin(plugin)
        self.add_event_handler("carbon_received", lambda m: self._copy("received", m["carbon_received"]))
        self.add_event_handler("carbon_sent", lambda m: self._copy("sent", m["carbon_sent"]))
        self.add_event_handler("message_correction", lambda m: self._corrected.put_nowait(m["body"]))
        self.add_event_handler("receipt_received", lambda m: self._confirmed.put_nowait(("received", m["receipt"])))
        self.add_event_handler(
            "marker_displayed", lambda m: self._confirmed.put_nowait(("displayed", m["displayed"]["id"]))
        )

    def _copy(self, kind: str, message: Any) -> None:
        if message["body"]:
            self._copies.put_nowait((kind, message["body"]))

    def say(self, address: str, text: str, kind: Literal["chat", "groupchat"] = "chat") -> None:
        """Sends a message."""
        self.send_message(mto=JID(address), mbody=text, mtype=kind)

    def say_and_ask(self, address: str, text: str) -> str:
        """Sends a message that asks for a receipt and for a marker once it is read; gives its ID."""
        message = self.make_message(mto=JID(address), mbody=text, mtype="chat")
        message["request_receipt"] = True
        message.enable("markable")
        message.send()
        return str(message["id"])

    async def confirmed(self, what: str, message_id: str) -> None:
        """Waits until a message is said to be ``received`` or ``displayed``."""
        async with asyncio.timeout(30):
            while await self._confirmed.get() != (what, message_id):
                pass

    def correct(self, address: str, message_id: str, text: str) -> None:
        """Says that a message sent before should have been another."""
        message = self.make_message(mto=JID(address), mbody=text, mtype="chat")
        message["replace"]["id"] = message_id
        message.send()

    async def corrected(self) -> str:
        """What the next correction says instead."""
        return await asyncio.wait_for(self._corrected.get(), 30)

    async def show_avatar(self, path: str, kind: str) -> str:
        """Publishes a picture of oneself; gives its ID."""
        data = Path(path).read_bytes()
        avatars: Any = self.plugin["xep_0084"]
        await avatars.publish_avatar(data)
        digest = hashlib.sha1(data).hexdigest()
        await avatars.publish_avatar_metadata([{"id": digest, "type": kind, "bytes": str(len(data))}])
        return digest

    async def published(self, address: str, node: str) -> list[str]:
        """The names of what somebody's personal node holds."""
        found: Any = await self.plugin["xep_0060"].get_items(JID(address), node)
        return [item["payload"].tag for item in found["pubsub"]["items"]]

    def ask(self, address: str) -> None:
        """Asks for a subscription."""
        self.send_presence_subscription(JID(address), ptype="subscribe")

    async def copies(self) -> None:
        """Switches carbons on."""
        await self.plugin["xep_0280"].enable()

    async def copy(self) -> tuple[str, str]:
        """The next carbon: ``sent`` or ``received``, and what it says."""
        return await asyncio.wait_for(self._copies.get(), 30)

    async def archived(self, address: str) -> list[str]:
        """What the own archive has of a conversation, oldest first."""
        found = await self.plugin["xep_0313"].retrieve(with_jid=JID(address))
        return [
            one["mam_result"]["forwarded"]["stanza"]["body"]
            for one in found["mam"]["results"]
            if one["mam_result"]["forwarded"]["stanza"]["body"]
        ]

    async def subscription(self, address: str) -> None:
        """Waits until the subscription with somebody goes both ways."""
        async with asyncio.timeout(30):
            while self.client_roster[address]["subscription"] != "both":
                await asyncio.sleep(0.05)

    async def upload(self, service: str, ca: str, name: str, text: str) -> str:
        """Puts a file at an upload service; gives its link."""
        data = text.encode()
        slot = (await self.plugin["xep_0363"].request_slot(JID(service), name, len(data), "text/plain"))[
            "http_upload_slot"
        ]
        headers = {header["name"]: header["value"] for header in slot["put"]["headers"]}
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca)) as http:
            answer = await http.put(slot["put"]["url"], content=data, headers=headers | {"Content-Type": "text/plain"})
        assert answer.status_code == 201, answer.text
        return str(slot["get"]["url"])

    async def fetch(self, url: str, ca: str) -> str:
        """What a link leads to."""
        return (await self._get(url, ca)).text

    async def fetch_digest(self, url: str, ca: str) -> str:
        """The SHA-256 of what a link leads to."""
        return hashlib.sha256((await self._get(url, ca)).content).hexdigest()

    async def _get(self, url: str, ca: str) -> httpx.Response:
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca)) as http:
            return (await http.get(url)).raise_for_status()


async def _answer(people: dict[str, LabPerson], request: dict[str, Any]) -> dict[str, Any]:
    try:
        if request["call"] == "make":
            people[request["who"]] = LabPerson(*request["args"])
            return {"id": request["id"], "result": None}
        result = getattr(people[request["who"]], request["call"])(*request["args"])
        return {"id": request["id"], "result": await result if asyncio.iscoroutine(result) else result}
    except Exception as error:
        return {"id": request["id"], "error": f"{type(error).__name__}: {error}"}


async def main() -> None:
    """Serves the lines; the clients go with the input."""
    people: dict[str, LabPerson] = {}
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await _answer(people, json.loads(line))), flush=True)
    for person in people.values():
        await person.leave()


if __name__ == "__main__":
    asyncio.run(main())
