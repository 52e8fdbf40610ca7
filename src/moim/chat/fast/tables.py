"""The table of tokens. It holds what they are derived from, never a token: a copy of it signs nobody in."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

tokens = sa.Table(
    "fast_tokens",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),  # bare JID
    sa.Column("client", sa.Text, primary_key=True),  # hash of the program's identifier
    sa.Column("slot", sa.Text, primary_key=True),  # current, or new until it is used for the first time
    sa.Column("mechanism", sa.Text, nullable=False),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("issued_at", sa.Float, nullable=False),  # seconds since 1970
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),  # the highest count of uses that was shown
)
