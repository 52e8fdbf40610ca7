"""The first tables of federation."""

import sqlalchemy as sa
from alembic import op

revision = "federation_0001"
down_revision = None
branch_labels = ("federation",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "federation_policies",
        sa.Column("domain", sa.String(260), primary_key=True),
        sa.Column("access", sa.String(8), nullable=True),
        sa.Column("tls", sa.String(8), nullable=True),
        sa.Column("certificates", sa.String(8), nullable=True),
        sa.Column("dialback", sa.Boolean, nullable=True),
        sa.Column("server_auth_only", sa.Boolean, nullable=True),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "federation_secrets",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.LargeBinary(64), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("federation_secrets")
    op.drop_table("federation_policies")
