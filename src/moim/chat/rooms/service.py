"""The group chat service: finds or makes the room that a stanza is for, lets it act, and sends and keeps what follows.

A part of the server with a domain of its own. Stanzas come in through ``send``, whose ``from`` was stamped by whoever
let them in; what rooms say goes out through ``deliver`` in batches, and through ``fan_out`` to many at once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from moim.chat.audience import Audience
from moim.chat.rooms import entering, lists, messages, owners, showing
from moim.chat.rooms.answering import Answers
from moim.chat.rooms.archiving import RoomArchive
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.directory import Directory, too_fast
from moim.chat.rooms.keeping import RoomStore
from moim.chat.rooms.lasting import Lasting
from moim.chat.rooms.output import Fan, Output
from moim.chat.rooms.ranks import Affiliation, Role
from moim.chat.rooms.relay import Relay
from moim.chat.rooms.room import Room
from moim.chat.rooms.tasks import Tasks
from moim.errors import ProtocolError
from moim.net.rate import RateLimit
from moim.proto.xmpp import Element, Jid, StanzaError, check_iq, error_reply, message_type, ns
from moim.store import Store

Deliver = Callable[[Sequence[tuple[Jid, Element]]], None]
"""Sends stanzas on, in order. Each is addressed already; the JID is its ``to``."""
FanOut = Callable[[Element, Audience, Collection[Jid]], None]
"""Sends one stanza, without ``to``, to an audience, but for some of it."""


class Seats(Protocol):
    """Keeps who is in the rooms, so that another node can go on with them."""

    def note(self, key: str, room: Room) -> None:
        """Call after every step of a room, by its name in the store; cheap when nobody came, went or changed."""
        ...


_BYTES_PER_UNIT = 8192
_INVITATION_COST = 5
_LOGGED_PER_SECOND, _LOGGED_AT_ONCE = 0.2, 20
"""Refusals of one address that are logged: a flood of them tells nothing more, and would fill the disk."""

_log = logging.getLogger("moim.chat.rooms")


@dataclass(frozen=True, slots=True)
class Share:
    """What one person may do: the rooms that it made and that exist, and stanzas per second and at once."""

    rooms: int
    rate: float
    burst: int


@dataclass(frozen=True, slots=True)
class RoomSettings:
    """The service's limits. ``creators`` is the domain whose people may make rooms; empty for everybody.

    ``apart``: its rooms are told from those of another service of the site by their host, in the store.
    """

    host: str
    creators: str
    occupants: int
    history: int
    rooms: int
    share: Share
    persistent: bool
    history_bytes: int = 1_048_576
    affiliations: int = 5000
    vcard_bytes: int = 131_072
    logged: bool = True
    name: str = "Rooms"
    apart: bool = False
    forms: tuple[Element, ...] = ()
    """What discovery of the service has besides (XEP-0128)."""


class Rooms:
    """Every room of one service. ``share`` is that of a person, when it is not the general one."""

    def __init__(
        self,
        settings: RoomSettings,
        *,
        store: Store,
        deliver: Deliver,
        fan_out: FanOut,
        archive: RoomArchive | None = None,
        seats: Seats | None = None,
        share: Callable[[Jid], Share | None] = lambda person: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.host = settings.host
        self.name = settings.name
        self._settings = settings
        self.deliver = deliver
        self._fan_out = fan_out
        self._archive = archive
        self._seats = seats
        self._new_id = archive.next_id if archive is not None else None
        self.now = clock
        self._bounds = Bounds(
            settings.occupants,
            settings.history,
            settings.history_bytes,
            settings.affiliations,
            settings.vcard_bytes,
            archive=archive is not None,
        )
        self._share = share
        self._budgets: dict[tuple[float, int], RateLimit] = {}
        self._logged = RateLimit(per_s=_LOGGED_PER_SECOND, burst=_LOGGED_AT_ONCE)
        self._relay = Relay(_token)
        self._store = RoomStore(store, settings.host, apart=settings.apart, temporary=seats is not None)
        self._rooms: dict[str, Room] = {}
        self._directory = Directory(self._rooms.values)
        self._made: Counter[str] = Counter()
        self._inbox: deque[Element] = deque()
        self._working = False
        self._tasks = Tasks()
        self._lasting = Lasting(self._store, archive, self._tasks, temporary=seats is not None, refuse=self.refuse)
        self._answers = Answers(
            self,
            name=settings.name,
            forms=settings.forms,
            rooms=self._rooms,
            directory=self._directory,
            relay=self._relay,
            archive=archive,
            tasks=self._tasks,
        )

    async def start(self) -> None:
        """Reads the rooms that are kept. Raises Unavailable when the store cannot be read."""
        for room in await self._store.load(self._bounds, _token, self._new_id):
            if room.is_over and self._seats is None:
                self._store.save(room, whole=True)  # left behind by a node that kept it for others to take over
                continue
            self._rooms[room.jid.local] = room
            self._made[room.creator] += 1
            self._lasting.loaded(room)
        self._directory.changed()

    def seat(self, room: str, session: Jid, nick: str, role: Role, words: Sequence[Element], *, visible: bool) -> None:
        """Puts a session back where it was when another node ran the service; nobody is told.

        ``room`` is as the store has it.
        """
        name = self._store.name(room)
        found = self._rooms.get(name) if name is not None else None
        if found is not None and session not in found.by_session:
            occupant = found.add(session, nick, tuple(words))
            found.set_role(occupant, role)
            occupant.visible = visible

    def vanished(self, sessions: Collection[Jid]) -> None:
        """These sessions are gone without a word: they leave every room (status 333)."""
        gone = frozenset(sessions)
        for room in tuple(self._rooms.values()):
            left = room.by_session.keys() & gone
            for session in left:
                entering.vanished(room, session)
            if left:
                self.settle(room)

    def sweep(self) -> None:
        """Ends the rooms that nothing keeps any more."""
        for room in tuple(self._rooms.values()):
            if room.is_over:
                self.settle(room)

    async def hand_over(self) -> None:
        """Another node goes on with the rooms: nobody is told. Returns when everything is on disk."""
        for room in tuple(self._rooms.values()):
            if room.changed:
                self.settle(room)
        await self._tasks.settled()
        await self._store.drain()

    async def stop(self) -> None:
        """Tells everybody that the service stops (status 332); returns when everything is on disk."""
        for room in tuple(self._rooms.values()):
            if room.changed:
                self.settle(room)
            owners.shut_down(room)
            self._say(room)
        await self._tasks.settled()
        await self._store.drain()

    def addresses(self) -> list[str]:
        """Every room there is."""
        return [room.address for room in self._rooms.values()]

    async def account_removed(self, bare: str) -> None:
        """Takes a removed account's affiliations. Raises MoimError when the database does not take it."""
        saving = [
            task
            for room in tuple(self._rooms.values())
            if lists.forget(room, bare) and (task := self.settle(room)) is not None
        ]
        await asyncio.gather(*saving)

    def send(self, stanza: Element) -> None:
        """Takes a stanza for the service or one of its rooms; a refusal goes back as an error stanza.

        What comes while another one is worked on waits for it: delivering to a server that cannot be reached brings
        its error before the call returns.
        """
        self._inbox.append(stanza)
        if not self._working:
            self._work()

    def _work(self) -> None:
        self._working = True
        try:
            while self._inbox:
                self._take(self._inbox.popleft())
        finally:
            self._working = False

    def _take(self, stanza: Element) -> None:
        try:
            self._stanza(stanza)
        except StanzaError as error:
            self.refuse(stanza, error)
        except Exception:
            _log.exception("a stanza for %s could not be handled", stanza.get("to"))
            self.refuse(stanza, StanzaError("internal-server-error"))

    def refuse(self, stanza: Element, error: StanzaError) -> None:
        """Answers with an error, where one may be sent."""
        reply = error_reply(stanza, error)
        if reply is None:
            return
        if self._logged.take(reply.get("to") or "", time.monotonic()):
            _log.info("%s of %s for %s refused: %s", stanza.name, stanza.get("from"), stanza.get("to"), error)
        if reply.name == "presence":
            # Clients tell a room's refusal from a contact's by this (the examples of XEP-0045 section 7.2).
            reply = reply.with_children((Element("x", ns.MUC), *reply.children))
        self.deliver([(Jid.parse(reply.get("to") or ""), reply)])

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
        if stanza.name == "message" and (muc := stanza.find("x", ns.MUC_USER)) is not None:
            cost += _INVITATION_COST * sum(child.name == "invite" for child in muc.elements())
        share = self._share_of(sender)
        budgets = self._budgets.setdefault((share.rate, share.burst), RateLimit(per_s=share.rate, burst=share.burst))
        if not budgets.take(str(sender.bare), time.monotonic(), cost):
            raise StanzaError("policy-violation", "you are too fast; slow down", kind="wait")

    def _share_of(self, person: Jid) -> Share:
        return self._share(person) or self._settings.share

    # --- presence -----------------------------------------------------------------------------------------------

    def _presence(self, sender: Jid, to: Jid, stanza: Element) -> None:
        kind = stanza.get("type")
        if kind in ("unavailable", "error"):
            room = self._rooms.get(to.local)
            if room is None:
                return
            if kind == "unavailable":
                entering.unavailable(room, sender, stanza)
            elif messages.bounced(room, sender, stanza):
                entering.vanished(room, sender)
            self.settle(room)
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
        self._spend(sender, stanza)
        room, created = self._rooms.get(to.local), False
        if room is None:
            if stanza.find("x", ns.MUC) is None:
                self.deliver([(sender, showing.absent(to.bare, to.resource, sender, Affiliation.NONE))])
                return
            room, created = self._create(sender, to), True
        try:
            entering.available(room, sender, to.resource, stanza, self.now(), created=created)
        finally:
            self.settle(room)

    def _create(self, sender: Jid, to: Jid) -> Room:
        limits, creator = self._settings, str(sender.bare)
        if limits.creators and sender.domain != limits.creators:
            raise StanzaError("not-allowed", f"only people of {limits.creators} make rooms here")
        if len(self._rooms) >= limits.rooms:
            raise StanzaError("resource-constraint", "there are as many rooms as there may be")
        most = self._share_of(sender).rooms
        if not most:
            raise StanzaError("not-allowed", "you may not make rooms")
        if self._made[creator] >= most:
            raise StanzaError("resource-constraint", "you have made as many rooms as you may have")
        room = Room(
            to.bare,
            config=RoomConfig(persistent=limits.persistent, history=limits.history, logged=limits.logged),
            bounds=self._bounds,
            salt=secrets.token_bytes(16),
            creator=creator,
            token=_token,
            new_id=self._new_id,
            affiliations={creator: Affiliation.OWNER},
            locked=True,
        )
        self._rooms[to.local] = room
        self._made[creator] += 1
        self._lasting.made(room)
        return room

    # --- messages -----------------------------------------------------------------------------------------------

    def _message(self, sender: Jid, to: Jid, message: Element) -> None:
        bounced = message_type(message) == "error"
        room = self._rooms.get(to.local)
        if room is None:
            if not bounced:
                raise StanzaError("item-not-found" if to.local else "service-unavailable")
            return
        if bounced:
            if messages.bounced_to(room, sender, to.resource, message):
                entering.vanished(room, sender)
        else:
            self._spend(sender, message)
            if room.locked and room.affiliation(sender) is not Affiliation.OWNER:
                raise StanzaError("item-not-found", "the room is not open yet")
            if to.resource:
                messages.to_occupant(room, sender, to.resource, message)
            else:
                messages.to_room(room, sender, message, self.now())
        self.settle(room)

    # --- requests -----------------------------------------------------------------------------------------------

    def _iq(self, sender: Jid, to: Jid, iq: Element) -> None:
        payload = check_iq(iq)
        if payload is None:
            passed = self._relay.answer(sender, iq)
            if passed is not None:
                self.deliver([passed])
            return
        try:
            self._spend(sender, iq)
        except StanzaError as error:
            raise (too_fast(error.text) if payload.ns == ns.CHANNEL_SEARCH else error) from None
        self._answers.iq(sender, to, iq, payload)

    # --- what follows -------------------------------------------------------------------------------------------

    def settle(self, room: Room) -> asyncio.Task[None] | None:
        """Sends and keeps what a step left behind; gives the write that makes it durable, if there is one."""
        over = room.is_over
        if self._seats is not None:
            self._seats.note(self._store.key(room), room)
        saving = None
        if room.changed or over:
            self._directory.changed()
            saving = self._lasting.save(room)
        self._lasting.words(room)
        if over and self._rooms.get(room.jid.local) is room:
            del self._rooms[room.jid.local]
            self._directory.changed()
            self._made[room.creator] -= 1
            if self._made[room.creator] <= 0:
                del self._made[room.creator]
        self._say(room)
        return saving

    def _say(self, room: Room) -> None:
        output, room.output = room.output, []
        if not output:
            return
        working, self._working = self._working, True
        try:
            self._send(output)
        finally:
            self._working = working
        if not working:
            self._work()

    def _send(self, output: Sequence[Output]) -> None:
        batch: list[tuple[Jid, Element]] = []
        for item in output:
            if isinstance(item, Fan):
                if batch:
                    self.deliver(batch)
                    batch = []
                self._fan_out(item.stanza, item.audience, item.skip)
            else:
                batch.append(item)
        if batch:
            self.deliver(batch)


def _token() -> str:
    return secrets.token_urlsafe(12)
