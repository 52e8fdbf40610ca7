"""Personal eventing: who subscribed to a node by name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chat_0005"
down_revision = "chat_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "chat_pep_subscriptions",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("jid", sa.Text, primary_key=True),
        sa.Column("bare", sa.Text, nullable=False),
    )
    op.create_index("chat_pep_subscriptions_bare", "chat_pep_subscriptions", ["bare"])


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("chat_pep_subscriptions")
