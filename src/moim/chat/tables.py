"""The chat room's tables. Owners and contacts are bare JIDs in canonical form."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

roster = sa.Table(
    "chat_roster",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("contact", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("groups", sa.Text, nullable=False),  # a JSON list
    sa.Column("subscription", sa.Text, nullable=False),  # none, to, from, both
    sa.Column("ask", sa.Boolean, nullable=False),
    sa.Column("approved", sa.Boolean, nullable=False),
    sa.Column("listed", sa.Boolean, nullable=False),
    sa.Column("request", sa.Text, nullable=True),  # the subscription request that waits for the owner, as XML
    sa.Index("chat_roster_contact", "contact"),
)

offline = sa.Table(
    "chat_offline",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("stored_at", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("stanza", sa.Text, nullable=False),
    sa.Index("chat_offline_owner", "owner", "id"),
    sqlite_autoincrement=True,
)

vcards = sa.Table(
    "chat_vcards",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("vcard", sa.Text, nullable=False),
)

blocked = sa.Table(
    "chat_blocked",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("address", sa.Text, primary_key=True),  # any JID: full, bare, a domain, a domain with a resource
)

private = sa.Table(
    "chat_private",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("ns", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
)

pep_nodes = sa.Table(
    "chat_pep_nodes",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("config", sa.Text, nullable=False),  # JSON
)

pep_items = sa.Table(
    "chat_pep_items",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),  # rises with every publication
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("item", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Index("chat_pep_items_key", "owner", "node", "item", unique=True),
    sqlite_autoincrement=True,
)

pep_subscriptions = sa.Table(
    "chat_pep_subscriptions",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("jid", sa.Text, primary_key=True),  # as it subscribed: bare, or full
    sa.Column("bare", sa.Text, nullable=False),
    sa.Index("chat_pep_subscriptions_bare", "bare"),
)

last_activity = sa.Table(
    "chat_last_activity",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("left_at", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("status", sa.Text, nullable=False),
)

motd = sa.Table(
    "chat_motd",
    metadata,
    sa.Column("domain", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),  # another one for each message that is new to everybody
    sa.Column("message", sa.Text, nullable=False),
)

motd_seen = sa.Table(
    "chat_motd_seen",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)
