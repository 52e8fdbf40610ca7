"""Rooms that remember whom a moderator gave or took voice, and who set the subject."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "rooms_0003"
down_revision = "rooms_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("chat_rooms", sa.Column("voices", sa.Text, nullable=False, server_default=""))
    op.add_column("chat_rooms", sa.Column("subject_by", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Drops them."""
    op.drop_column("chat_rooms", "subject_by")
    op.drop_column("chat_rooms", "voices")
