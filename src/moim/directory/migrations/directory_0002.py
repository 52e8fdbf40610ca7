"""Which policy a person has."""

import sqlalchemy as sa
from alembic import op

revision = "directory_0002"
down_revision = "directory_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("directory_users", sa.Column("policy", sa.String(64), nullable=False, server_default=""))
