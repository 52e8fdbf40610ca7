"""Rooms with hats, vCards and reserved nicknames; messages that can be taken back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "rooms_0002"
down_revision = "rooms_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns."""
    op.add_column("chat_rooms", sa.Column("hats", sa.Text, nullable=False, server_default=""))
    op.add_column("chat_rooms", sa.Column("vcard", sa.Text, nullable=False, server_default=""))
    op.add_column("chat_room_affiliations", sa.Column("nick", sa.Text, nullable=False, server_default=""))
    op.add_column("chat_room_history", sa.Column("stanza_id", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Drops them."""
    op.drop_column("chat_room_history", "stanza_id")
    op.drop_column("chat_room_affiliations", "nick")
    op.drop_column("chat_rooms", "vcard")
    op.drop_column("chat_rooms", "hats")
