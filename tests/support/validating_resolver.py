"""Unbound from Debian as a resolver that checks DNSSEC, with zones of a test's own, signed or not."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import dns.dnssec
import dns.name
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm

from moim.net.resolver import Resolver
from prosody_server import answers

UNBOUND = shutil.which("unbound") or "/usr/sbin/unbound"

_CONFIG = """
server:
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  logfile: "unbound.log"
  use-syslog: no
  do-daemonize: no
  interface: {address}@{port}
  access-control: 127.0.0.0/8 allow
  module-config: "validator iterator"
  do-not-query-localhost: no
  num-threads: 1
{anchors}
remote-control:
  control-enable: no
"""
_ZONE = """
auth-zone:
  name: "{name}"
  zonefile: "{file}"
  for-downstream: no
  for-upstream: yes
"""
_HEAD = ("@ 60 IN SOA ns hostmaster 1 60 60 60 60", "@ 60 IN NS ns", "ns 60 IN A 127.0.0.1")


class ValidatingResolver:
    """``signed`` and ``unsigned`` are zones by name, as lines of a zone file; ``forged`` lines take the place of signed
    ones after signing, with the signatures of those."""

    def __init__(
        self,
        folder: Path,
        *,
        signed: Mapping[str, Sequence[str]],
        unsigned: Mapping[str, Sequence[str]],
        forged: Mapping[str, str],
    ) -> None:
        self._folder, self.address = folder, "127.0.0.1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((self.address, 0))
            self.port = probe.getsockname()[1]
        anchors, zones = [], []
        for name, lines in {**signed, **unsigned}.items():
            zone = dns.zone.from_text("\n".join((*_HEAD, *lines)), origin=f"{name}.")
            if name in signed:
                anchors.append(f'  trust-anchor: "{name}. DNSKEY {_sign(zone)}"')
            text = zone.to_text(relativize=False)
            for before, after in forged.items():
                text = text.replace(before, after)
            (folder / f"{name}.zone").write_text(text)
            zones.append(_ZONE.format(name=name, file=f"{name}.zone"))
        config = _CONFIG.format(folder=folder, address=self.address, port=self.port, anchors="\n".join(anchors))
        (folder / "unbound.conf").write_text(config + "".join(zones))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 20) -> None:
        """Starts, and waits until it answers."""
        with (self._folder / "stdout.log").open("ab") as log:
            self._process = subprocess.Popen(
                [UNBOUND, "-d", "-c", str(self._folder / "unbound.conf")], stdout=log, stderr=log
            )
        until = time.monotonic() + timeout
        while not answers(self.address, self.port):
            running = self._process.poll() is None and time.monotonic() < until
            assert running, f"Unbound did not start:\n{self.log()}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def log(self) -> str:
        """The end of what it said."""
        return "\n".join(path.read_text(errors="replace")[-4000:] for path in self._folder.glob("*.log"))

    def resolver(self) -> Resolver:
        """A stub that asks it."""
        return Resolver([(self.address, self.port)])


def _sign(zone: dns.zone.Zone) -> str:
    """Signs a zone with a fresh key: its DNSKEY in text."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), Algorithm.ECDSAP256SHA256, flags=257)
    dns.dnssec.sign_zone(zone, keys=[(key, public)], lifetime=86400, inception=time.time() - 3600)
    return public.to_text()
