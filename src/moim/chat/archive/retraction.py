"""XEP-0424 retraction in archives: what a sender takes back is replaced by a note that it was (a tombstone).

The retraction itself is archived like any message. Only the sender of a message takes it back: the same account, or in
private messages of rooms the very same occupant. Looked for are the newest 20,000 messages of the conversation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from moim.chat.archive import ids, keeping
from moim.chat.archive.keeping import Found, Selection
from moim.chat.archive.rows import Record
from moim.errors import MoimError, ProtocolError
from moim.proto.xmpp import Element, Jid, message_type, ns, timestamp
from moim.store import Store

_MAX_WAITING: Final = 1000

_log = logging.getLogger("moim.chat.archive")


def retracted_id(message: Element) -> str | None:
    """The id of the message that this one takes back; None when it takes none back."""
    element = message.find("retract", ns.RETRACTION)
    return (element.get("id") or None) if element is not None else None


def tombstone(message: Element, marks: Sequence[Element], **about: str) -> Element:
    """What stays of a message: who sent it when to whom, its stanza ids and occupant id, and that it was taken back.

    ``marks`` are the children of ``<retracted/>``, ``about`` its attributes besides the time.
    """
    kept = [c for c in message.elements() if (c.ns, c.name) in ((ns.OCCUPANT_ID, "occupant-id"),)]
    attrs = {**about, "stamp": timestamp(datetime.now(UTC))}
    return message.with_children((*kept, Element("retracted", ns.RETRACTION, attrs, tuple(marks))))


def is_tombstone(message: Element) -> bool:
    """Whether a message was taken back already."""
    return message.find("retracted", ns.RETRACTION) is not None


class Retractions:
    """Takes messages back in the background, one after the other, after their retraction is on disk."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._queue: asyncio.Queue[Record] = asyncio.Queue(_MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work."""
        self._task = asyncio.create_task(self._run(), name="chat:retractions")

    async def stop(self) -> None:
        """Finishes what waits."""
        if self._task is not None:
            await self._queue.join()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def settled(self) -> None:
        """Returns when every retraction seen so far has been applied."""
        if self._task is not None:
            await self._queue.join()

    def look(self, records: Sequence[Record]) -> None:
        """Takes up the retractions among messages that were just archived."""
        for record in records:
            if record[4].find("retract", ns.RETRACTION) is None:
                continue
            try:
                self._queue.put_nowait(record)
            except asyncio.QueueFull:
                _log.warning("a retraction by %s is archived, but not applied: too many at once", record[1])

    async def _run(self) -> None:
        while True:
            record = await self._queue.get()
            try:
                await self._apply(record)
            except MoimError as error:
                _log.error("a retraction by %s could not be applied: %s", record[1], error)
            except Exception:
                _log.exception("a retraction by %s could not be applied", record[1])
            finally:
                self._queue.task_done()

    async def _apply(self, record: Record) -> None:
        identifier, sender, to, owners, retraction = record
        wanted = retracted_id(retraction)
        if wanted is None:
            return
        by, target = Jid.parse(sender), Jid.parse(to)
        selections = [
            Selection(
                ids.key(owner),
                before=identifier,
                peer=ids.key(str((target if owner == str(by.bare) else by).bare)),
            )
            for owner in owners
        ]
        ref = ids.checksum(wanted)
        found = await self._store.read(
            lambda connection: {
                f.id: f for selection in selections for f in keeping.candidates(connection, selection, ref)
            }
        )
        gone: dict[int, str] = {}
        for candidate in found.values():
            if (message := _retractable(candidate, wanted, by, retraction)) is not None:
                about = {"id": retraction.get("id") or ""}
                gone[candidate.id] = tombstone(message, (), **about).to_xml("")
        if gone:
            await self._store.write(
                lambda connection: [keeping.replace(connection, i, text) for i, text in gone.items()]
            )
            _log.info("%s took back %d archived message(s)", by.bare, len(gone))


def _retractable(found: Found, wanted: str, by: Jid, retraction: Element) -> Element | None:
    """The archived message, when it is the one that ``by`` may take back."""
    try:
        message = Element.parse(found.stanza)
        sender = Jid.parse(message.get("from") or "")
    except ProtocolError:
        return None
    if message.get("id") != wanted or sender.bare != by.bare or is_tombstone(message):
        return None
    in_room = any(m.find("x", ns.MUC_USER) is not None for m in (message, retraction))
    if in_room and (sender.resource != by.resource or _occupant(message) != _occupant(retraction)):
        return None  # the bare address is the room's: other occupants have it too
    return message if message_type(message) == message_type(retraction) else None


def _occupant(message: Element) -> str | None:
    element = message.find("occupant-id", ns.OCCUPANT_ID)
    return element.get("id") if element is not None else None
