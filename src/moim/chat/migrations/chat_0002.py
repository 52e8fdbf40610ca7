"""Whom people block."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chat_0002"
down_revision = "chat_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "chat_blocked",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
    )


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("chat_blocked")
