"""The group chat service: finds or makes the room that a stanza is for, lets it act, and sends and keeps what follows.

A part of the server with a domain of its own. Stanzas come in through ``send``, whose ``from`` was stamped by whoever
let them in; what rooms say goes out through ``deliver`` in batches.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from moim.chat.rooms import describing, entering, lists, messages, owners
from moim.chat.rooms.budget import Budgets
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.keeping import RoomStore
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.relay import Relay
from moim.chat.rooms.room import Room
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, check_iq, error_reply, message_type, ns, result
from moim.store import Store

Deliver = Callable[[Sequence[tuple[Jid, Element]]], None]
"""Sends stanzas on, in order. Each is addressed already; the JID is its ``to``."""

_BYTES_PER_UNIT = 8192
_INVITATION_COST = 5

_log = logging.getLogger("moim.chat.rooms")


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """The service's limits. ``creators`` is the domain whose people may make rooms; empty for everybody."""

    host: str
    creators: str
    occupants: int
    history: int
    rooms: int
    rooms_per_user: int
    rate: float
    burst: int
    persistent: bool


class Rooms:
    """Every room of one service."""

    def __init__(
        self,
        settings: RoomSettings,
        *,
        store: Store,
        deliver: Deliver,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.host = settings.host
        self.name = "Rooms"
        self._settings = settings
        self._deliver = deliver
        self._clock = clock
        self._bounds = Bounds(settings.occupants, settings.history)
        self._budgets = Budgets(settings.rate, settings.burst)
        self._relay = Relay(_token)
        self._store = RoomStore(store)
        self._rooms: dict[str, Room] = {}
        self._made: Counter[str] = Counter()
        self._kept: set[str] = set()

    async def start(self) -> None:
        """Reads the rooms that are kept. Raises Unavailable when the store cannot be read."""
        for room in await self._store.load(self.host, self._bounds, _token):
            self._rooms[room.jid.local] = room
            self._made[room.creator] += 1
            self._kept.add(room.jid.local)

    async def stop(self) -> None:
        """Returns when everything is on disk."""
        for room in tuple(self._rooms.values()):
            if room.changed:
                self._settle(room)
        await self._store.drain()

    async def account_removed(self, bare: str) -> None:
        """Takes a removed account's affiliations. Raises MoimError when the database does not take it."""
        saving = [
            task
            for room in tuple(self._rooms.values())
            if lists.forget(room, bare) and (task := self._settle(room)) is not None
        ]
        await asyncio.gather(*saving)

    def send(self, stanza: Element) -> None:
        """Takes a stanza for the service or one of its rooms; a refusal goes back as an error stanza."""
        try:
            self._stanza(stanza)
        except StanzaError as error:
            self._refuse(stanza, error)
        except Exception:
            _log.exception("a stanza for %s could not be handled", stanza.get("to"))
            self._refuse(stanza, StanzaError("internal-server-error"))

    def _refuse(self, stanza: Element, error: StanzaError) -> None:
        reply = error_reply(stanza, error)
        if reply is None:
            return
        if reply.name == "presence":
            # Clients tell a room's refusal from a contact's by this (the examples of XEP-0045 section 7.2).
            reply = reply.with_children((Element("x", ns.MUC), *reply.children))
        self._deliver([(Jid.parse(reply.get("to") or ""), reply)])

    def _stanza(self, stanza: Element) -> None:
        try:
            sender, to = Jid.parse(stanza.get("from") or ""), Jid.parse(stanza.get("to") or "")
        except ProtocolError:
            return  # whoever let it in read both addresses before
        if sender.domain == self.host:
            return  # rooms do not talk to rooms
        if stanza.name == "presence":
            self._presence(sender, to, stanza)
        elif stanza.name == "message":
            self._message(sender, to, stanza)
        else:
            self._iq(sender, to, stanza)

    def _spend(self, sender: Jid, stanza: Element) -> None:
        """Takes what a stanza costs: large ones count more, because a room sends them to everybody."""
        cost = 1 + len(stanza.to_xml()) // _BYTES_PER_UNIT
        muc = stanza.find("x", ns.MUC_USER)
        if muc is not None:
            cost += _INVITATION_COST * sum(child.name == "invite" for child in muc.elements())
        if not self._budgets.take(str(sender.bare), time.monotonic(), cost):
            raise StanzaError("policy-violation", "you are too fast; slow down", kind="wait")

    # --- presence -----------------------------------------------------------------------------------------------

    def _presence(self, sender: Jid, to: Jid, stanza: Element) -> None:
        kind = stanza.get("type")
        if kind in ("unavailable", "error"):
            room = self._rooms.get(to.local)
            if room is not None:
                entering.unavailable(room, sender, stanza if kind == "unavailable" else stanza.with_children(()))
                self._settle(room)
        elif kind is None:
            self._available(sender, to, stanza)
        elif kind == "subscribe":
            raise StanzaError("not-allowed", "rooms have no contact lists")

    def _available(self, sender: Jid, to: Jid, stanza: Element) -> None:
        if not to.local:
            raise StanzaError("service-unavailable")
        if not to.resource:
            raise StanzaError("jid-malformed", "a nickname is needed to enter a room")
        if not sender.resource:
            raise StanzaError("bad-request", "only a full address enters a room")
        if not to.resource.strip():
            raise StanzaError("not-acceptable", "a nickname is not empty")
        self._spend(sender, stanza)
        room, created = self._rooms.get(to.local), False
        if room is None:
            if stanza.find("x", ns.MUC) is None:
                raise StanzaError("item-not-found", "there is no such room")
            room, created = self._create(sender, to), True
        try:
            entering.available(room, sender, to.resource, stanza, self._clock(), created=created)
        finally:
            self._settle(room)

    def _create(self, sender: Jid, to: Jid) -> Room:
        limits, creator = self._settings, str(sender.bare)
        if limits.creators and sender.domain != limits.creators:
            raise StanzaError("not-allowed", f"only people of {limits.creators} make rooms here")
        if len(self._rooms) >= limits.rooms:
            raise StanzaError("resource-constraint", "there are as many rooms as there may be")
        if self._made[creator] >= limits.rooms_per_user:
            raise StanzaError("resource-constraint", "you have made as many rooms as you may have")
        room = Room(
            to.bare,
            config=RoomConfig(persistent=limits.persistent, history=limits.history),
            bounds=self._bounds,
            salt=secrets.token_bytes(16),
            creator=creator,
            token=_token,
            affiliations={creator: Affiliation.OWNER},
            locked=True,
        )
        self._rooms[to.local] = room
        self._made[creator] += 1
        return room

    # --- messages -----------------------------------------------------------------------------------------------

    def _message(self, sender: Jid, to: Jid, message: Element) -> None:
        bounced = message_type(message) == "error"
        room = self._rooms.get(to.local)
        if room is None:
            if not bounced:
                raise StanzaError("item-not-found" if to.local else "service-unavailable")
            return
        if not bounced:
            self._spend(sender, message)
        if to.resource:
            messages.to_occupant(room, sender, to.resource, message)
        elif not bounced:
            messages.to_room(room, sender, message, self._clock())
        elif messages.bounced(room, sender, message):
            entering.vanished(room, sender)
        self._settle(room)

    # --- requests -----------------------------------------------------------------------------------------------

    def _iq(self, sender: Jid, to: Jid, iq: Element) -> None:
        payload = check_iq(iq)
        if payload is None:
            passed = self._relay.answer(sender, iq)
            if passed is not None:
                self._deliver([passed])
            return
        self._spend(sender, iq)
        key = (iq.get("type"), payload.ns, payload.name)
        if not to.local:
            if to.resource:
                raise StanzaError("service-unavailable")
            self._answer(sender, iq, self._service_request(key, payload))
            return
        room = self._rooms.get(to.local)
        if room is None:
            raise StanzaError("item-not-found", "there is no such room")
        if to.resource:
            self._deliver([self._relay.ask(room, sender, to.resource, iq, payload)])
            return
        answer = self._room_request(key, room, sender, payload)
        saving = self._settle(room)
        if saving is None:
            self._answer(sender, iq, answer)
        else:
            saving.add_done_callback(lambda task: self._saved(task, sender, iq, answer))

    def _service_request(self, key: tuple[str | None, str, str], payload: Element) -> Sequence[Element]:
        if key == ("get", ns.DISCO_INFO, "query"):
            return (describing.service_info(payload),)
        if key == ("get", ns.DISCO_ITEMS, "query"):
            return (describing.service_items(payload, self._rooms.values()),)
        if key == ("get", ns.PING, "ping"):
            return ()
        raise StanzaError("service-unavailable")

    def _room_request(
        self, key: tuple[str | None, str, str], room: Room, sender: Jid, payload: Element
    ) -> Sequence[Element]:
        if key == ("get", ns.DISCO_INFO, "query"):
            return (describing.room_info(room, payload),)
        if key == ("get", ns.DISCO_ITEMS, "query"):
            return (describing.room_items(room, sender),)
        if key == ("get", ns.PING, "ping"):
            return ()
        if key == ("get", ns.MUC_ADMIN, "query"):
            return (lists.read(room, sender, payload),)
        if key == ("get", ns.MUC_OWNER, "query"):
            return (owners.read(room, sender),)
        if key == ("set", ns.MUC_ADMIN, "query"):
            lists.change(room, sender, payload)
            return ()
        if key == ("set", ns.MUC_OWNER, "query"):
            owners.change(room, sender, payload)
            return ()
        raise StanzaError("service-unavailable")

    def _answer(self, sender: Jid, iq: Element, payload: Sequence[Element]) -> None:
        self._deliver([(sender, result(iq, *payload))])

    def _saved(self, task: asyncio.Task[None], sender: Jid, iq: Element, payload: Sequence[Element]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._refuse(iq, StanzaError("internal-server-error", "the change could not be stored", kind="wait"))
        else:
            self._answer(sender, iq, payload)

    # --- what follows -------------------------------------------------------------------------------------------

    def _settle(self, room: Room) -> asyncio.Task[None] | None:
        """Sends and keeps what a step left behind; gives the write that makes it durable, if there is one."""
        output, room.output = room.output, []
        recorded, room.recorded = room.recorded, []
        saving = self._save(room) if room.changed or room.is_over else None
        if recorded:
            self._store.record(room, recorded)
        if room.is_over and self._rooms.get(room.jid.local) is room:
            del self._rooms[room.jid.local]
            self._made[room.creator] -= 1
            if self._made[room.creator] <= 0:
                del self._made[room.creator]
        if output:
            self._deliver(output)
        return saving

    def _save(self, room: Room) -> asyncio.Task[None] | None:
        name = room.jid.local
        room.changed = False
        keep = room.config.persistent and not room.locked and not room.destroyed
        if not keep and name not in self._kept:
            return None
        if keep:
            self._kept.add(name)
        else:
            self._kept.discard(name)
        task = self._store.save(room)
        task.add_done_callback(lambda done: self._check_saved(done, room))
        return task

    def _check_saved(self, task: asyncio.Task[None], room: Room) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the room %s could not be stored: %s", room.address, error)
            self._kept.add(room.jid.local)
            room.changed = True  # with the next step it is tried again


def _token() -> str:
    return secrets.token_urlsafe(12)
