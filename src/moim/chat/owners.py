"""Who has anything in a table, kept in memory: most accounts have nothing there, and asking for nothing costs no query.

Only where this process alone writes to the database; where other nodes do, everybody may have something.
"""

from __future__ import annotations

import sqlalchemy as sa

from moim.store import Store


class Owners:
    """The owners (bare JIDs) of the rows of one table. Until ``load`` has run, everybody counts as one.

    ``alone``: no other node writes to the table.
    """

    def __init__(self, column: sa.Column[str], *, alone: bool) -> None:
        self._column = column
        self._alone = alone
        self._owners: set[str] | None = None

    async def load(self, store: Store) -> None:
        """Reads them; nobody may write to the table meanwhile."""
        if self._alone and not store.shared:
            query = sa.select(self._column).distinct()
            found = await store.read(lambda connection: connection.scalars(query).all())
            self._owners = set(found)

    def __contains__(self, owner: object) -> bool:
        return self._owners is None or owner in self._owners

    def add(self, owner: str) -> None:
        """The owner is about to have something; call before it is written."""
        if self._owners is not None:
            self._owners.add(owner)

    def discard(self, owner: str) -> None:
        """The owner is known to have nothing, and nothing is on its way."""
        if self._owners is not None:
            self._owners.discard(owner)
