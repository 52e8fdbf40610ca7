"""Messages that were taken over from another server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "moving_0001"
down_revision = None
branch_labels = ("moving",)
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "moving_messages",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, primary_key=True),
    )


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("moving_messages")
