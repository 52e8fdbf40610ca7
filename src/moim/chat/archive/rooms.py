"""XEP-0313 archives of rooms: what was said, who may know by whom, and what moderators took back (XEP-0425).

The room decides who may enter and who sees real addresses; this class keeps its messages and answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from moim._native import ArchiveIds
from moim.chat.archive import ids, keeping, querying
from moim.chat.archive.intake import Entry, Intake
from moim.chat.archive.keeping import Found, Selection
from moim.chat.archive.retention import Retention
from moim.chat.archive.retraction import is_tombstone, tombstone
from moim.chat.archive.rules import cleaned, stamped
from moim.errors import ProtocolError, UsageError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.store import Store

_log = logging.getLogger("moim.chat.archive")


@dataclass(frozen=True, slots=True)
class Said:
    """One archived message of a room; ``author`` is the real address of whoever said it."""

    message: Element
    author: Jid

    @property
    def occupant(self) -> str:
        """The author's occupant id (XEP-0421); empty when the message has none."""
        element = self.message.find("occupant-id", ns.OCCUPANT_ID)
        return (element.get("id") or "") if element is not None else ""


class RoomArchives:
    """Keeps and shows what is said in rooms, each known by its bare JID. Who may ask is for the room to say."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        retention: Retention,
        *,
        next_id: Callable[[], int],
        names: ArchiveIds,
        bounds: querying.Bounds,
    ) -> None:
        self._store = store
        self._intake = intake
        self._retention = retention
        self._next_id = next_id
        self._names = names
        self._bounds = bounds

    def next_id(self, room: str) -> str:
        """The stanza id of the next message of a room; its archive has them in the order in which they are given."""
        return self._names.write(room, self._next_id())

    def say(
        self,
        room: str,
        message: Element,
        author: Jid,
        identifier: str,
        *,
        then: Callable[[], None] = lambda: None,
        failed: Callable[[StanzaError], None] = lambda _: None,
    ) -> None:
        """Keeps a groupchat message as the room sent it, under its stanza id, which ``next_id`` gave for the room.

        Either ``then`` is called once it is on disk, or ``failed``. Raises StanzaError when too many wait.
        """
        number = self._names.read(room, identifier)
        if number is None:
            raise UsageError(f"{identifier!r} is no stanza id of {room}")
        message = cleaned(message, (room,)).with_attrs({"to": None})
        record = (number, message.get("from") or room, room, (room,), message)
        self._intake.add(Entry(record, then, failed, author=str(author)))

    async def query(self, room: str, payload: Element, asker: Jid, *, real: bool) -> tuple[Sequence[Element], Element]:
        """The messages that answer a query's payload, addressed to ``asker``, and the payload of the result.

        ``real``: they may see real addresses. Raises StanzaError, and Unavailable.
        """
        query = querying.read(payload, room, self._names)
        selection = self._selection(room, query, real)
        await self._intake.settled()
        answer = await self._store.read(
            lambda connection: querying.answer(
                connection,
                query,
                selection,
                archive=room,
                names=self._names,
                asker=str(asker),
                bounds=self._bounds,
                forwarded=lambda found, name: _as_said(found, room, name, real),
            )
        )
        return answer.messages, answer.fin

    def _selection(self, room: str, query: querying.Query, real: bool) -> Selection:
        with_ = query.with_
        chosen = replace(query, with_=None).selection(room, self._retention.floor(room))
        if with_ is None or (str(with_.bare) == room and not with_.resource):
            return chosen
        if str(with_.bare) == room:
            return replace(chosen, full=ids.key(str(with_)))
        if not real:
            raise StanzaError("forbidden", "this room does not tell who its occupants are")
        return replace(chosen, peer=ids.key(str(with_.bare)))

    async def metadata(self, room: str) -> Element:
        """``<metadata/>`` of a room's archive. Raises Unavailable."""
        selection = Selection(ids.key(room), after=self._retention.floor(room))
        await self._intake.settled()
        ends = await self._store.read(lambda connection: keeping.ends(connection, selection))
        return querying.metadata(ends, room, self._names)

    @staticmethod
    def fields() -> Element:
        """What a query may be narrowed by."""
        return querying.fields_form()

    async def find(self, room: str, identifier: str) -> Said | None:
        """The message with a stanza id; None when the room's archive has none, or it was taken back."""
        found = await self._find(room, identifier)
        return found[1] if found is not None and not is_tombstone(found[1].message) else None

    async def _find(self, room: str, identifier: str) -> tuple[int, Said] | None:
        number = self._names.read(room, identifier)
        if number is None:
            return None
        await self._intake.settled()
        selection = Selection(ids.key(room), after=self._retention.floor(room), ids=(number,))
        page = await self._store.read(
            lambda connection: keeping.page(connection, selection, most=1, most_bytes=0, backwards=False)
        )
        for found in page.found:
            try:
                return number, Said(Element.parse(found.stanza), Jid.parse(found.author or room))
            except ProtocolError as error:
                _log.error("the archived message %d of %s cannot be read any more: %s", number, room, error.message)
        return None

    async def bury(self, room: str, identifier: str, marks: Sequence[Element] = (), *, retraction: str = "") -> bool:
        """Puts a tombstone in the place of a message; whether there was one to be taken back.

        ``retraction`` is the id of the author's own retraction (XEP-0424); ``marks`` are ``<moderated/>`` and
        ``<reason/>`` of a moderator's (XEP-0425). The room judges who may. Raises Unavailable.
        """
        found = await self._find(room, identifier)
        if found is None or is_tombstone(found[1].message):
            return False
        about = {"id": retraction} if retraction else {}
        text = tombstone(found[1].message, marks, **about).to_xml("")
        return await self._store.write(lambda connection: keeping.replace(connection, found[0], text))

    async def remove(self, room: str) -> None:
        """The room is gone, and its archive with it. Raises Unavailable."""
        await self._intake.settled()
        await self._retention.remove(room)


def _as_said(found: Found, room: str, name: str, real: bool) -> Element | None:
    """The message as somebody may see it who is allowed, or not, to know real addresses."""
    try:
        message = Element.parse(found.stanza)
    except ProtocolError as error:
        _log.error("the archived message %d of %s cannot be read any more: %s", found.id, room, error.message)
        return None
    children = [c for c in message.children if isinstance(c, str) or (c.ns, c.name) != (ns.MUC_USER, "x")]
    if real and found.author is not None:
        item = Element("item", ns.MUC_USER, {"jid": found.author})
        children.append(Element("x", ns.MUC_USER, {}, (item,)))
    return stamped(message.with_children(children), room, name)
