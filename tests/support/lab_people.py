"""Runs slixmpp clients on the host of a lab that this program is started on, as its input says, line by line.

``{"id", "who", "call", "args"}`` calls a method of somebody; ``{"id", "result"}`` or ``{"id", "error"}`` is the answer.
``make`` makes somebody: address, password, authority (a path, or null: without encryption).
"""

from __future__ import annotations

import asyncio
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
        for plugin in ("xep_0280", "xep_0313", "xep_0363"):
            self.register_plugin(plugin)
        self.add_event_handler("carbon_received", lambda m: self._copy("received", m["carbon_received"]))
        self.add_event_handler("carbon_sent", lambda m: self._copy("sent", m["carbon_sent"]))

    def _copy(self, kind: str, message: Any) -> None:
        if message["body"]:
            self._copies.put_nowait((kind, message["body"]))

    def say(self, address: str, text: str, kind: Literal["chat", "groupchat"] = "chat") -> None:
        """Sends a message."""
        self.send_message(mto=JID(address), mbody=text, mtype=kind)

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
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=ca)) as http:
            return (await http.get(url)).raise_for_status().text


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
