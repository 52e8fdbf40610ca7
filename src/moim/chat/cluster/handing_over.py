"""Sessions that go from one node to another without their clients noticing (XEP-0198 resumption across nodes).

A client that comes back to another node than the one that holds its session names it by its token: the node it came to
asks those that have sessions of the account. The old node ends the connection, works off what the client sent, takes
the session out of its plane and sends all there is of it over the link. From the moment in which it begins to do so it
counts as the other node's, and everything said to it goes there; a place kept on the link lets it arrive behind the
session. Nothing is lost or comes twice, whichever node it was sent from, and its order is kept. A node that stops
gives its sessions away in the same manner, without being asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from moim.chat.accounts import Accounts, Connection, Session
from moim.chat.cluster import codec
from moim.chat.cluster.link import Item, Slot
from moim.chat.cluster.links import Links
from moim.chat.cluster.shadows import Shadows
from moim.chat.feature import Feature, Luggage
from moim.chat.locks import Locks
from moim.chat.plane import Plane
from moim.chat.rosters import Rosters
from moim.chat.sessions import Sessions
from moim.chat.stream_management import StreamManagement
from moim.chat.undelivered import Undelivered
from moim.errors import MoimError
from moim.proto.xmpp import Element, Jid, stream_error

if TYPE_CHECKING:
    from moim.chat.plane import MovedOut

_PATIENCE: Final = 3.0
"""Seconds that a client which came back waits for the node that has its session, and that node for what it sent."""
_CHUNK: Final = 100_000
"""Characters of stanzas in one item, besides a single one that is larger; see ``link.MAX_BATCH``."""

_log = logging.getLogger("moim.chat.cluster")


class Parts(Protocol):
    """What this needs of the chat room."""

    accounts: Accounts
    plane: Plane
    rosters: Rosters
    undelivered: Undelivered
    sessions: Sessions
    management: StreamManagement

    @property
    def features(self) -> Sequence[Feature]:
        """Everything that the room has been composed of."""
        ...


@dataclass(eq=False, slots=True)
class _Leaving:
    """A session on its way out of the plane. ``number`` is of what asked for it, 0 when nothing did."""

    session: Session
    here: Connection
    node: str
    number: int
    slot: Slot
    carbons: bool
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class HandingOver:
    """Both sides of it at one node.

    ``at`` gives when a session got its address (seconds since the epoch); ``came(session, at)`` and ``left(session)``
    hear of those that came from another node and went to one.
    """

    def __init__(
        self,
        links: Links,
        shadows: Shadows,
        parts: Parts,
        *,
        at: Callable[[Session], float],
        came: Callable[[Session, float], None],
        left: Callable[[Session], None],
    ) -> None:
        self._links = links
        self._shadows = shadows
        self._parts = parts
        self._at = at
        self._came = came
        self._left = left
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[str, asyncio.Future[int | None]]] = {}
        self._begun: set[Session] = set()
        self._leaving: dict[int, _Leaving] = {}
        self._coming: dict[tuple[str, Jid], _Coming] = {}
        self._locks = Locks()
        self._tasks: set[asyncio.Task[None]] = set()
        parts.management.fetch = self.fetch
        parts.sessions.moved = self._taken_out
        parts.sessions.ending = self._ended

    # --- the node that a client came to -------------------------------------------------------------------------

    async def fetch(self, jid: Jid, token: str) -> int | None:
        """Brings the session here that the client of an account names; returns when it is here, or is not to be had.

        Gives how many stanzas it took, when it is over and another node remembers that.
        """
        bare, named = str(jid), self._parts.management.named
        async with self._locks.of(bare):
            for coming in [coming for coming in self._coming.values() if coming.jid.bare == jid]:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(coming.done), _PATIENCE)
            account = self._parts.accounts.get(bare)
            nodes = {x.node for x in account.sessions.values() if x.node} if account is not None else set()
            for node in sorted(nodes) or self._links.there():
                if named(jid, token) is not None:
                    break
                handled = await self._ask(node, jid, token)
                if handled is not None:
                    return handled
        return None

    async def _ask(self, node: str, jid: Jid, token: str) -> int | None:
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        account = self._parts.accounts.get(str(jid))
        for session in account.sessions.values() if account is not None else ():
            if session.node == node:
                self._hold(session)
        try:
            if not self._links.tell(node, [codec.WANT, number, str(jid), token]):
                return None
            self._asked[number] = node, answer
            return await asyncio.wait_for(answer, _PATIENCE)
        except TimeoutError:
            _log.warning("the node %s does not say whether it has a session that %s comes back to", node, jid)
            return None
        finally:
            self._asked.pop(number, None)
            for session in [x for x in self._shadows.holds if x.node == node and x.full.bare == jid]:
                if (node, session.full) not in self._coming:
                    self._release(session)
            self._make_copies(str(jid))

    def _hold(self, session: Session) -> None:
        """What this node has for another node's session waits: it goes there or comes here behind what was said."""
        self._shadows.holds.setdefault(session, [])
        self._shadows.copies.setdefault(str(session.full.bare), [])

    def _release(self, session: Session) -> None:
        """The session does not come."""
        held = self._shadows.holds.pop(session, [])
        if session.gone:
            self._parts.undelivered.take(held)
        else:
            self._parts.plane.send(session.sid, held)

    def _make_copies(self, bare: str) -> None:
        """Makes the carbons that waited, once no session of the account is about to come."""
        if not any(str(session.full.bare) == bare for session in self._shadows.holds):
            self._parts.plane.copy(self._shadows.copies.pop(bare, []))

    def _answered(self, peer: str, number: int, handled: int | None) -> None:
        node, answer = self._asked.get(number, ("", None))
        if answer is not None and node == peer and not answer.done():
            answer.set_result(handled)

    def kept(self, peer: str, item: Item) -> None:
        """The other node has no such session. Raises ValueError."""
        handled = None if len(item) > 2 and item[2] is None else codec.number(item, 2)
        self._answered(peer, codec.number(item, 1), handled)

    async def arrived(self, peer: str, item: Item) -> None:
        """A session goes on here. Raises ValueError."""
        jid = codec.jid(item, 1)
        state = _read(item[2] if len(item) > 2 else None)
        session = self._shadows.get(peer, jid)
        coming = self._coming[peer, jid] = _Coming(jid, session, state)
        self._shadows.coming[jid] = coming.held
        if session is not None and session not in self._shadows.holds:
            # Nobody asked for it: what this node said to it is on its way to the other node, and comes back first.
            coming.echoes = self._links.tell(peer, [codec.ECHO, str(jid)])
            self._hold(session)
        account = session.full_account if session is not None else None
        if account is not None and account.roster is None:
            try:
                account.roster = await self._parts.rosters.get(account.bare)
            except MoimError as error:
                _log.error("the contact list of %s cannot be read: %s", jid.bare, error)

    def sent(self, peer: str, item: Item) -> None:
        """What the client of a session that comes here may not have got. Raises ValueError."""
        jid, stanzas = codec.jid(item, 1), codec.sent(item, 2)
        coming = self._coming.get((peer, jid))
        if coming is not None:
            coming.sent += stanzas
        else:
            self._parts.undelivered.take(missed(stanzas))

    def settled(self, peer: str, item: Item) -> None:
        """A session is here with everything that goes with it. Raises ValueError."""
        jid, number = codec.jid(item, 1), codec.number(item, 2)
        coming = self._coming.get((peer, jid))
        if coming is not None:
            coming.number, coming.settled = number, True
            if not coming.echoes:
                self._parts.undelivered.take(self._settle(peer, coming))

    def echo(self, peer: str, item: Item) -> None:
        """Another node wants to know when what it said before was worked on; or it was, there. Raises ValueError."""
        jid = codec.jid(item, 1)
        coming = self._coming.get((peer, jid))
        if not codec.flag(item, 2):
            self._links.tell(peer, [codec.ECHO, str(jid), True])
        elif coming is not None:
            self._parts.undelivered.take(self._settle(peer, coming))

    def gone(self, peer: str) -> list[Element]:
        """A node is gone, and says nothing any more; gives what it had begun to send with sessions that are lost."""
        for number in [number for number, (node, _) in self._asked.items() if node == peer]:
            self._answered(peer, number, None)
        left: list[Element] = []
        for coming in [coming for (node, _), coming in self._coming.items() if node == peer]:
            left += self._settle(peer, coming)
        return left

    def hurry(self, jid: Jid) -> None:
        """Something is to be done with a session that is on its way here, after everything else."""
        for (peer, on_its_way), coming in tuple(self._coming.items()):
            if on_its_way == jid and coming.settled:
                self._parts.undelivered.take(self._settle(peer, coming))

    def _settle(self, peer: str, coming: _Coming) -> list[Element]:
        """A session that was on its way is here; gives what came for it when it is not."""
        jid, session = coming.jid, coming.session
        del self._coming[peer, jid], self._shadows.coming[jid]
        held = [*coming.held, *(self._shadows.holds.pop(session, []) if session is not None else ())]
        if session is None or session.gone or session.node != peer or not coming.settled:
            # It was ended meanwhile, or its node died in the middle of it.
            left = [*missed(coming.sent), *held]
        else:
            left = []
            self._move_in(session, coming.state, coming.sent, held)
            _log.info("the session %s came from the node %s", jid, peer)
        self._make_copies(str(jid.bare))
        coming.done.set_result(None)
        self._answered(peer, coming.number, None)
        return left

    def _move_in(
        self, session: Session, state: _State, sent: Sequence[tuple[Element, bool]], held: Sequence[Element]
    ) -> None:
        parts, full = self._parts, str(session.full)
        sid = parts.plane.move_in(full, state.received, state.acknowledged)
        parts.plane.restore(sid, sent)
        parts.plane.send(sid, held)
        parts.plane.bind(sid, full)
        self._shadows.take_in(session, Connection(sid, state.listener, state.address, state.port))
        session.presence = state.presence
        session.priority = state.priority if state.presence else 0
        session.interested, session.client = state.interested, state.client
        session.directed = dict.fromkeys(state.directed)
        parts.sessions.take_in(session)
        for feature in parts.features:
            if feature.on_bind is not None:
                feature.on_bind(session)
        parts.plane.presence(sid, session.priority if session.available else None)
        parts.plane.carbons(sid, state.carbons)
        for name, luggage in self._luggage():
            if (packed := state.luggage.get(name)) is not None:
                _unpack(luggage, session, name, packed)
        parts.management.take_in(session, state.token, state.seconds)
        if not session.gone:
            self._came(session, state.at)

    # --- the node that has it -----------------------------------------------------------------------------------

    def wanted(self, peer: str, item: Item) -> None:
        """Another node asks for a session, whose client signed in there. Raises ValueError."""
        number, jid, token = codec.number(item, 1), codec.jid(item, 2), codec.text(item, 3)
        session = self._parts.management.named(jid, token)
        if session is None:
            self._links.tell(peer, [codec.KEPT, number, self._parts.management.handled(jid, token)])
        else:
            self._spawn(self._give(session, peer, number))

    async def _give(self, session: Session, peer: str, number: int) -> None:
        error = stream_error("conflict", "the session goes on in a newer connection")
        if not await self.give(session, peer, error, number=number):
            self._links.tell(peer, [codec.KEPT, number, None])

    async def give(self, session: Session, node: str, error: Element, *, number: int = 0) -> bool:
        """Lets a session go on at another node, after ending its connection with ``error``; whether it does."""
        parts = self._parts
        if session in self._begun or session.node or not parts.management.resumable(session):
            return False
        self._begun.add(session)
        try:
            if not session.detached:
                parts.plane.part(session.sid, error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(parts.sessions.quiet(session), _PATIENCE)
            slot = self._links.reserve(node)
            if slot is None:
                return False
            if session.gone or session.busy or not session.detached:
                self._links.fill(node, slot, ())
                return False
            leaving = _Leaving(session, session.connection, node, number, slot, parts.plane.move_out(session.sid))
            self._leaving[session.sid] = leaving
            self._shadows.send_off(session, node)
            try:
                return await asyncio.wait_for(asyncio.shield(leaving.done), _PATIENCE)
            except TimeoutError:
                _log.error("what %s sent is not on disk after %.0f s, so its session ends", session.jid, _PATIENCE)
                parts.plane.close(leaving.here.sid)
                return await leaving.done
        finally:
            self._begun.discard(session)

    def _taken_out(self, event: MovedOut) -> None:
        """The plane has let go of a session: everything there is of it goes on its way."""
        _, sid, received, acknowledged, sent, held = event
        leaving = self._leaving.pop(sid)
        session, jid = leaving.session, str(leaving.session.full)
        token, seconds = self._parts.management.send_off(sid)
        state = {
            "token": token,
            "seconds": seconds,
            "received": received,
            "acknowledged": acknowledged,
            "carbons": leaving.carbons,
            "client": session.client,
            "listener": leaving.here.name,
            "address": leaving.here.peer,
            "port": leaving.here.port,
            "presence": session.presence.to_xml("") if session.presence is not None else "",
            "priority": session.priority,
            "interested": session.interested,
            "directed": list(session.directed),
            "at": self._at(session),
            "luggage": {name: luggage.pack(session) for name, luggage in self._luggage()},
        }
        if session.account is not None:
            for feature in self._parts.features:
                if feature.on_gone is not None:
                    feature.on_gone(session)
        self._left(session)
        items: list[Item] = [[codec.MOVED, jid, state]]
        items += [[codec.SENT, jid, chunk] for chunk in _chunks(sent)]
        items += [[codec.DELIVER, stanza.to_xml(""), [jid], False] for stanza in held]
        items.append([codec.SETTLED, jid, leaving.number])
        arrives = self._links.fill(leaving.node, leaving.slot, items)
        if arrives:
            _log.info("the session %s goes to the node %s", jid, leaving.node)
        else:
            self._parts.undelivered.take(missed(sent))
        leaving.done.set_result(arrives)

    def _ended(self, sid: int) -> None:
        """The plane ended a session that was about to leave: it is this node's again, and ends here."""
        leaving = self._leaving.pop(sid, None)
        if leaving is None:
            return
        self._links.fill(leaving.node, leaving.slot, ())
        if not leaving.session.gone:
            self._shadows.take_in(leaving.session, leaving.here)
        leaving.done.set_result(False)

    def _luggage(self) -> Iterator[tuple[str, Luggage]]:
        return ((x.name, x.luggage) for x in self._parts.features if x.luggage is not None)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="chat:handing-over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(eq=False, slots=True)
class _Coming:
    """A session on its way here; ``session`` is how it was known until now, None when it was not.

    ``sent`` is what its client may not have got, ``held`` what comes after that. ``echoes``: what this node had said to
    it comes back before it is complete.
    """

    jid: Jid
    session: Session | None
    state: _State
    sent: list[tuple[Element, bool]] = field(default_factory=list)
    held: list[Element] = field(default_factory=list)
    number: int = 0
    settled: bool = False
    echoes: bool = False
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class _State:
    token: str
    seconds: int
    received: int
    acknowledged: int
    carbons: bool
    client: str
    listener: str
    address: str
    port: int
    presence: Element | None
    priority: int
    interested: bool
    directed: list[str]
    at: float
    luggage: dict[str, Any]


_KINDS: Final[dict[str, type]] = {
    "token": str, "seconds": int, "received": int, "acknowledged": int, "carbons": bool, "client": str, "listener": str,
    "address": str, "port": int, "presence": str, "priority": int, "interested": bool, "directed": list, "at": float,
    "luggage": dict,
}  # fmt: skip
_MOST: Final = {"seconds": 10**9, "received": 2**32 - 1, "acknowledged": 2**32 - 1, "port": 65535}


def _read(state: Any) -> _State:
    if not isinstance(state, dict) or state.keys() != _KINDS.keys():
        raise ValueError("a session that goes on here is not understood")
    if not all(isinstance(state[name], kind) for name, kind in _KINDS.items()):
        raise ValueError("a session that goes on here is not understood")
    if not all(0 <= state[name] <= most for name, most in _MOST.items()) or not -128 <= state["priority"] <= 127:
        raise ValueError("a session that goes on here has a number that none has")
    directed = [str(jid) for jid in codec.jids(["directed", state["directed"]], 1)]
    presence = codec.element(["presence", state["presence"]], 1) if state["presence"] else None
    return _State(**{**state, "directed": directed, "presence": presence})


def _unpack(luggage: Luggage, session: Session, name: str, packed: Any) -> None:
    try:
        luggage.unpack(session, packed)
    except (TypeError, ValueError) as error:
        _log.error("what '%s' knew of %s is lost: %s", name, session.jid, error)


def _chunks(sent: Sequence[tuple[Element, bool]]) -> Iterator[list[list[Any]]]:
    """The stanzas as they are written, in lists that fit into messages of the bus."""
    chunk: list[list[Any]] = []
    size = 0
    for stanza, sole in sent:
        text = stanza.to_xml("")
        if chunk and size + len(text) > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append([text, sole])
        size += len(text)
    if chunk:
        yield chunk


def missed(sent: Sequence[tuple[Element, bool]]) -> list[Element]:
    """Messages and requests that nobody else has; presence and answers go with their session."""
    return [stanza for stanza, sole in sent if sole and (stanza.name == "message" or _asks(stanza))]


def _asks(stanza: Element) -> bool:
    return stanza.name == "iq" and stanza.get("type") in ("get", "set")
