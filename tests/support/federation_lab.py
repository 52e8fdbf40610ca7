"""Three domains in a lab: Moim (lab.test), Prosody (prosody.lab.test) and ejabberd (ejabberd.lab.test), and people.

Moim's name server serves all three: Prosody asks it from outside, by the edge, and comes in by the edge; ejabberd asks
the inside. One authority made here signs the peers' certificates; Moim trusts it, and they trust Moim's.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from lab import Host, Lab
from moim import app
from peer_certificates import CLIENT, SERVER, Made, authority, leaf
from running_site import RunningSite

DOMAIN, PROSODY, EJABBERD = "lab.test", "prosody.lab.test", "ejabberd.lab.test"
PASSWORD = "wonder land"
_SUPPORT = Path(__file__).parent
_numbers = itertools.count(1)

_SETTINGS = """
[federation]
target_networks = ["10.77.0.0/16"]
posh = false
trusted = ["{authority}"]
connect_seconds = 3
ping_seconds = 5
queue_seconds = 15
retry_first_seconds = 1
retry_most_seconds = 1
"""


class Program:
    """A program of tests/support on a host: a JSON line in, a line out."""

    def __init__(self, host: Host, name: str, folder: Path) -> None:
        self._log = folder / f"{name}.{host.name}.log"
        self._errors: IO[bytes] = self._log.open("wb")
        self._process = host.start(sys.executable, "-u", str(_SUPPORT / f"{name}.py"), errors=self._errors)
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def ask(self, request: dict[str, Any]) -> Any:
        """Sends a line and waits for the answer: what it holds, or None for an empty line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=100)
        except queue.Empty:
            raise AssertionError(f"no answer to {request}: {self._log.read_text()[-3000:]}") from None
        return json.loads(line) if line.strip() else None

    def stop(self) -> None:
        """Ends its input, and waits for its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class Somebody:
    """A person of one of the domains, on the host of their server; every method of ``LabPerson`` can be called."""

    def __init__(self, program: Program, address: str, password: str, ca: str | None) -> None:
        self.address, self._program, self._name = address, program, f"{address}#{next(_numbers)}"
        self.call("make", address, password, ca)

    def call(self, method: str, *words: Any) -> Any:
        """Calls a method there and gives its result."""
        answer = self._program.ask({"id": next(_numbers), "who": self._name, "call": method, "args": words})
        assert "error" not in answer, f"{self.address}: {method}{words}: {answer['error']}"
        return answer["result"]

    def hears(self, sender: str, text: str) -> None:
        """Waits for this message; what waited for the person from before, or comes from others, is passed over."""
        while self.call("chat") != [sender, text]:
            pass

    def __getattr__(self, method: str) -> Any:
        return lambda *words: self.call(method, *words)


class Peer:
    """Prosody or ejabberd on its host."""

    def __init__(self, kind: str, domain: str, host: Host, folder: Path, ca: Made, trusted: str) -> None:
        self.kind, self.domain, self.host = kind, domain, host
        self.people = Program(host, "lab_people", folder)
        self._server = Program(host, "lab_peer", folder)
        self._root, self._ca, self._trusted = folder / kind, ca, trusted
        self.ca = folder / "authority.pem"

    def start(self, *, names: tuple[str, ...] = (), signed: bool = True, **more: Any) -> None:
        """Starts the server, or starts it again with other arguments; ``names`` are those of its certificate."""
        names = names or (self.domain, f"rooms.{self.domain}")
        made = leaf(names, self._ca if signed else None, usages=(SERVER, CLIENT))
        if self.kind == "ejabberd":
            more["dns"] = ("10.77.0.1", 53)
        problem = self._server.ask(
            {
                "kind": self.kind,
                "root": str(self._root),
                "domain": self.domain,
                "accounts": {"juliet": PASSWORD, "romeo": PASSWORD},
                "chain": made.chain_pem.decode(),
                "key": made.key_pem.decode(),
                "trusted": self._trusted,
                "address": self.host.address,
                **more,
            }
        )
        assert problem is None, problem

    def person(self, name: str) -> Somebody:
        """Signs somebody in at this server."""
        ca = str(self.ca) if self.kind == "prosody" else None
        somebody = Somebody(self.people, f"{name}@{self.domain}", PASSWORD, ca)
        somebody.sign_in(self.host.address, 5222)
        return somebody

    def stop(self) -> None:
        """Ends the people, then the server."""
        self.people.stop()
        self._server.stop()


class FederationLab:
    """All of it, started; ``peers`` by the names of their programs."""

    def __init__(self, folder: Path) -> None:
        self.lab = Lab(folder / "hosts")
        moim = self.site_host = self.lab.host("moim")
        ca = authority("The lab's authority")
        (folder / "authority.pem").write_bytes(ca.chain_pem)
        root = folder / "site"
        app.create_site(root, domain=DOMAIN, demo=True, ports="standard", inside=moim.address, edge_address=moim.second)
        hosts = {
            "prosody": self.lab.host("prosody", names_from=moim.second),
            "ejabberd": self.lab.host("ejabberd", names_from=moim.address),
        }
        with (root / "moim.toml").open("a") as file:
            file.write(_SETTINGS.format(authority=folder / "authority.pem"))
            for name, host in hosts.items():
                file.writelines(_record(owner, "A", host.address) for owner in (name, f"rooms.{name}"))
                file.writelines(
                    _record(f"_xmpp-server._tcp.{owner}", "SRV", f"0 0 5269 {name}")
                    for owner in (name, f"rooms.{name}")
                )
        self.site = RunningSite(root, prefix=moim.prefix)
        trusted = (ca.chain_pem + self.site.ca.read_bytes()).decode()
        self.peers = {name: Peer(name, f"{name}.{DOMAIN}", host, folder, ca, trusted) for name, host in hosts.items()}
        self._people = Program(moim, "lab_people", folder)
        self.address = moim.address
        self._desk: Host | None = None

    def start(self) -> None:
        """Starts the three servers side by side."""
        with ThreadPoolExecutor(3) as pool:
            starting = [pool.submit(self.site.start), *(pool.submit(peer.start) for peer in self.peers.values())]
            for one in starting:
                one.result()

    @contextlib.contextmanager
    def settings(self, section: str, text: str) -> Iterator[None]:
        """Restarts Moim with more lines in a section of its settings, and afterwards as it was."""
        file = self.site.root / "moim.toml"
        before = file.read_text()
        heading = f"[{section}]\n"
        more = heading + text + "\n"
        self.site.stop()
        try:
            file.write_text(before.replace(heading, more) if heading in before else f"{before}\n{more}")
            self.site.start()
            yield
        finally:
            if self.site.process is not None and self.site.process.poll() is None:
                self.site.stop()
            file.write_text(before)
            self.site.start()

    def person(self, name: str) -> Somebody:
        """Signs somebody in at Moim."""
        address = f"{name}@{DOMAIN}"
        somebody = Somebody(self._people, address, self.site.passwords[address], str(self.site.ca))
        somebody.sign_in(self.address, 5222)
        return somebody

    def desk(self) -> Host:
        """A host for people's clients: inside, with a way out, and with the site's authority among those it trusts."""
        if self._desk is None:
            self._desk = self.lab.host("desk", names_from=self.address)
            self._desk.run("ip", "route", "add", "default", "via", self.address)
            self._desk.run("mount", "--bind", str(self.site.ca), "/etc/ssl/certs/ca-certificates.crt")
        return self._desk

    def federation(self, *words: str, check: bool = True) -> dict[str, Any]:
        """What ``moim federation … --json`` says."""
        done = self.site.moim("federation", *words, "--json", check=check)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def peer_row(self, domain: str) -> dict[str, Any]:
        """What the status says of a domain; empty when it knows nothing."""
        rows: list[dict[str, Any]] = self.federation("status")["peers"]
        return next((row for row in rows if row["domain"] == domain), {})

    def until_no_stream_out(self, domain: str, seconds: float = 40) -> None:
        """Waits until no stream is left by which a domain can be sent anything."""
        until = time.monotonic() + seconds
        while any(stream["direction"] != "in" for stream in self.peer_row(domain).get("streams", ())):
            assert time.monotonic() < until, self.peer_row(domain)

    def close(self) -> None:
        """Stops everything."""
        self._people.stop()
        for peer in self.peers.values():
            peer.stop()
        if self.site.process is not None and self.site.process.poll() is None:
            self.site.stop()
        self.lab.close()


def _record(name: str, kind: str, value: str) -> str:
    return f'\n[[names.records]]\nname = "{name}"\ntype = "{kind}"\nvalue = "{value}"\n'
