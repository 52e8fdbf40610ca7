"""Prosody as a peer: Debian's package with a configuration and storage of its own, in a temporary folder."""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.xmpp import Account, Profile

_CONFIG = """
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
run_as_root = true
daemonize = false
log = {{ error = "{folder}/error.log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{}}
c2s_direct_tls_ports = {{ {port} }}
s2s_ports = {{}}
network_backend = "epoll"
authentication = "internal_hashed"
storage = "internal"
modules_enabled = {{ {modules} }}
modules_disabled = {{ "s2s", "limits" }}
ssl = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem" }}
c2s_direct_tls_ssl = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem" }}
{more}
VirtualHost "{domain}"
Component "rooms.{domain}" "muc"
"""
_BARE = ("roster", "saslauth", "tls", "disco", "ping", "posix", "offline")
_FEATURES = ("carbons", "smacks", "csi_simple", "pep")
_ARCHIVE = """
storage = {{ archive = "sql" }}
default_storage = "internal"
sql = {{ driver = "SQLite3", database = "{folder}/archive.sqlite" }}
default_archive_policy = true
"""


def free_port() -> int:
    """A TCP port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_certificate(folder: Path, domain: str) -> tuple[Path, Path]:
    """A self-signed P-256 certificate; gives its key and itself."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={domain}", "-addext", f"subjectAltName=DNS:{domain}", "-keyout", str(key),
         "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


def write_account(folder: Path, domain: str, account: Account) -> None:
    """Makes an account in the files of a Prosody that is not running."""
    salt = os.urandom(16).hex()
    salted = hashlib.pbkdf2_hmac("sha1", account.password.encode(), salt.encode(), 4096)
    stored = hashlib.sha1(hmac.digest(salted, b"Client Key", "sha1")).hexdigest()
    server = hmac.digest(salted, b"Server Key", "sha1").hex()
    host = domain.replace(".", "%2e").replace("-", "%2d")
    path = folder / "data" / host / "accounts" / f"{account.local}.dat"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'return {{ ["iteration_count"] = 4096; ["stored_key"] = "{stored}"; '
        f'["server_key"] = "{server}"; ["salt"] = "{salt}"; }};\n'
    )


@contextmanager
def prosody(folder: Path, domain: str, accounts: Sequence[Account], profile: Profile) -> Iterator[tuple[int, int]]:
    """Runs Prosody with these accounts; gives its process and its direct-TLS port."""
    program = shutil.which("prosody") or "/usr/bin/prosody"
    make_certificate(folder, domain)
    port = free_port()
    for account in accounts:
        write_account(folder, domain, account)
    config = folder / "prosody.cfg.lua"
    modules = (*_BARE, *(_FEATURES if profile != "bare" else ()), *(("mam",) if profile == "archive" else ()))
    config.write_text(
        _CONFIG.format(
            folder=folder,
            port=port,
            domain=domain,
            modules=", ".join(f'"{name}"' for name in modules),
            more=_ARCHIVE.format(folder=folder) if profile == "archive" else "",
        )
    )
    process = subprocess.Popen(
        [program, "--config", str(config), "-F"], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise RuntimeError(f"prosody ended: {(folder / 'error.log').read_text()}")
            time.sleep(0.05)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(60)
