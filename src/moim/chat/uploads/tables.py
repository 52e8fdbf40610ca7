"""The table of uploads: one row per slot, which becomes a file's when it is filled. Owners are canonical bare JIDs."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

files = sa.Table(
    "upload_files",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),  # 32 hexadecimal digits, the secret of the file's URL
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),  # empty when the client named none
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("expires_at", sa.Float, nullable=False),  # of the slot until it is filled, then of the file
    sa.Column("stored", sa.Boolean, nullable=False),
    sa.Index("upload_files_owner", "owner", "created_at"),
    sa.Index("upload_files_expires_at", "expires_at"),
)
