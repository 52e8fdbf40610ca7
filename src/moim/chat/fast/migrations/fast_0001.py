"""Tokens for the next sign-in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "fast_0001"
down_revision = None
branch_labels = ("fast",)
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "fast_tokens",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("client", sa.Text, primary_key=True),
        sa.Column("slot", sa.Text, primary_key=True),
        sa.Column("mechanism", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("issued_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drops the table."""
    op.drop_table("fast_tokens")
