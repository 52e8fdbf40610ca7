"""Servers that the conformance suites run against: Moim, and Prosody and ejabberd as Debian has them.

For a host of its own (``private_host``): standard ports on 127.0.0.1; alice, bob and carol, of whom alice administers;
and if asked for, a place for an external component, ``slixmpp.DOMAIN`` with the secret ``secret``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.rdatatype
import dns.rrset

from bench.prosody import make_certificate, write_account
from bench.xmpp import Account
from running_site import RunningSite

PEOPLE = ("alice", "bob", "carol")


@dataclass(frozen=True)
class Place:
    """A running server."""

    domain: str
    rooms: str
    passwords: dict[str, str]
    authority: Path


@dataclass(frozen=True)
class Result:
    """What a suite found: tests, the names of those that did not pass, and its own words.

    ``impossible`` are tests, not among these, that the suite found it cannot make with this server or client.
    """

    tests: int
    failed: tuple[str, ...]
    report: str
    impossible: tuple[str, ...] = ()


@contextlib.contextmanager
def moim(folder: Path, domain: str, component: bool) -> Iterator[Place]:
    """A new site of ours."""
    site = RunningSite(folder / "site")
    site.start("--domain", domain, "--ports", "standard", "--demo")
    site.stop()
    secret = site.root / "component.secret"
    secret.touch(mode=0o600)
    secret.write_text("secret")
    components = f'{{ "slixmpp.{domain}" = "component.secret" }}' if component else "{}"
    with (site.root / "moim.toml").open("a", encoding="utf-8") as file:
        file.write(
            f"""
[chat]
admins = ["alice@{domain}"]
default_contacts = false
outage_status_addresses = ["http://127.0.0.1:8080/no-outage"]
rooms_stanzas_per_second = 1000
rooms_stanzas_burst = 10000
uploads_url = "https://edge.{domain}"
components = {components}
"""
        )
    site.start()
    try:
        passwords = {address.partition("@")[0]: word for address, word in site.passwords.items()}
        yield Place(domain, f"rooms.{domain}", passwords, site.ca)
    except BaseException:
        print(site.logs())
        raise
    finally:
        site.stop()


_PROSODY = """
pidfile = "{folder}/prosody.pid"
data_path = "{folder}/data"
run_as_root = true
daemonize = false
log = {{ info = "{folder}/server.log" }}
interfaces = {{ "127.0.0.1" }}
component_interfaces = {{ "127.0.0.1" }}
c2s_direct_tls_ports = {{ 5223 }}
https_ports = {{ 5281 }}
https_interfaces = {{ "127.0.0.1" }}
https_certificate = "{folder}/cert.pem"
https_key = "{folder}/key.pem"
admins = {{ "alice@{domain}" }}
authentication = "internal_hashed"
archive_expires_after = "1w"
modules_enabled = {{
  "admin_adhoc", "blocklist", "bookmarks", "carbons", "csi_simple", "dialback", "disco", "http", "limits", "mam", "pep",
  "ping", "private", "register", "roster", "saslauth", "smacks", "time", "tls", "uptime", "vcard4", "vcard_legacy",
  "version",
}}
allow_registration = false
ssl = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem" }}
VirtualHost "{domain}"
Component "rooms.{domain}" "muc"
  modules_enabled = {{ "muc_mam" }}
Component "upload.{domain}" "http_file_share"
  http_host = "{domain}"
  http_external_url = "https://{domain}:5281/"
{component}
"""

_PROSODY_COMPONENT = """
Component "slixmpp.{domain}"
  component_secret = "secret"
"""

_EJABBERD = """
hosts: ["{domain}"]
loglevel: warning
certfiles: ["{folder}/both.pem"]
listen:
  - {{port: 5222, ip: "127.0.0.1", module: ejabberd_c2s, starttls_required: true}}
  - {{port: 5223, ip: "127.0.0.1", module: ejabberd_c2s, tls: true}}
  - {{port: 5281, ip: "127.0.0.1", module: ejabberd_http, tls: true, request_handlers: {{/upload: mod_http_upload}}}}
  - {{port: 5347, ip: "127.0.0.1", module: ejabberd_service, hosts: {{"slixmpp.{domain}": {{password: "secret"}}}}}}
auth_method: internal
auth_password_format: scram
acl: {{admin: {{user: ["alice@{domain}"]}}}}
access_rules:
  configure: {{allow: admin}}
  local: {{allow: all}}
modules:
  mod_adhoc: {{}}
  mod_admin_extra: {{}}
  mod_announce: {{access: configure}}
  mod_blocking: {{}}
  mod_caps: {{}}
  mod_carboncopy: {{}}
  mod_client_state: {{}}
  mod_configure: {{}}
  mod_disco: {{}}
  mod_http_upload: {{host: "upload.{domain}", put_url: "https://{domain}:5281/upload", docroot: "{folder}/upload"}}
  mod_last: {{}}
  mod_mam: {{default: always, assume_mam_usage: true}}
  mod_muc: {{host: "rooms.{domain}", default_room_options: {{mam: true}}}}
  mod_offline: {{}}
  mod_ping: {{}}
  mod_privacy: {{}}
  mod_private: {{}}
  mod_pubsub: {{plugins: [flat, pep]}}
  mod_roster: {{versioning: true}}
  mod_stream_mgmt: {{}}
  mod_time: {{}}
  mod_vcard: {{}}
  mod_vcard_xupdate: {{}}
  mod_version: {{}}
"""


@contextlib.contextmanager
def _names(domain: str) -> Iterator[None]:
    """Answers DNS for ``domain``: its client services on 127.0.0.1, which every name below it is."""
    services = {f"_xmpp-client._tcp.{domain}.": 5222, f"_xmpps-client._tcp.{domain}.": 5223}

    def answer(wire: bytes) -> bytes:
        query = dns.message.from_wire(wire)
        reply = dns.message.make_response(query)
        question = query.question[0]
        name = question.name.to_text().lower()
        if question.rdtype == dns.rdatatype.SRV and name in services:
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", f"0 1 {services[name]} {domain}."))
        elif question.rdtype == dns.rdatatype.A and f".{name}".endswith(f".{domain}."):
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "127.0.0.1"))
        return reply.to_wire()

    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))

    def serve() -> None:
        while True:
            wire, client = server.recvfrom(4096)
            if not wire:
                return
            server.sendto(answer(wire), client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.sendto(b"", server.getsockname())
        thread.join()
        server.close()


@contextlib.contextmanager
def _running(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        for _ in range(300):
            if (folder / "ready").exists() or (command[0] != "erl" and _listens(5222)):
                break
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {(folder / 'server.log').read_text()}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def prosody(folder: Path, domain: str, component: bool) -> Iterator[Place]:
    """Debian's Prosody with what it offers for these suites."""
    _, certificate = make_certificate(folder, domain)
    passwords = {name: secrets.token_urlsafe(9) for name in PEOPLE}
    for name, password in passwords.items():
        write_account(folder, domain, Account(name, password))
    listed = _PROSODY_COMPONENT.format(domain=domain) if component else ""
    (folder / "prosody.cfg.lua").write_text(_PROSODY.format(folder=folder, domain=domain, component=listed))
    program = shutil.which("prosody") or "/usr/bin/prosody"
    with _names(domain), _running([program, "--config", str(folder / "prosody.cfg.lua"), "-F"], folder, {}):
        yield Place(domain, f"rooms.{domain}", passwords, certificate)


@contextlib.contextmanager
def ejabberd(folder: Path, domain: str, component: bool) -> Iterator[Place]:
    """Debian's ejabberd with what it offers for these suites; components come unannounced."""
    key, certificate = make_certificate(folder, domain)
    (folder / "both.pem").write_text(key.read_text() + certificate.read_text())
    passwords = {name: secrets.token_urlsafe(9) for name in PEOPLE}
    (folder / "ejabberd.yml").write_text(_EJABBERD.format(folder=folder, domain=domain))
    register = "".join(
        f'ok = ejabberd_auth:try_register(<<"{name}">>, <<"{domain}">>, <<"{word}">>).\n'
        for name, word in passwords.items()
    )
    (folder / "accounts.erl").write_text(f'{register}file:write_file("{folder}/ready", <<"ready">>).\n')
    environment = {
        "ERL_LIBS": "/usr/lib/x86_64-linux-gnu",
        "EJABBERD_CONFIG_PATH": str(folder / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(folder / "server.log"),
        "HOME": str(folder),
    }
    command = [
        "erl", "-noinput", "+P", "250000", "-mnesia", "dir", f'"{folder}/database"', "-s", "ejabberd",
        "-eval", f'file:eval("{folder}/accounts.erl").',
    ]  # fmt: skip
    with _names(domain), _running(command, folder, environment):
        yield Place(domain, f"rooms.{domain}", passwords, certificate)


SERVERS: Mapping[str, Callable[[Path, str, bool], contextlib.AbstractContextManager[Place]]] = {
    "moim": moim,
    "prosody": prosody,
    "ejabberd": ejabberd,
}
