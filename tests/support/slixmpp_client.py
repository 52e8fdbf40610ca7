"""slixmpp, unmodified, as a person's program: signs in to a site and keeps what it receives in queues."""

from __future__ import annotations

import asyncio
import ssl

from slixmpp import ClientXMPP

from running_site import RunningSite


class Client(ClientXMPP):
    """slixmpp, unmodified, with what it receives kept in queues."""

    def __init__(self, site: RunningSite, address: str, *, password: str = "") -> None:
        super().__init__(address, password or site.passwords[address])
        self.ssl_context = ssl.create_default_context(cafile=str(site.ca))
        self.ca_certs = str(site.ca)
        self.online = asyncio.Event()
        self.failed = asyncio.Event()
        self.messages: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.register_plugin("xep_0199")
        self.add_event_handler("session_start", self._start)
        self.add_event_handler("failed_all_auth", lambda _: self.failed.set())
        self.add_event_handler("message", lambda m: self.messages.put_nowait((m["from"].bare, m["body"])))

    async def _start(self, _event: object) -> None:
        self.send_presence()
        await self.get_roster()
        self.online.set()

    async def sign_in(self, site: RunningSite, service: str) -> None:
        address, port = site.place(service)
        self.enable_direct_tls = service.endswith("-tls")
        self.enable_starttls = not self.enable_direct_tls
        self.connect(address, port)
        await asyncio.wait_for(self.online.wait(), 20)

    async def message(self) -> tuple[str, str]:
        return await asyncio.wait_for(self.messages.get(), 20)
