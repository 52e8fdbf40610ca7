"""ejabberd from Debian as another domain: server-to-server on a loopback port, and the name server that it is told."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prosody_server import answers, free_port

_CONFIG = """
hosts: [{hosts}]
loglevel: debug
certfiles: ["{root}/both.pem"]
ca_file: "{root}/trusted.pem"
s2s_use_starttls: {starttls}
s2s_dns_timeout: 5
s2s_dns_retries: 2
s2s_max_retry_delay: 1
outgoing_s2s_families: [ipv4]
listen:
  - port: {c2s}
    ip: "{address}"
    module: ejabberd_c2s
    starttls: false
  - port: {s2s}
    ip: "{address}"
    module: ejabberd_s2s_in
auth_method: internal
auth_password_format: scram
auth_scram_hash: sha
modules:
  mod_roster: {{}}
  mod_disco: {{}}
  mod_ping: {{}}
  mod_offline: {{}}
  mod_caps: {{}}
  mod_s2s_dialback: {{}}
  mod_pubsub: {{plugins: [flat, pep]}}
  mod_muc: {{host: "rooms.{domain}"}}
"""


class EjabberdServer:
    """One server in a process of its own; ``stop`` and ``start`` again as often as wanted.

    ``dns`` is the name server (address, port) that it asks; ``chain`` and ``key`` (PEM) its certificate; ``trusted``
    further authorities; ``hosts`` more domains it serves. ``starttls`` is ``optional``, ``required`` or ``false``.
    """

    def __init__(
        self,
        root: Path,
        domain: str,
        accounts: Mapping[str, str],
        *,
        dns: tuple[str, int],
        chain: bytes,
        key: bytes,
        trusted: bytes = b"",
        hosts: Sequence[str] = (),
        starttls: str = "required",
        address: str = "127.0.0.1",
        s2s_port: int = 0,
        c2s_port: int = 0,
    ) -> None:
        self.root, self.domain, self.address = root, domain, address
        self.c2s_port, self.s2s_port = c2s_port or free_port(address), s2s_port or free_port(address)
        self._process: subprocess.Popen[bytes] | None = None
        root.mkdir(parents=True, exist_ok=True)
        (root / "both.pem").write_bytes(key + chain)
        (root / "trusted.pem").write_bytes(trusted or chain)
        (root / "inetrc").write_text(
            '{lookup, [file, dns]}.\n{resolv_conf, ""}.\n{hosts_file, ""}.\n'
            f"{{nameserver, {{{dns[0].replace('.', ',')}}}, {dns[1]}}}.\n{{edns, false}}.\n"
        )
        (root / "ejabberd.yml").write_text(
            _CONFIG.format(
                root=root,
                domain=domain,
                address=address,
                c2s=self.c2s_port,
                s2s=self.s2s_port,
                starttls=starttls,
                hosts=", ".join(f'"{host}"' for host in (domain, *hosts)),
            )
        )
        register = "\n".join(
            f'ejabberd_auth:try_register(<<"{name}">>, <<"{domain}">>, <<"{password}">>).'
            for name, password in accounts.items()
        )
        (root / "accounts.erl").write_text(f'{register}\nfile:write_file("{root}/ready", <<"ready">>).\n')

    def start(self, timeout: float = 90) -> None:
        """Starts and waits until its accounts are made."""
        (self.root / "ready").unlink(missing_ok=True)
        environment = os.environ | {
            "ERL_LIBS": "/usr/lib/x86_64-linux-gnu",
            "ERL_INETRC": str(self.root / "inetrc"),
            "EJABBERD_CONFIG_PATH": str(self.root / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(self.root / "ejabberd.log"),
            "ERL_CRASH_DUMP": str(self.root / "crash.dump"),
            "HOME": str(self.root),
        }
        with (self.root / "stdout.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["erl", "-noinput", "+S", "1:1", "-mnesia", "dir", f'"{self.root}/database"',
                 "-s", "ejabberd", "-eval", f'file:eval("{self.root}/accounts.erl").'],
                env=environment, cwd=self.root, stdout=log, stderr=log,
            )  # fmt: skip
        until = time.monotonic() + timeout
        while not (self.root / "ready").exists() or not answers(self.address, self.s2s_port):
            running = self._process.poll() is None and time.monotonic() < until
            assert running, f"ejabberd did not start:\n{self.log()}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the process."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(5)
        self._process = None

    def log(self) -> str:
        """The end of its log."""
        parts = [self.root / "stdout.log", self.root / "ejabberd.log"]
        return "\n".join(path.read_text(errors="replace")[-6000:] for path in parts if path.exists())
