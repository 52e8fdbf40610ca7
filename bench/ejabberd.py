"""ejabberd as a peer: Debian's package, run as one Erlang process with a configuration and database of its own."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.prosody import free_port, make_certificate
from bench.xmpp import Account, Profile

_SCHEMA = Path("/usr/share/ejabberd/sql/lite.sql")
_CONFIG = """
hosts: ["{domain}"]
loglevel: error
certfiles: ["{folder}/both.pem"]
listen:
  - port: {port}
    ip: "127.0.0.1"
    module: ejabberd_c2s
    tls: true
    max_stanza_size: 262144
    backlog: 1024
auth_method: internal
auth_password_format: scram
auth_scram_hash: sha
modules:
  mod_roster: {{}}
  mod_disco: {{}}
  mod_ping: {{}}
  mod_offline: {{}}
  mod_muc: {{host: "rooms.{domain}", max_users: 1000, default_room_options: {{max_users: 1000}}}}
"""
_FEATURES = """  mod_carboncopy: {}
  mod_stream_mgmt: {}
  mod_client_state: {}
  mod_caps: {}
  mod_pubsub: {plugins: [flat, pep]}
"""
_ARCHIVE = """  mod_mam: {{db_type: sql, default: always, compress_xml: false}}
sql_type: sqlite
sql_database: "{folder}/archive.db"
"""


@contextmanager
def ejabberd(folder: Path, domain: str, accounts: Sequence[Account], profile: Profile) -> Iterator[tuple[int, int]]:
    """Runs ejabberd with these accounts; gives its process and its direct-TLS port."""
    key, certificate = make_certificate(folder, domain)
    (folder / "both.pem").write_text(key.read_text() + certificate.read_text())
    port = free_port()
    config = _CONFIG.format(domain=domain, folder=folder, port=port)
    if profile != "bare":
        config += _FEATURES
    if profile == "archive":
        with sqlite3.connect(folder / "archive.db") as database:
            database.executescript(_SCHEMA.read_text())
        config += _ARCHIVE.format(folder=folder)
    (folder / "ejabberd.yml").write_text(config)
    register = "\n".join(
        f'ok = ejabberd_auth:try_register(<<"{a.local}">>, <<"{domain}">>, <<"{a.password}">>).' for a in accounts
    )
    (folder / "accounts.erl").write_text(f'{register}\nfile:write_file("{folder}/ready", <<"ready">>).\n')
    environment = os.environ | {
        "ERL_LIBS": "/usr/lib/x86_64-linux-gnu",
        "EJABBERD_CONFIG_PATH": str(folder / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(folder / "ejabberd.log"),
        "ERL_CRASH_DUMP": str(folder / "crash.dump"),
        "HOME": str(folder),
    }
    process = subprocess.Popen(
        ["erl", "-noinput", "+K", "true", "+P", "250000", "+Q", "65536", "-mnesia", "dir", f'"{folder}/database"',
         "-s", "ejabberd", "-eval", f'file:eval("{folder}/accounts.erl").'],
        env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        for _ in range(1200):
            if (folder / "ready").exists():
                break
            if process.poll() is not None:
                raise RuntimeError(f"ejabberd ended: {(folder / 'ejabberd.log').read_text()}")
            time.sleep(0.1)
        else:
            raise RuntimeError(f"ejabberd did not take its accounts: {(folder / 'ejabberd.log').read_text()}")
        with socket.create_connection(("127.0.0.1", port), 5):
            pass
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(60)
