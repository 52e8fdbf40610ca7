"""The directory's tables: users, what is kept of their passwords, their devices, their last sign-in."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

users = sa.Table(
    "directory_users",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),  # random, so that it survives a change of address
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
    sa.Column("policy", sa.String(64), nullable=False, server_default=""),  # one of chat's, by name
    sa.Column("account_type", sa.String(16), nullable=False, server_default="local"),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("created_at", sa.BigInteger, nullable=False),  # seconds since 1970, UTC
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("domain", "local"),
)
sa.Index("ix_directory_users_email", sa.func.lower(users.c.email))

credentials = sa.Table(
    "directory_credentials",
    metadata,
    sa.Column("user_id", sa.ForeignKey("directory_users.id", ondelete="CASCADE"), primary_key=True),
    # RFC 5803 section 2: scheme$rounds:salt$stored:server
    sa.Column("scram_sha256", sa.String(512), nullable=False),
    sa.Column("scram_sha1", sa.String(512), nullable=False),
    # After an import empty until the first sign-in that needs it.
    sa.Column("argon2", sa.String(512), nullable=False, server_default=""),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)

devices = sa.Table(
    "directory_devices",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("user_id", sa.ForeignKey("directory_users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("name", sa.String(128), nullable=False, unique=True),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("model", sa.String(128), nullable=False),
    sa.Column("description", sa.String(255), nullable=False, server_default=""),
    sa.Column("protocol", sa.String(16), nullable=False),
)

sign_ins = sa.Table(
    "directory_sign_ins",
    metadata,
    sa.Column("user_id", sa.ForeignKey("directory_users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("succeeded_at", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("source", sa.String(64), nullable=False, server_default=""),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),  # since the last success
)
