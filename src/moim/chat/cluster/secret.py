"""Secrets that every node of a subcluster has to have alike: the first one's are everybody's."""

from __future__ import annotations

import sqlalchemy as sa

from moim.chat.cluster import tables
from moim.store import Store, insert


async def shared_secret(store: Store, name: str, own: bytes) -> bytes:
    """The subcluster's secret of a name; ``own`` becomes it when there is none yet. Raises Unavailable."""
    table = tables.secrets

    def find(connection: sa.Connection) -> bytes:
        connection.execute(insert(table).values(name=name, value=own).on_conflict_do_nothing())
        return bytes(connection.execute(sa.select(table.c.value).where(table.c.name == name)).scalar_one())

    return await store.write(find)
