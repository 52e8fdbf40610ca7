"""Where people's programs want to be told of messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "push_0001"
down_revision = None
branch_labels = ("push",)
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "push_registrations",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
    )
    op.create_index("push_registrations_changed_at", "push_registrations", ["changed_at"])


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("push_registrations")
