"""The archive's tables. A message is kept once; every archive that has it has one narrow row.

``owner``, ``peer`` and ``full`` are addresses as ``ids.key`` writes them: numbers that need no table to be looked up
in, and keep a row narrow. The time of a message is part of its id.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

messages = sa.Table(
    "archive_messages",
    metadata,
    # SQLite's own row number only under exactly this name of type
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("refs", sa.Integer, nullable=False),  # how many archives have it
    sa.Column("author", sa.Text, nullable=True),  # in rooms: the real address of whoever said it
    sa.Column("stanza", sa.Text, nullable=False),
)

entries = sa.Table(
    "archive_entries",
    metadata,
    sa.Column("owner", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("peer", sa.BigInteger, nullable=False),  # the other side's bare address
    sa.Column("full", sa.BigInteger, nullable=False),  # the other side's address as it stands in the stanza
    sa.Column("ref", sa.BigInteger, nullable=False),  # checksum of the id that the sender gave
    sa.Column("size", sa.Integer, nullable=False),  # bytes of the stanza
    # Everything that a search in one conversation needs, so that it reads the index alone.
    sa.Index("archive_entries_peer", "owner", "peer", "id", "full", "ref", "size"),
    sqlite_with_rowid=False,
)

preferences = sa.Table(
    "archive_preferences",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),  # a bare JID
    sa.Column("usual", sa.Text, nullable=False),  # always, never, roster
    sa.Column("always", sa.Text, nullable=False),  # a JSON list of addresses
    sa.Column("never", sa.Text, nullable=False),
)

removals = sa.Table(
    "archive_removals",
    metadata,
    sa.Column("owner", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("upto", sa.BigInteger, nullable=False),  # this id and all before it are gone for everybody
)
