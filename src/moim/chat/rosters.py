"""Contact lists as data: stored items over default contacts, loaded when needed, written before they count."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import sqlalchemy as sa

from moim.chat import tables
from moim.chat.contacts import People
from moim.chat.owners import Owners
from moim.chat.subscriptions import BOTH, State, Subscription
from moim.store import Store, insert

_KEPT = 512


@dataclass(frozen=True, slots=True)
class Item:
    """One contact of one owner. ``listed``: in the contact list that clients see; an unlisted item only keeps a
    request that waits, or that a default contact was removed. ``request`` is the waiting request as XML.
    """

    contact: str
    name: str = ""
    groups: tuple[str, ...] = ()
    subscription: Subscription = "none"
    ask: bool = False
    request: str | None = None
    approved: bool = False
    listed: bool = False

    @property
    def state(self) -> State:
        """The subscription state (RFC 6121 appendix A)."""
        return State(self.subscription, self.ask, self.request is not None)

    def with_state(self, state: State, request: str | None = None) -> Item:
        """The item in ``state``; ``request`` is kept with it while a request waits."""
        waiting = (request or self.request or "") if state.pending_in else None
        return replace(self, subscription=state.subscription, ask=state.pending_out, request=waiting)


class Roster:
    """The contact list of one account. Change it only by ``Rosters.save``, holding ``lock``."""

    def __init__(self, owner: str, stored: dict[str, Item], people: People, group: str) -> None:
        self.owner = owner
        self.lock = asyncio.Lock()
        self.stored = stored
        self._people = people
        self._groups = (group,) if group else ()
        self._version = ("", -1)

    def item(self, contact: str) -> Item:
        """The item of a bare JID; an unlisted one when there is none."""
        stored = self.stored.get(contact)
        if stored is not None:
            return stored
        if self._people.is_default_contact(self.owner, contact):
            return self._default(contact, self._people.name(contact))
        return Item(contact)

    def _default(self, contact: str, name: str) -> Item:
        return Item(contact, name, self._groups, BOTH.subscription, listed=True)

    def items(self) -> Iterator[Item]:
        """Every listed item."""
        for contact, name in self._people.default_contacts(self.owner).items():
            if contact not in self.stored and contact != self.owner:
                yield self._default(contact, name)
        for item in self.stored.values():
            if item.listed:
                yield item

    def subscribers(self) -> Iterator[str]:
        """Who sees the owner's presence."""
        return (item.contact for item in self.items() if item.state.seen)

    def watched(self) -> Iterator[str]:
        """Whose presence the owner sees."""
        return (item.contact for item in self.items() if item.state.sees)

    def requests(self) -> Iterator[Item]:
        """Items with a request that waits for the owner."""
        return (item for item in self.stored.values() if item.request is not None)

    @property
    def version(self) -> str:
        """Changes exactly when the list that clients see changes (RFC 6121 section 2.6)."""
        if self._version[1] != self._people.generation:
            rows = sorted((i.contact, i.name, i.groups, i.subscription, i.ask, i.approved) for i in self.items())
            digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:24]
            self._version = (digest, self._people.generation)
        return self._version[0]

    def changed(self) -> None:
        """Forgets the version after a change."""
        self._version = ("", -1)


class Rosters:
    """Every contact list. One object per owner while anybody holds it, so that all see the same.

    ``group`` gives the group that an owner's default contacts are shown in.
    """

    def __init__(self, store: Store, people: People, *, group: Callable[[str], str], alone: bool = True) -> None:
        self._store = store
        self._people = people
        self._group = group
        self._alone = alone
        self._live: WeakValueDictionary[str, Roster] = WeakValueDictionary()
        self._recent: OrderedDict[str, Roster] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Roster]] = {}
        self._owners = Owners(tables.roster.c.owner, alone=alone)
        self.on_written: Callable[[str, str], None] = lambda owner, contact: None
        """Hears of every item that was written, by owner and contact."""

    async def start(self) -> None:
        """Learns who has a list of their own; nobody is connected yet."""
        await self._owners.load(self._store)

    def at_hand(self, owner: str) -> Roster | None:
        """The contact list of a bare JID when it takes no query; None when it has to be waited for."""
        roster = self._live.get(owner)
        if roster is None and owner not in self._owners and owner not in self._loading:
            roster = self._live[owner] = Roster(owner, {}, self._people, self._group(owner))
        return roster

    async def get(self, owner: str) -> Roster:
        """The contact list of a bare JID. Raises Unavailable when the database does not answer."""
        roster = self.at_hand(owner)
        if roster is None:
            task = self._loading.get(owner)
            if task is None:
                task = asyncio.create_task(self._load(owner), name="chat:roster")
                self._loading[owner] = task
                task.add_done_callback(lambda _: self._loading.pop(owner, None))
            roster = await asyncio.shield(task)
        self._recent[owner] = roster
        self._recent.move_to_end(owner)
        if len(self._recent) > _KEPT:
            self._recent.popitem(last=False)
        return roster

    async def _load(self, owner: str) -> Roster:
        query = sa.select(tables.roster).where(tables.roster.c.owner == owner)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        stored = {row.contact: _item(row) for row in rows}
        roster = Roster(owner, stored, self._people, self._group(owner))
        self._live[owner] = roster
        return roster

    async def save_all(self, roster: Roster, items: Sequence[Item]) -> None:
        """Makes listed or requested items part of ``roster`` in one transaction. Hold the roster's lock."""
        owner = roster.owner
        self._owners.add(owner)
        rows = [(item.contact, _row(item)) for item in items]

        def work(connection: sa.Connection) -> None:
            for contact, row in rows:
                upsert = insert(tables.roster).values(owner=owner, contact=contact, **row)
                connection.execute(upsert.on_conflict_do_update(index_elements=["owner", "contact"], set_=row))

        await self._store.write(work)
        for item in items:
            roster.stored[item.contact] = item
        roster.changed()
        for item in items:
            self.on_written(owner, item.contact)

    async def change(self, roster: Roster, contact: str, decide: Callable[[Item], Item]) -> tuple[Item, Item]:
        """Makes what ``decide`` makes of an item part of ``roster``, durably; the item before and after.

        An item that says nothing is deleted. Where another node has changed the item meanwhile, ``decide`` is asked
        again with what it is now. Hold the roster's lock.
        """
        while True:
            before = roster.item(contact)
            after = decide(before)
            if after == before or await self._save(roster, after):
                return before, after

    async def _save(self, roster: Roster, item: Item) -> bool:
        """Writes an item unless what is stored is not what this node believes, which it then learns."""
        owner, contact = roster.owner, item.contact
        self._owners.add(owner)
        believed = roster.stored.get(contact)
        table = tables.roster
        this = (table.c.owner == owner, table.c.contact == contact)
        says_nothing = item == Item(contact) and not self._people.is_default_contact(owner, contact)

        def work(connection: sa.Connection) -> Item | None:
            if not self._alone:
                row = connection.execute(sa.select(table).where(*this)).first()
                stored = _item(row) if row is not None else None
                if stored != believed:
                    return stored
            if says_nothing:
                connection.execute(sa.delete(table).where(*this))
            else:
                row_now = _row(item)
                new = insert(table).values(owner=owner, contact=contact, **row_now)
                connection.execute(new.on_conflict_do_update(index_elements=["owner", "contact"], set_=row_now))
            return believed

        stored = await self._store.write(work)
        known = stored if stored != believed else None if says_nothing else item
        if known is None:
            roster.stored.pop(contact, None)
        else:
            roster.stored[contact] = known
        roster.changed()
        if stored != believed:
            return False
        self.on_written(owner, contact)
        return True

    async def reload(self, owner: str, contact: str) -> None:
        """Another node wrote an item: a list in use takes it over. Raises Unavailable."""
        if (loading := self._loading.get(owner)) is not None:
            await asyncio.shield(loading)
        roster = self._live.get(owner)
        if roster is None:
            return
        table = tables.roster
        query = sa.select(table).where(table.c.owner == owner, table.c.contact == contact)
        async with roster.lock:
            row = await self._store.read(lambda connection: connection.execute(query).first())
            if row is None:
                roster.stored.pop(contact, None)
            else:
                roster.stored[contact] = _item(row)
            roster.changed()

    async def drop(self, bare: str) -> list[Roster]:
        """Deletes everything of an account that is gone: its own list, and what others have of it.

        Returns the lists in use that showed it.
        """
        table = tables.roster.c
        await self._store.write(
            lambda connection: connection.execute(
                sa.delete(tables.roster).where(sa.or_(table.owner == bare, table.contact == bare))
            )
        )
        self._recent.pop(bare, None)
        self._live.pop(bare, None)
        losing = []
        for roster in tuple(self._live.values()):
            item = roster.stored.pop(bare, None)
            if item is not None:
                roster.changed()
                if item.listed:
                    losing.append(roster)
        return losing


def _row(item: Item) -> dict[str, Any]:
    return {
        "name": item.name,
        "groups": json.dumps(item.groups, ensure_ascii=False),
        "subscription": item.subscription,
        "ask": item.ask,
        "request": item.request,
        "approved": item.approved,
        "listed": item.listed,
    }


def _item(row: sa.Row[Any]) -> Item:
    return Item(
        row.contact,
        row.name,
        tuple(json.loads(row.groups)),
        row.subscription,
        bool(row.ask),
        row.request,
        bool(row.approved),
        bool(row.listed),
    )
