"""The table of push registrations. Owners are canonical bare JIDs, services any canonical JID."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

registrations = sa.Table(
    "push_registrations",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("service", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("options", sa.Text, nullable=False),  # the form of publish-options as XML; empty for none
    sa.Column("failures", sa.Integer, nullable=False),  # errors in a row
    sa.Column("changed_at", sa.Float, nullable=False),  # seconds since the epoch
    sa.Index("push_registrations_changed_at", "changed_at"),
)
