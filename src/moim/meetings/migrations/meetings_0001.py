"""The first table of meetings."""

import sqlalchemy as sa
from alembic import op

revision = "meetings_0001"
down_revision = None
branch_labels = ("meetings",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "meetings_spaces",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("call_id", sa.String(32), nullable=False, unique=True),
        sa.Column("passcode", sa.String(32), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(1280), nullable=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_meetings_spaces_owner", "meetings_spaces", ["owner"])


def downgrade() -> None:
    op.drop_table("meetings_spaces")
