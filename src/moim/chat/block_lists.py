"""Who blocks whom (XEP-0191), as data: every list in memory, so that a stanza is judged without waiting.

While an account blocks anybody, its sessions are tapped in the plane: no message from or to it is delivered by table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import sqlalchemy as sa

from moim.chat import tables
from moim.proto.xmpp import Jid
from moim.store import Store, insert


class BlockLists:
    """The addresses that each account blocks. Change a list by ``add`` and ``take`` alone; both write first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lists: dict[str, frozenset[str]] = {}
        self.on_written: Callable[[str], None] = lambda owner: None
        """Hears whose list was written."""
        self.version = 0
        """Rises with every change, for those who remember whom nobody blocks."""

    async def load(self) -> None:
        """Reads every list. Raises Unavailable when the database does not answer."""
        rows = await self._store.read(lambda connection: connection.execute(sa.select(tables.blocked)).all())
        found: dict[str, set[str]] = {}
        for row in rows:
            found.setdefault(row.owner, set()).add(row.address)
        self._lists = {owner: frozenset(addresses) for owner, addresses in found.items()}

    def of(self, owner: str) -> frozenset[str]:
        """What the account of a bare JID blocks."""
        return self._lists.get(owner, frozenset())

    def blocks(self, owner: str, other: Jid) -> bool:
        """Whether ``owner`` (a bare JID) blocks ``other``; never itself, nor the server that it is at."""
        blocked = self._lists.get(owner)
        if not blocked or str(other.bare) == owner or (not other.local and owner.endswith(f"@{other.domain}")):
            return False
        return matches(blocked, other)

    def parted(self, one: Jid, other: Jid) -> bool:
        """Whether one of two, on either side, blocks the other."""
        if not self._lists:
            return False
        return self.blocks(str(one.bare), other) or self.blocks(str(other.bare), one)

    async def write(self, owner: str, *, add: Iterable[str] = (), take: Iterable[str] = ()) -> None:
        """Makes a change durable; it counts from ``apply`` on."""
        new, old, table = tuple(add), tuple(take), tables.blocked

        def change(connection: sa.Connection) -> None:
            for address in new:
                connection.execute(insert(table).values(owner=owner, address=address).on_conflict_do_nothing())
            for address in old:
                connection.execute(sa.delete(table).where(table.c.owner == owner, table.c.address == address))

        await self._store.write(change)
        self.on_written(owner)

    async def read(self, owner: str) -> frozenset[str]:
        """A list as the database has it. Raises Unavailable."""
        query = sa.select(tables.blocked.c.address).where(tables.blocked.c.owner == owner)
        return frozenset(await self._store.read(lambda connection: connection.scalars(query).all()))

    def apply(self, owner: str, *, add: Iterable[str] = (), take: Iterable[str] = ()) -> None:
        """Lets a change count."""
        self.version += 1
        after = (self.of(owner) | frozenset(add)) - frozenset(take)
        if after:
            self._lists[owner] = after
        else:
            self._lists.pop(owner, None)

    async def drop(self, owner: str) -> None:
        """Forgets the list of an account that is gone; what others block stays theirs."""
        gone = sa.delete(tables.blocked).where(tables.blocked.c.owner == owner)
        await self._store.write(lambda connection: connection.execute(gone))
        self._lists.pop(owner, None)
        self.version += 1


def matches(blocked: frozenset[str], jid: Jid) -> bool:
    """Whether a list has this address, its account, its domain, or its domain with its resource."""
    return (
        str(jid) in blocked
        or str(jid.bare) in blocked
        or jid.domain in blocked
        or (bool(jid.resource) and f"{jid.domain}/{jid.resource}" in blocked)
    )
