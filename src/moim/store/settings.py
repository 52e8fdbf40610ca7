"""Settings of the store: ``[store]`` in ``moim.toml``."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from pydantic import Field, field_validator

from moim.errors import ConfigError
from moim.settings import Section, read_secret


class Settings(Section):
    """Where durable state is. Several inside nodes share one PostgreSQL database; one node needs none."""

    url: str = ""
    """``postgresql://user@host:5432/database``, with libpq's options after ``?`` (``sslmode=verify-full``,
    ``sslrootcert=…``, ``host=/run/postgresql`` for a socket); empty for the embedded SQLite."""
    password_file: str = ""
    """A file (mode 0600) with the password for ``url``; a relative path starts at the site's directory."""
    connections: int = Field(default=4, ge=2, le=64)
    """Connections of one node to PostgreSQL that read at once; one more writes."""

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if not value:
            return value
        try:
            url = sa.make_url(value)
        except sa.exc.ArgumentError:
            raise ValueError("write it like postgresql://user@host:5432/database") from None
        if url.drivername not in ("postgresql", "postgres") or not url.database:
            raise ValueError("write it like postgresql://user@host:5432/database")
        if url.password is not None:
            raise ValueError("a password does not belong here: put it into a file and name that in store.password_file")
        return value

    def database(self, root: Path) -> sa.URL | None:
        """Where PostgreSQL is, password included; None for the embedded database. Raises ConfigError for the file."""
        if not self.url:
            if self.password_file:
                raise ConfigError("moim.toml: store.password_file without store.url", hint="name the database too")
            return None
        url = sa.make_url(self.url).set(drivername="postgresql")
        return url.set(password=read_secret(root, self.password_file)) if self.password_file else url
