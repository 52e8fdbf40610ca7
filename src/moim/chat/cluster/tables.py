"""The tables of a subcluster: which nodes live, what each holds, and who is in the rooms."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

nodes = sa.Table(
    "chat_cluster_nodes",
    metadata,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),  # rises with every life of any node
    sa.Column("expires_at", sa.Float, nullable=False),  # seconds since the epoch by the database's clock; 0: it ended
)

leases = sa.Table(
    "chat_cluster_leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),  # what is held: ``rooms``
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),  # the holder's; counts as long as that life does
)

occupants = sa.Table(
    "chat_cluster_occupants",
    metadata,
    sa.Column("room", sa.Text, primary_key=True),
    sa.Column("session", sa.Text, primary_key=True),  # a full JID
    sa.Column("nick", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column(
        "place", sa.Integer, nullable=False
    ),  # among the sessions of its nickname; the highest is what others see
    sa.Column("payload", sa.Text, nullable=False),  # what it last said in presence, as one XML element
)

secrets = sa.Table(
    "chat_cluster_secrets",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
