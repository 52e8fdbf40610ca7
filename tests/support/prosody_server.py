"""Prosody from Debian as another domain; a small module of ours tells it where the servers of others are."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PROSODY = shutil.which("prosody") or "/usr/bin/prosody"

_CONFIG = """
run_as_root = true
pidfile = "{root}/prosody.pid"
data_path = "{root}/data"
log = {{ debug = "{root}/prosody.log" }}
plugin_paths = {{ "{root}/modules" }}
modules_enabled = {{
  "roster", "saslauth", "tls", "dialback", "disco", "ping", "presence", "message", "iq", "offline", "pep", "s2s",
  "s2s_auth_certs", "smacks", "accounts", "whereabouts"
}}
modules_disabled = {{ "limits" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
s2s_require_encryption = {encrypt}
s2s_secure_auth = {secure}
authentication = "internal_hashed"
storage = "internal"
interfaces = {{ "{address}" }}
c2s_ports = {{ {c2s} }}
s2s_ports = {{ {s2s} }}
s2s_direct_tls_ports = {{ }}
http_ports = {{ }}
https_ports = {{ }}
ssl = {{ certificate = "{root}/cert.pem", key = "{root}/key.pem", cafile = "{root}/trusted.pem" }}
{hosts}
"""

_ACCOUNTS = """
local users = require "core.usermanager";
module:hook_global("server-started", function ()
{lines}
end);
"""

_WHEREABOUTS = """
module:set_global();
local service, manual = require "net.resolvers.service", require "net.resolvers.manual";
local places = {{
{lines}
}};
local original = service.new;
service.new = function (hostname, name, kind, extra)
  local place = places[hostname];
  if name ~= "xmpp-server" or not place then return original(hostname, name, kind, extra); end
  return manual.new({{ {{ "tcp4", place[1], place[2], extra }} }}, kind, extra);
end;
"""


def free_port(address: str) -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(address: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


class ProsodyServer:
    """One server in a process of its own; ``stop`` and ``start`` again as often as wanted.

    ``places`` are the addresses and ports of other domains' servers; ``chain`` and ``key`` (PEM) its certificate;
    ``trusted`` further authorities. ``hosts`` are more domains it serves, with the certificates of the first.
    """

    def __init__(
        self,
        root: Path,
        domain: str,
        accounts: Mapping[str, str],
        *,
        places: Mapping[str, tuple[str, int]],
        chain: bytes,
        key: bytes,
        trusted: bytes = b"",
        hosts: Sequence[str] = (),
        encrypt: bool = True,
        secure: bool = False,
        address: str = "127.0.0.1",
        s2s_port: int = 0,
        c2s_port: int = 0,
    ) -> None:
        self.root, self.domain, self.address = root, domain, address
        self.c2s_port, self.s2s_port = c2s_port or free_port(address), s2s_port or free_port(address)
        self._process: subprocess.Popen[bytes] | None = None
        for folder in ("data", "modules"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "cert.pem").write_bytes(chain)
        (root / "key.pem").write_bytes(key)
        (root / "trusted.pem").write_bytes(trusted or chain)
        users = "\n".join(f'  users.create_user("{n}", "{p}", "{domain}");' for n, p in accounts.items())
        (root / "modules" / "mod_accounts.lua").write_text(_ACCOUNTS.format(lines=users))
        where = "\n".join(f'  ["{name}"] = {{ "{ip}", {port} }};' for name, (ip, port) in places.items())
        (root / "modules" / "mod_whereabouts.lua").write_text(_WHEREABOUTS.format(lines=where))
        served = [f'VirtualHost "{domain}"', f'Component "rooms.{domain}" "muc"', "  restrict_room_creation = false"]
        served += [f'VirtualHost "{host}"' for host in hosts]
        self._config = root / "prosody.cfg.lua"
        self._config.write_text(
            _CONFIG.format(
                root=root,
                address=address,
                c2s=self.c2s_port,
                s2s=self.s2s_port,
                encrypt=str(encrypt).lower(),
                secure=str(secure).lower(),
                hosts="\n".join(served),
            )
        )

    def start(self, timeout: float = 30) -> None:
        """Starts and waits until both ports answer."""
        with (self.root / "stdout.log").open("ab") as log:
            self._process = subprocess.Popen([PROSODY, "-F", "--config", str(self._config)], stdout=log, stderr=log)
        until = time.monotonic() + timeout
        while not all(answers(self.address, port) for port in (self.c2s_port, self.s2s_port)):
            running = self._process.poll() is None and time.monotonic() < until
            assert running, f"Prosody did not start:\n{self.log()}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the process."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(20)
        self._process = None

    def freeze(self) -> None:
        """It takes nothing any more, though its kernel does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Ends the process without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
        self._process = None

    def log(self) -> str:
        """The end of its log."""
        parts = [self.root / "stdout.log", self.root / "prosody.log"]
        return "\n".join(path.read_text(errors="replace")[-6000:] for path in parts if path.exists())
