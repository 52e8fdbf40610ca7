"""Group chat of a site with several domains: a service for each, side by side, as one part of the server."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from moim.chat.rooms.ranks import Role
from moim.chat.rooms.service import Rooms
from moim.proto.xmpp import Element, Jid


class RoomServices:
    """The services of several domains; each has its own rooms and limits. See ``Rooms`` for what the methods do."""

    def __init__(self, services: Sequence[Rooms]) -> None:
        self._services = {service.host: service for service in services}

    @property
    def hosts(self) -> Collection[str]:
        """The domains of the services."""
        return self._services.keys()

    def addresses(self) -> list[str]:
        """Every room there is."""
        return [address for service in self._services.values() for address in service.addresses()]

    async def start(self) -> None:
        """Reads the rooms that are kept. Raises Unavailable when the store cannot be read."""
        for service in self._services.values():
            await service.start()

    async def stop(self) -> None:
        """Tells everybody that the services stop; returns when everything is on disk."""
        await asyncio.gather(*(service.stop() for service in self._services.values()))

    async def hand_over(self) -> None:
        """Another node goes on with the rooms."""
        await asyncio.gather(*(service.hand_over() for service in self._services.values()))

    async def account_removed(self, bare: str) -> None:
        """Takes a removed account's affiliations. Raises MoimError when the database does not take it."""
        for service in self._services.values():
            await service.account_removed(bare)

    def send(self, stanza: Element) -> None:
        """Takes a stanza for one of the services."""
        if (service := self._services.get(Jid.parse(stanza.get("to") or "").domain)) is not None:
            service.send(stanza)

    def seat(self, room: str, session: Jid, nick: str, role: Role, words: Sequence[Element], *, visible: bool) -> None:
        """Puts a session back where it was when another node ran the services."""
        for service in self._services.values():
            service.seat(room, session, nick, role, words, visible=visible)

    def vanished(self, sessions: Collection[Jid]) -> None:
        """These sessions are gone without a word."""
        for service in self._services.values():
            service.vanished(sessions)

    def sweep(self) -> None:
        """Ends the rooms that nothing keeps any more."""
        for service in self._services.values():
            service.sweep()
