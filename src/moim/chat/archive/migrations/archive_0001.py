"""The archive of messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "archive_0001"
down_revision = None
branch_labels = ("archive",)
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "archive_messages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
        sa.Column("refs", sa.Integer, nullable=False),
        sa.Column("author", sa.Text, nullable=True),
        sa.Column("stanza", sa.Text, nullable=False),
    )
    op.create_table(
        "archive_entries",
        sa.Column("owner", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("peer", sa.BigInteger, nullable=False),
        sa.Column("full", sa.BigInteger, nullable=False),
        sa.Column("ref", sa.BigInteger, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("archive_entries_peer", "archive_entries", ["owner", "peer", "id", "full", "ref", "size"])
    op.create_table(
        "archive_preferences",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("usual", sa.Text, nullable=False),
        sa.Column("always", sa.Text, nullable=False),
        sa.Column("never", sa.Text, nullable=False),
    )
    op.create_table(
        "archive_removals",
        sa.Column("owner", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("upto", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    for table in ("archive_messages", "archive_entries", "archive_preferences", "archive_removals"):
        op.drop_table(table)
