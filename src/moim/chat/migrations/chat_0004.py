"""Personal eventing: nodes of accounts, and their items."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "chat_0004"
down_revision = "chat_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "chat_pep_nodes",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("config", sa.Text, nullable=False),
    )
    op.create_table(
        "chat_pep_items",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("chat_pep_items_key", "chat_pep_items", ["owner", "node", "item"], unique=True)


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("chat_pep_items")
    op.drop_table("chat_pep_nodes")
