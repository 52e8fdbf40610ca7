"""Rooms that outlive their occupants: configuration, affiliations and recent messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "rooms_0001"
down_revision = None
branch_labels = ("rooms",)
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "chat_rooms",
        sa.Column("room", sa.Text, primary_key=True),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=True),
        sa.Column("subject_nick", sa.Text, nullable=True),
        sa.Column("subject_at", sa.Float, nullable=True),
    )
    op.create_table(
        "chat_room_affiliations",
        sa.Column("room", sa.Text, primary_key=True),
        sa.Column("jid", sa.Text, primary_key=True),
        sa.Column("affiliation", sa.Text, nullable=False),
    )
    op.create_table(
        "chat_room_history",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("room", sa.Text, nullable=False),
        sa.Column("sent_at", sa.Float, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("chat_room_history_room", "chat_room_history", ["room", "id"])


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("chat_room_history")
    op.drop_table("chat_room_affiliations")
    op.drop_table("chat_rooms")
