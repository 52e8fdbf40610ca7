"""The archive on disk: rows in, pages out. All of it runs in the store's threads, over a connection given to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import sqlalchemy as sa

from moim.chat.archive import ids
from moim.chat.archive.tables import entries, messages, removals
from moim.store import insert

_SEARCHED: Final = 20_000  # how many messages of a conversation are looked through for one that is retracted
_CANDIDATES: Final = 8
_COUNTED: Final = 100_000

MessageRow = tuple[int, int, str | None, str]
"""Id, number of archives that have it, the author's real address (rooms), the stanza."""
EntryRow = tuple[int, int, int, int, int, int]
"""Owner, id, peer, full, ref, size; see the table."""

_SQLITE_MESSAGES: Final = "INSERT OR IGNORE INTO archive_messages (id, refs, author, stanza) VALUES (?, ?, ?, ?)"
_SQLITE_ENTRIES: Final = "INSERT OR IGNORE INTO archive_entries (owner, id, peer, full, ref, size) VALUES "
_SQLITE_ROW: Final = "(?, ?, ?, ?, ?, ?)"
_SQLITE_ROWS: Final = 100  # of one statement: beginning and ending it costs more than a row
_SQLITE_MANY: Final = _SQLITE_ENTRIES + ", ".join([_SQLITE_ROW] * _SQLITE_ROWS)
# One statement with a list per column: a row of its own costs PostgreSQL a round of the protocol.
_POSTGRES_MESSAGES: Final = (
    "INSERT INTO archive_messages (id, refs, author, stanza) "
    "SELECT * FROM unnest(%s::bigint[], %s::integer[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING"
)
_POSTGRES_ENTRIES: Final = (
    'INSERT INTO archive_entries (owner, id, peer, "full", ref, size) SELECT * FROM '
    "unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::integer[]) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages of one archive. Ids lie strictly between ``after`` and ``before``.

    ``peer`` is the other side's bare address as a key, ``full`` its full one; ``ids`` names single messages.
    """

    owner: int
    after: int = -1
    before: int = ids.MAX
    peer: int | None = None
    full: int | None = None
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One archived message."""

    id: int
    author: str | None
    stanza: str


@dataclass(frozen=True, slots=True)
class Page:
    """Messages in chronological order. ``complete``: nothing that matches lies beyond the page, where it goes on."""

    found: tuple[Found, ...]
    complete: bool


def add(connection: sa.Connection, new: Sequence[MessageRow], listed: Sequence[EntryRow]) -> None:
    """Adds messages and their entries. What is there already stays as it is, so that a batch may be written again."""
    if not new:
        return
    listed = sorted(listed)  # neighbours in the tree one after the other
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_SQLITE_MESSAGES, list(new))
        whole = len(listed) - len(listed) % _SQLITE_ROWS
        if whole:
            groups = [
                tuple(chain.from_iterable(listed[start : start + _SQLITE_ROWS]))
                for start in range(0, whole, _SQLITE_ROWS)
            ]
            connection.exec_driver_sql(_SQLITE_MANY, groups)
        if listed[whole:]:
            connection.exec_driver_sql(_SQLITE_ENTRIES + _SQLITE_ROW, listed[whole:])
    else:
        connection.exec_driver_sql(_POSTGRES_MESSAGES, tuple([list(column) for column in zip(*new, strict=True)]))
        connection.exec_driver_sql(_POSTGRES_ENTRIES, tuple([list(column) for column in zip(*listed, strict=True)]))


def _matching(selection: Selection) -> sa.ColumnElement[bool]:
    c = entries.c
    clauses = [c.owner == selection.owner, c.id > selection.after, c.id < selection.before]
    if selection.peer is not None:
        clauses.append(c.peer == selection.peer)
    if selection.full is not None:
        clauses.append(c.full == selection.full)
    if selection.ids is not None:
        clauses.append(c.id.in_(selection.ids))
    return sa.and_(*clauses)


def page(connection: sa.Connection, selection: Selection, *, most: int, most_bytes: int, backwards: bool) -> Page:
    """Up to ``most`` messages from the beginning of what matches, or from its end; fewer when they are too large.

    There is at least one when anything matches and ``most`` is not 0, however large it is.
    """
    order = entries.c.id.desc() if backwards else entries.c.id.asc()
    query = sa.select(entries.c.id, entries.c.size).where(_matching(selection)).order_by(order).limit(most + 1)
    rows = connection.execute(query).all()
    taken: list[int] = []
    size = 0
    for row in rows[:most]:
        size += row.size
        if taken and size > most_bytes:
            break
        taken.append(row.id)
    return Page(read(connection, taken), len(taken) == len(rows))


def read(connection: sa.Connection, wanted: Sequence[int]) -> tuple[Found, ...]:
    """The messages with these ids, in chronological order."""
    if not wanted:
        return ()
    query = sa.select(messages.c.id, messages.c.author, messages.c.stanza).where(messages.c.id.in_(wanted))
    rows = connection.execute(query.order_by(messages.c.id)).all()
    return tuple([Found(*row) for row in rows])


def missing(connection: sa.Connection, owner: int, wanted: Iterable[int]) -> bool:
    """Whether the archive lacks one of these ids."""
    asked = set(wanted)
    if not asked:
        return False
    query = sa.select(sa.func.count()).where(entries.c.owner == owner, entries.c.id.in_(asked))
    return connection.execute(query).scalar_one() != len(asked)


def count(connection: sa.Connection, selection: Selection) -> int:
    """How many messages match; counting ends at 100,000."""
    found = sa.select(entries.c.id).where(_matching(selection)).limit(_COUNTED).subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(found)).scalar_one()


def ends(connection: sa.Connection, selection: Selection) -> tuple[int, int] | None:
    """The first and the last id that match."""
    found = []
    for order in (entries.c.id.asc(), entries.c.id.desc()):
        query = sa.select(entries.c.id).where(_matching(selection)).order_by(order).limit(1)
        found.append(connection.execute(query).scalar())
    first, last = found
    return (first, last) if first is not None and last is not None else None


def newest(connection: sa.Connection) -> int:
    """The greatest id of all; 0 when there is none."""
    return connection.execute(sa.select(sa.func.max(messages.c.id))).scalar() or 0


def candidates(connection: sa.Connection, selection: Selection, ref: int) -> tuple[Found, ...]:
    """Messages of a conversation whose senders' ids have this checksum, newest last, among the newest 20,000."""
    query = sa.select(entries.c.id, entries.c.ref).where(_matching(selection)).order_by(entries.c.id.desc())
    recent = query.limit(_SEARCHED).subquery()
    wanted = sa.select(recent.c.id).where(recent.c.ref == ref).order_by(recent.c.id.desc()).limit(_CANDIDATES)
    return read(connection, connection.execute(wanted).scalars().all())


def replace(connection: sa.Connection, identifier: int, stanza: str) -> bool:
    """Puts something else in the place of a message, for every archive that has it; whether it was there."""
    changed = sa.update(messages).where(messages.c.id == identifier).values(stanza=stanza)
    return connection.execute(changed).rowcount > 0


# --- what goes ----------------------------------------------------------------------------------------------------


def next_owner(connection: sa.Connection, after: int | None) -> int | None:
    """The archive that follows ``after`` in the order of their keys; the first one for None."""
    query = sa.select(entries.c.owner).order_by(entries.c.owner).limit(1)
    if after is not None:
        query = query.where(entries.c.owner > after)
    found: int | None = connection.execute(query).scalar()
    return found


def excess(connection: sa.Connection, owner: int, *, messages_kept: int, bytes_kept: int, step: int) -> int:
    """The id up to which an archive has more than it may, oldest first; 0 when nothing is too much."""
    held = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(entries.c.size), 0)).where(entries.c.owner == owner)
    amount, size = connection.execute(held).one()
    last = -1
    while amount > messages_kept or size > bytes_kept:
        query = sa.select(entries.c.id, entries.c.size).where(entries.c.owner == owner, entries.c.id > last)
        rows = connection.execute(query.order_by(entries.c.id).limit(step)).all()
        if not rows:
            break
        for row in rows:
            amount, size, last = amount - 1, size - row.size, row.id
            if amount <= messages_kept and size <= bytes_kept:
                break
    return max(last, 0)


def any_upto(connection: sa.Connection, owner: int, upto: int) -> bool:
    """Whether an archive has messages up to an id."""
    query = sa.select(entries.c.id).where(entries.c.owner == owner, entries.c.id <= upto).limit(1)
    return connection.execute(query).first() is not None


def drop(connection: sa.Connection, owner: int, upto: int, most: int) -> int:
    """Takes up to ``most`` of an archive's oldest messages up to an id out, and says how many these were.

    A message goes for good with the last archive that had it.
    """
    old = sa.select(entries.c.id).where(entries.c.owner == owner, entries.c.id <= upto)
    gone = connection.execute(old.order_by(entries.c.id).limit(most)).scalars().all()
    if gone:
        connection.execute(sa.delete(entries).where(entries.c.owner == owner, entries.c.id.in_(gone)))
        connection.execute(sa.update(messages).where(messages.c.id.in_(gone)).values(refs=messages.c.refs - 1))
        connection.execute(sa.delete(messages).where(messages.c.id.in_(gone), messages.c.refs <= 0))
    return len(gone)


def remove(connection: sa.Connection, owner: int) -> int | None:
    """Marks a whole archive as gone; the id up to which it is. Its rows go later, with ``drop``."""
    last = connection.execute(sa.select(sa.func.max(entries.c.id)).where(entries.c.owner == owner)).scalar()
    if last is None:
        return None
    row: dict[str, Any] = {"owner": owner, "upto": last}
    connection.execute(insert(removals).values(row).on_conflict_do_update(["owner"], set_={"upto": last}))
    return int(last)


def removed(connection: sa.Connection) -> dict[int, int]:
    """The archives that are marked as gone, each with the id up to which it is."""
    return {row.owner: row.upto for row in connection.execute(sa.select(removals))}


def forget(connection: sa.Connection, owner: int, upto: int) -> None:
    """Takes the mark away, once all rows are gone."""
    connection.execute(sa.delete(removals).where(removals.c.owner == owner, removals.c.upto == upto))
