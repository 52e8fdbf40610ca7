"""Requests to the group chat service and its rooms: answered at once, or once the archive or the disk has spoken."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from moim.chat.rooms import archiving, describing, requests, retracting
from moim.chat.rooms.archiving import RoomArchive
from moim.chat.rooms.directory import Directory
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.relay import Relay
from moim.chat.rooms.requests import Key, Request
from moim.chat.rooms.room import Room
from moim.chat.rooms.tasks import Tasks
from moim.errors import MoimError
from moim.proto.xmpp import Element, Jid, StanzaError, ns, result

_MAX_WAITING = 200
"""Requests that wait for the archive at once."""

_log = logging.getLogger("moim.chat.rooms")


class Driver(Protocol):
    """Whoever lets rooms act."""

    def deliver(self, batch: Sequence[tuple[Jid, Element]]) -> None:
        """Sends stanzas on, in order."""
        ...

    def settle(self, room: Room) -> asyncio.Task[None] | None:
        """Sends and keeps what a step left behind; gives the write that makes it durable, if there is one."""
        ...

    def refuse(self, stanza: Element, error: StanzaError) -> None:
        """Answers with an error."""
        ...

    def now(self) -> datetime:
        """The time."""
        ...


class Answers:
    """Finds who answers a request, and answers."""

    def __init__(
        self,
        driver: Driver,
        *,
        name: str,
        forms: Sequence[Element],
        rooms: Mapping[str, Room],
        directory: Directory,
        relay: Relay,
        archive: RoomArchive | None,
        tasks: Tasks,
    ) -> None:
        self._driver = driver
        self._name = name
        self._forms = forms
        self._rooms = rooms
        self._directory = directory
        self._relay = relay
        self._archive = archive
        self._tasks = tasks

    def iq(self, sender: Jid, to: Jid, iq: Element, payload: Element) -> None:
        """A request, with its payload. Raises StanzaError when it is refused."""
        key = (iq.get("type"), payload.ns, payload.name)
        if not to.local:
            if to.resource:
                raise StanzaError("service-unavailable")
            self._answer(sender, iq, self._service_request(key, payload))
            return
        room = self._rooms.get(to.local)
        if room is None:
            # To a self-ping, item-not-found would say that the asker is still inside (XEP-0410 section 3.2).
            absent = to.resource and payload.ns == ns.PING
            raise StanzaError("not-acceptable" if absent else "item-not-found", "there is no such room")
        if room.locked and room.affiliation(sender) is not Affiliation.OWNER:
            raise StanzaError("not-acceptable" if to.resource else "item-not-found", "the room is not open yet")
        if to.resource:
            self._driver.deliver([self._relay.ask(room, sender, to.resource, iq, payload)])
        elif (work := self._slow_request(key, room, sender, iq, payload)) is not None:
            self._answer_later(iq, work)
        elif (handler := requests.ROOM.get(key)) is not None:
            answer = handler(Request(room, sender, payload))
            saving = self._driver.settle(room)
            if saving is None:
                self._answer(sender, iq, answer)
            else:
                saving.add_done_callback(lambda task: self._saved(task, sender, iq, answer))
        else:
            raise StanzaError("service-unavailable")

    def _service_request(self, key: Key, payload: Element) -> Sequence[Element]:
        if key == ("get", ns.DISCO_INFO, "query"):
            return (describing.service_info(payload, self._name, self._forms),)
        if key == ("get", ns.DISCO_ITEMS, "query"):
            return (self._directory.items(payload),)
        if key == ("get", ns.CHANNEL_SEARCH, "search"):
            return (self._directory.search(payload),)
        if key == ("get", ns.MUC_UNIQUE, "unique"):
            return (Element("unique", ns.MUC_UNIQUE, {}, (secrets.token_hex(8),)),)
        if key == ("get", ns.VCARD, "vCard"):
            return (Element("vCard", ns.VCARD, {}, (Element("FN", ns.VCARD, {}, (self._name,)),)),)
        if key == ("get", ns.PING, "ping"):
            return ()
        raise StanzaError("service-unavailable")

    # --- what may have to wait for the archive ----------------------------------------------------------------------

    def _slow_request(
        self, key: Key, room: Room, sender: Jid, iq: Element, payload: Element
    ) -> Coroutine[None, None, None] | None:
        """A request that may have to wait for the archive. Raises StanzaError when it is not theirs to make."""
        if key in (("set", ns.MODERATION, "moderate"), ("set", ns.FASTENING, "apply-to")):
            order = retracting.read_order(room, sender, payload, self._driver.now())
            return self._moderate(room, sender, iq, order)
        if self._archive is None or payload.ns != ns.ARCHIVE:
            return None
        real = archiving.check_reader(room, sender)
        if key == ("get", ns.ARCHIVE, "query"):
            return self._read(self._archive.fields, sender, iq)
        if key == ("get", ns.ARCHIVE, "metadata"):
            return self._read_metadata(self._archive, room, sender, iq)
        if key == ("set", ns.ARCHIVE, "query"):
            return self._query(self._archive, room, sender, iq, payload, real=real)
        return None

    async def _read(self, read: Callable[[], Element], sender: Jid, iq: Element) -> None:
        self._answer(sender, iq, (read(),))

    async def _read_metadata(self, archive: RoomArchive, room: Room, sender: Jid, iq: Element) -> None:
        self._answer(sender, iq, (await archive.metadata(room.address),))

    async def _query(
        self, archive: RoomArchive, room: Room, sender: Jid, iq: Element, payload: Element, *, real: bool
    ) -> None:
        found, fin = await archive.query(room.address, payload, sender, real=real)
        self._driver.deliver([*((sender, message) for message in found), (sender, result(iq, fin))])

    async def _moderate(self, room: Room, sender: Jid, iq: Element, order: retracting.Order) -> None:
        """Carries a moderator's order out: in the archive first where the history has the message no more."""
        if not retracting.knows(room, order):
            buried = (
                self._archive is not None
                and room.logged
                and await archiving.bury(self._archive, room.address, order.tombstone)
            )
            if not buried or self._rooms.get(room.jid.local) is not room:
                raise StanzaError("item-not-found", "the room has no such message, or it was taken back already")
        retracting.carry_out(room, order, self._driver.now())
        self._driver.settle(room)
        self._answer(sender, iq, ())

    def _answer_later(self, iq: Element, work: Coroutine[None, None, None]) -> None:
        if len(self._tasks) >= _MAX_WAITING:
            work.close()
            raise StanzaError("resource-constraint", "too many requests wait for the archive", kind="wait")
        self._tasks.spawn(self._awaited(iq, work))

    async def _awaited(self, iq: Element, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except StanzaError as error:
            self._driver.refuse(iq, error)
        except MoimError as error:
            _log.error("a request for %s could not be answered: %s", iq.get("to"), error)
            self._driver.refuse(iq, StanzaError("internal-server-error", kind="wait"))
        except Exception:
            _log.exception("a request for %s could not be answered", iq.get("to"))
            self._driver.refuse(iq, StanzaError("internal-server-error"))

    # --- the answer -------------------------------------------------------------------------------------------------

    def _answer(self, sender: Jid, iq: Element, payload: Sequence[Element]) -> None:
        self._driver.deliver([(sender, result(iq, *payload))])

    def _saved(self, task: asyncio.Task[None], sender: Jid, iq: Element, payload: Sequence[Element]) -> None:
        if task.cancelled() or task.exception() is not None:
            error = StanzaError("internal-server-error", "the change could not be stored", kind="wait")
            self._driver.refuse(iq, error)
        else:
            self._answer(sender, iq, payload)
