"""The tables of meetings: the spaces in which they take place."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

spaces = sa.Table(
    "meetings_spaces",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),  # a GUID, for the API
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("call_id", sa.String(32), nullable=False, unique=True),  # digits, for people
    sa.Column("passcode", sa.String(32), nullable=False),
    sa.Column("secret", sa.String(64), nullable=False),  # the part of the link that lets in
    sa.Column("owner", sa.String(1280), nullable=True, index=True),  # an address; none for the site's own
    sa.Column("created_at", sa.BigInteger, nullable=False),  # seconds since 1970, UTC
)
