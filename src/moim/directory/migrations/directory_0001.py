"""The first tables of the directory."""

import sqlalchemy as sa
from alembic import op

revision = "directory_0001"
down_revision = None
branch_labels = ("directory",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "directory_users",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("local", sa.String(1023), nullable=False),
        sa.Column("domain", sa.String(253), nullable=False),
        sa.Column("display_name", sa.String(255), nullable=False, server_default=""),
        sa.Column("first_name", sa.String(255), nullable=False, server_default=""),
        sa.Column("last_name", sa.String(255), nullable=False, server_default=""),
        sa.Column("email", sa.String(254), nullable=False, server_default=""),
        sa.Column("phone", sa.String(64), nullable=False, server_default=""),
        sa.Column("mobile", sa.String(64), nullable=False, server_default=""),
        sa.Column("title", sa.String(255), nullable=False, server_default=""),
        sa.Column("department", sa.String(255), nullable=False, server_default=""),
        sa.Column("manager", sa.String(255), nullable=False, server_default=""),
        sa.Column("account_type", sa.String(16), nullable=False, server_default="local"),
        sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("domain", "local"),
    )
    op.create_index("ix_directory_users_email", "directory_users", [sa.text("lower(email)")])
    op.create_table(
        "directory_credentials",
        sa.Column("user_id", sa.String(32), sa.ForeignKey("directory_users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("scram_sha256", sa.String(512), nullable=False),
        sa.Column("scram_sha1", sa.String(512), nullable=False),
        sa.Column("argon2", sa.String(512), nullable=False, server_default=""),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "directory_devices",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(32), sa.ForeignKey("directory_users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String(128), nullable=False, unique=True),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("description", sa.String(255), nullable=False, server_default=""),
        sa.Column("protocol", sa.String(16), nullable=False),
    )
    op.create_index("ix_directory_devices_user_id", "directory_devices", ["user_id"])
    op.create_table(
        "directory_sign_ins",
        sa.Column("user_id", sa.String(32), sa.ForeignKey("directory_users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("succeeded_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("source", sa.String(64), nullable=False, server_default=""),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    )


def downgrade() -> None:
    for table in ("sign_ins", "devices", "credentials", "users"):
        op.drop_table(f"directory_{table}")
