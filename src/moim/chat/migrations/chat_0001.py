"""Contact lists, messages kept for those who are away, and vCards."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chat_0001"
down_revision = None
branch_labels = ("chat",)
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "chat_roster",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("contact", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("groups", sa.Text, nullable=False),
        sa.Column("subscription", sa.Text, nullable=False),
        sa.Column("ask", sa.Boolean, nullable=False),
        sa.Column("approved", sa.Boolean, nullable=False),
        sa.Column("listed", sa.Boolean, nullable=False),
        sa.Column("request", sa.Text, nullable=True),
    )
    op.create_index("chat_roster_contact", "chat_roster", ["contact"])
    op.create_table(
        "chat_offline",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("stored_at", sa.Float, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("stanza", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("chat_offline_owner", "chat_offline", ["owner", "id"])
    op.create_table(
        "chat_vcards",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("vcard", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("chat_vcards")
    op.drop_table("chat_offline")
    op.drop_table("chat_roster")
