"""The tables of rooms that outlive their occupants. ``room`` is the local part of the room's address.

It is the whole address where the service is not that of the site's service domain.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

rooms = sa.Table(
    "chat_rooms",
    metadata,
    sa.Column("room", sa.Text, primary_key=True),
    sa.Column("config", sa.Text, nullable=False),  # JSON
    sa.Column("salt", sa.LargeBinary, nullable=False),  # of the occupants' identifiers
    sa.Column("creator", sa.Text, nullable=False),  # a bare JID
    sa.Column("subject", sa.Text, nullable=True),
    sa.Column("subject_nick", sa.Text, nullable=True),
    sa.Column("subject_at", sa.Float, nullable=True),  # seconds since the epoch
    sa.Column("hats", sa.Text, nullable=False, server_default=""),  # JSON, or empty
    sa.Column("vcard", sa.Text, nullable=False, server_default=""),  # XML, or empty
    sa.Column("voices", sa.Text, nullable=False, server_default=""),  # JSON, or empty
    sa.Column("subject_by", sa.Text, nullable=False, server_default=""),  # an occupant-id, or empty
)

affiliations = sa.Table(
    "chat_room_affiliations",
    metadata,
    sa.Column("room", sa.Text, primary_key=True),
    sa.Column("jid", sa.Text, primary_key=True),
    sa.Column("affiliation", sa.Text, nullable=False),
    sa.Column("nick", sa.Text, nullable=False, server_default=""),  # reserved, or empty
)

history = sa.Table(
    "chat_room_history",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("room", sa.Text, nullable=False),
    sa.Column("sent_at", sa.Float, nullable=False),  # seconds since the epoch
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("stanza_id", sa.Text, nullable=False, server_default=""),  # what the room calls the message
    sa.Index("chat_room_history_room", "room", "id"),
    sqlite_autoincrement=True,
)
