"""Messages in exports: those that wait for somebody who is away, and those of the archive (urn:xmpp:pie:0#mam)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from moim.chat.archive import ids, keeping
from moim.chat.archive.rows import rows
from moim.chat.archive.rules import cleaned
from moim.chat.archive.tables import entries
from moim.chat.archive.tables import messages as archived
from moim.chat.moving.outcome import Outcome
from moim.chat.moving.reading import PIE
from moim.chat.offline import OfflineMessages
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, as_client, delay, ns, read_timestamp
from moim.store import Store

_SHIFT: Final = 22
_MAX_STANZA: Final = 250_000
_EXPORTED: Final = ("", PIE)
"""COMPAT: Prosody 0.12 leaves the namespace of stanzas out (2023), so that they take the export's."""


async def take_waiting(
    offline: OfflineMessages, domain: str, owner: str, pieces: Sequence[Element], outcome: Outcome, *, dry_run: bool
) -> None:
    """Takes messages that wait, each since the time that the old server noted."""
    found: list[tuple[datetime, Element]] = []
    for message in (child for piece in pieces for child in piece.elements()):
        sent = _message(message, owner, outcome)
        if sent is None:
            continue
        since = next((at for c in sent.elements() if c.name == "delay" and (at := _stamp(c)) is not None), None)
        at = min(since or datetime.fromtimestamp(0, UTC), datetime.now(UTC))
        notes = [child for child in sent.elements() if (child.ns, child.name) == (ns.DELAY, "delay")]
        own = [note for note in notes if _is(note.get("from"), domain)]
        found.append((at, sent.with_children([child for child in sent.children if child not in own])))
    if dry_run:
        outcome.new["waiting"] += len(found)
        return
    new, known = await offline.adopt(owner, found)
    outcome.new["waiting"] += new
    outcome.same["waiting"] += known
    if len(found) > new + known:
        outcome.left["waiting messages that there is no room for"] += len(found) - new - known


def _message(message: Element, owner: str, outcome: Outcome) -> Element | None:
    """A message of an export as one of ours, to ``owner``; None when it cannot be one."""
    sent = as_client(message, _EXPORTED)
    try:
        sender = Jid.parse(sent.get("from") or "")
        to = Jid.parse(sent.get("to") or owner)
    except ProtocolError:
        outcome.leave("messages without usable addresses")
        return None
    if sent.name != "message" or str(to.bare) != owner or len(sent.to_xml("").encode()) > _MAX_STANZA:
        outcome.leave("messages for somebody else, or too large ones")
        return None
    return cleaned(sent.with_attrs({"from": str(sender), "to": str(to)}), [owner])


def _stamp(note: Element) -> datetime | None:
    try:
        return read_timestamp(note.get("stamp") or "")
    except ValueError:
        return None


def _is(text: str | None, domain: str) -> bool:
    try:
        return str(Jid.parse(text or "")) == domain
    except ProtocolError:
        return False


async def take_archived(
    store: Store, domain: str, owner: str, pieces: Sequence[Element], outcome: Outcome, *, dry_run: bool
) -> None:
    """Takes archived messages with their times, in one transaction. What was archived before 2020 says so in a note."""
    found: list[tuple[int, Element]] = []
    for result in (child for piece in pieces for child in piece.elements()):
        one = _archived(result, domain, owner)
        if one is None:
            outcome.leave("archived messages without a usable time or addresses")
        else:
            found.append(one)
    if dry_run:
        outcome.new["archived"] += len(found)
        return
    key = ids.key(owner)

    def work(connection: sa.Connection) -> tuple[int, int]:
        if key in keeping.removed(connection):
            return -1, 0
        new = same = 0
        for base, message in found:
            if _known(connection, key, base, message):
                same += 1
                continue
            span = sa.select(sa.func.max(archived.c.id)).where(
                archived.c.id >= base, archived.c.id < base + (1 << _SHIFT)
            )
            last: int | None = connection.execute(span).scalar()
            identifier = base if last is None else last + 1
            record = (identifier, message.get("from") or "", message.get("to") or "", (owner,), message)
            keeping.add(connection, *rows([record]))
            new += 1
        return new, same

    new, same = await store.write(work)
    if new < 0:
        outcome.left["archived messages: those of an earlier account of this name are still being deleted"] += len(
            found
        )
        return
    outcome.new["archived"] += new
    outcome.same["archived"] += same


def _known(connection: sa.Connection, key: int, base: int, message: Element) -> bool:
    text = message.to_xml("")
    c = entries.c
    query = (
        sa.select(archived.c.stanza)
        .join(entries, c.id == archived.c.id)
        .where(c.owner == key, c.id >= base, c.id < base + (1 << _SHIFT))
        .where(c.ref == ids.checksum(message.get("id")), c.size == len(text.encode()))
    )
    return text in connection.execute(query).scalars().all()


def _archived(result: Element, domain: str, owner: str) -> tuple[int, Element] | None:
    """The least id of the millisecond of a message, and the message; None when it is none of the owner's."""
    forwarded = result.find("forwarded", ns.FORWARD)
    note = forwarded.find("delay", ns.DELAY) if forwarded is not None else None
    at = _stamp(note) if note is not None else None
    stanzas = [child for child in forwarded.elements() if child.name == "message"] if forwarded is not None else []
    if at is None or len(stanzas) != 1 or at > datetime.now(UTC):
        return None
    message = as_client(stanzas[0], _EXPORTED)
    try:
        sender, to = Jid.parse(message.get("from") or owner), Jid.parse(message.get("to") or owner)
    except ProtocolError:
        return None
    if owner not in (str(sender.bare), str(to.bare)) or len(message.to_xml("").encode()) > _MAX_STANZA:
        return None
    message = cleaned(message.with_attrs({"from": str(sender), "to": str(to)}), [owner, domain])
    if at < ids.EPOCH:
        message = message.with_children((*message.children, delay(at, domain)))
    return ids.first_at(at), message


def result_element(identifier: int, name: str, message: Element) -> Element:
    """An archived message for an export; ``name`` is what the archive calls it."""
    own = message.find("delay", ns.DELAY)
    at = ids.time_of(identifier)
    stamped = _stamp(own) if own is not None and identifier < 1 << _SHIFT else None
    note = Element("delay", ns.DELAY, {"stamp": delay(stamped or at, "x").get("stamp") or ""})
    forwarded = Element("forwarded", ns.FORWARD, {}, (note, message))
    return Element("result", ns.ARCHIVE, {"id": name}, (forwarded,))
