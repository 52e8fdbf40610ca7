"""Who subscribed to nodes of accounts by name (XEP-0060 section 6.1), on disk and bounded."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from moim.chat.tables import pep_subscriptions as _table
from moim.proto.xmpp import Jid, StanzaError
from moim.store import Store, insert

_MAX_OF_NODE = 500
_MAX_OF_READER = 500
"""Subscriptions that one bare JID has here."""


class Subscribers:
    """Subscriptions, by owner (bare JID), node and subscriber. Raises Unavailable when the database fails."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, owner: str, node: str, jid: Jid) -> None:
        """Subscribes; again changes nothing. Raises StanzaError where a bound is reached."""
        c, bare = _table.c, str(jid.bare)
        row = {"owner": owner, "node": node, "jid": str(jid), "bare": bare}

        def work(connection: sa.Connection) -> None:
            connection.execute(insert(_table).values(row).on_conflict_do_nothing())
            for where, most in ((c.bare == bare, _MAX_OF_READER), (_of_node(owner, node), _MAX_OF_NODE)):
                if connection.execute(sa.select(sa.func.count()).select_from(_table).where(where)).scalar_one() > most:
                    raise StanzaError("resource-constraint", "there are too many subscriptions already", kind="wait")

        await self._store.write(work)

    async def remove(self, owner: str, node: str, jid: Jid) -> bool:
        """Ends a subscription; whether there was one."""
        gone = sa.delete(_table).where(_of_node(owner, node), _table.c.jid == str(jid))
        return await self._store.write(lambda connection: connection.execute(gone).rowcount > 0)

    async def of_node(self, owner: str, node: str) -> Sequence[str]:
        """The subscribers of a node."""
        query = sa.select(_table.c.jid).where(_of_node(owner, node)).order_by(_table.c.jid)
        return await self._store.read(lambda connection: connection.scalars(query).all())

    async def of_reader(self, owner: str, bare: str) -> list[tuple[str, str]]:
        """Node and subscriber of everything that a bare JID has subscribed to at one account."""
        c = _table.c
        query = sa.select(c.node, c.jid).where(c.owner == owner, c.bare == bare).order_by(c.node, c.jid)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        return [(row.node, row.jid) for row in rows]

    async def drop_account(self, bare: str) -> None:
        """Ends every subscription that an account is part of."""
        gone = sa.delete(_table).where(sa.or_(_table.c.owner == bare, _table.c.bare == bare))
        await self._store.write(lambda connection: connection.execute(gone))


def _of_node(owner: str, node: str) -> sa.ColumnElement[bool]:
    return sa.and_(_table.c.owner == owner, _table.c.node == node)
