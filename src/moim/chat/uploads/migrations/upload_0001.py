"""Uploaded files and the slots they are put into."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "upload_0001"
down_revision = None
branch_labels = ("upload",)
depends_on = None


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "upload_files",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
        sa.Column("stored", sa.Boolean, nullable=False),
    )
    op.create_index("upload_files_owner", "upload_files", ["owner", "created_at"])
    op.create_index("upload_files_expires_at", "upload_files", ["expires_at"])


def downgrade() -> None:
    """Drops the table; the files stay on the disk until the next start."""
    op.drop_table("upload_files")
