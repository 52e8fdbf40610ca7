"""What is remembered of messages that were taken over, so that running an import again delivers nothing twice."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

adopted_messages = sa.Table(
    "moving_messages",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),  # a bare JID
    sa.Column("digest", sa.Text, primary_key=True),  # of the message and the time since when it waits
)
