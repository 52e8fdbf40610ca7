"""When accounts were last there; the message of the day, and who has seen it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chat_0006"
down_revision = "chat_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "chat_last_activity",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("left_at", sa.Float, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
    )
    op.create_table(
        "chat_motd",
        sa.Column("domain", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_table(
        "chat_motd_seen",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    for table in ("chat_motd_seen", "chat_motd", "chat_last_activity"):
        op.drop_table(table)
