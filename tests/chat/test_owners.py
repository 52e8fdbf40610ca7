"""Who has nothing in a table is known without asking; who gets something, or might have it elsewhere, is asked for."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

import databases
from moim import chat
from moim.chat import tables
from moim.chat.owners import Owners


async def test_owners_are_those_with_rows_and_those_to_come(tmp_path: Path) -> None:
    store = databases.opened(tmp_path / "moim.db", [Path(chat.__file__).with_name("migrations")])
    try:
        row = {"owner": "a@x", "node": "n", "config": "{}"}
        await store.write(lambda connection: connection.execute(sa.insert(tables.pep_nodes).values(row)))
        owners = Owners(tables.pep_nodes.c.owner, alone=True)
        assert "b@x" in owners
        await owners.load(store)
        assert "a@x" in owners
        assert ("b@x" in owners) == store.shared, "other nodes may write to a database that is shared"
        owners.add("b@x")
        assert "b@x" in owners
        owners.discard("b@x")
        assert ("b@x" in owners) == store.shared
        among_others = Owners(tables.pep_nodes.c.owner, alone=False)
        await among_others.load(store)
        assert "b@x" in among_others
    finally:
        databases.removed(store)
