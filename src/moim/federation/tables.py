"""The tables of federation: what is set for single domains, and the secret that dialback's keys are made from."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

policies = sa.Table(
    "federation_policies",
    metadata,
    sa.Column("domain", sa.String(260), primary_key=True),  # A-labels, or "*." and a domain
    sa.Column("access", sa.String(8), nullable=True),  # allow, deny; none: as the settings say
    sa.Column("tls", sa.String(8), nullable=True),  # off, optional, required
    sa.Column("certificates", sa.String(8), nullable=True),  # off, optional, required
    sa.Column("dialback", sa.Boolean, nullable=True),
    sa.Column("server_auth_only", sa.Boolean, nullable=True),
    sa.Column("changed_at", sa.BigInteger, nullable=False),  # seconds since 1970, UTC
)

secrets = sa.Table(
    "federation_secrets",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.LargeBinary(64), nullable=False),
)
