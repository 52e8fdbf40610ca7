"""Prosody from Debian as the chat server of a test: WebSocket on a loopback port, accounts from a module of ours."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from prosody_server import answers, free_port

PROSODY = shutil.which("prosody") or "/usr/bin/prosody"

_CONFIG = """
run_as_root = true
pidfile = "{root}/prosody.pid"
data_path = "{root}/data"
log = {{ warn = "{root}/prosody.log" }}
admins = {{ }}
plugin_paths = {{ "{root}/modules" }}
modules_enabled = {{
  "roster", "saslauth", "disco", "ping", "presence", "message", "iq", "offline", "websocket", "accounts"
}}
modules_disabled = {{ "s2s" }}
c2s_require_encryption = false
consider_websocket_secure = true
cross_domain_websocket = true
authentication = "internal_hashed"
storage = "internal"
http_ports = {{ {port} }}
http_interfaces = {{ "127.0.0.1" }}
https_ports = {{ }}
c2s_ports = {{ }}
s2s_ports = {{ }}
VirtualHost "{domain}"
  http_host = "127.0.0.1"
"""

_ACCOUNTS = """
local users = require "core.usermanager";
local function add(name, password, host)
  if not users.user_exists(name, host) then users.create_user(name, password, host); end
end
module:hook_global("server-started", function ()
{lines}
end);
"""


class Prosody:
    """One server in a process of its own; ``stop`` and ``start`` again to cut every connection."""

    def __init__(self, root: Path, domain: str, accounts: Mapping[str, str]) -> None:
        self.root = root
        self.port = free_port("127.0.0.1")
        self.url = f"ws://127.0.0.1:{self.port}/xmpp-websocket"
        self._process: subprocess.Popen[bytes] | None = None
        (root / "data").mkdir()
        (root / "modules").mkdir()
        (root / "certs").mkdir()
        lines = "\n".join(f'  add("{name}", "{password}", "{domain}");' for name, password in accounts.items())
        (root / "modules" / "mod_accounts.lua").write_text(_ACCOUNTS.format(lines=lines))
        self._config = root / "prosody.cfg.lua"
        self._config.write_text(_CONFIG.format(root=root, port=self.port, domain=domain))

    def start(self, timeout: float = 20) -> None:
        """Starts and waits until the port answers."""
        log = (self.root / "stdout.log").open("ab")
        self._process = subprocess.Popen([PROSODY, "-F", "--config", str(self._config)], stdout=log, stderr=log)
        log.close()
        until = time.monotonic() + timeout
        while not answers("127.0.0.1", self.port):
            text = (self.root / "stdout.log").read_text(errors="replace")
            running = self._process.poll() is None and time.monotonic() < until
            assert running, f"Prosody did not start:\n{text}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Kills it: connections end without a farewell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
