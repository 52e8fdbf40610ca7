"""A private PostgreSQL for tests: its own directory, a Unix socket only, gone with the test session."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import sqlalchemy as sa

from leftovers import marked

BIN = Path("/usr/lib/postgresql/15/bin")
_numbers = itertools.count(1)


class PrivatePostgres:
    """One server. As root it runs as ``postgres`` or ``nobody``, since PostgreSQL refuses to be root."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="moim-pg-", dir="/tmp"))
        self.user = self._unprivileged() if os.geteuid() == 0 else None
        if self.user is not None:
            os.chown(self.home, self.user.pw_uid, self.user.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._run(
            str(BIN / "initdb"), "-D", str(self.home / "data"), "-U", "moim", "--auth=trust", "--encoding=UTF8",
            "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip

    @staticmethod
    def _unprivileged() -> pwd.struct_passwd:
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise RuntimeError("there is no unprivileged user to run PostgreSQL as")

    def _options(self) -> dict[str, object]:
        options: dict[str, object] = {
            "cwd": self.home,
            "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **marked()},
        }
        if self.user is not None:
            options |= {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        return options

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, **self._options())  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Returns when it takes connections."""
        self._run(
            str(BIN / "pg_ctl"), "-D", str(self.home / "data"), "-l", str(self.home / "log"), "-w", "-o",
            f"-c listen_addresses='' -c unix_socket_directories={self.home} -c fsync=off -c full_page_writes=off "
            "-c max_connections=150 -c shared_buffers=32MB -c synchronous_commit=on",
            "start",
        )  # fmt: skip

    def stop(self, how: str = "immediate") -> None:
        """Ends it and every connection."""
        self._run(str(BIN / "pg_ctl"), "-D", str(self.home / "data"), "-m", how, "-w", "stop")

    def database(self, *, like: sa.URL | None = None) -> sa.URL:
        """Makes an empty database, or a copy of one that nobody uses; gives its URL."""
        name = f"d{next(_numbers)}"
        self._say(f"CREATE DATABASE {name}" + (f" TEMPLATE {like.database}" if like is not None else ""))
        return self.url(name).set(drivername="postgresql")

    def drop(self, database: sa.URL) -> None:
        """Deletes a database that ``database`` made."""
        self._say(f"DROP DATABASE {database.database} WITH (FORCE)")

    def _say(self, statement: str) -> None:
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.execute(sa.text(statement))

    def url(self, database: str) -> sa.URL:
        """The URL of a database of this server."""
        return sa.URL.create("postgresql+psycopg", "moim", database=database, query={"host": str(self.home)})

    def pid(self) -> int:
        """The server's process."""
        return int((self.home / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def remove(self) -> None:
        """Ends it and deletes everything."""
        if (self.home / "data" / "postmaster.pid").exists():
            os.kill(self.pid(), signal.SIGQUIT)
        shutil.rmtree(self.home, ignore_errors=True)
