"""A site with both halves of the edge on loopback addresses of its own, and the suppliers that other rooms would be."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moim.bus import Bus
from moim.edge import EdgeInsideService, EdgeNodeService, Settings, Target, create_keys
from moim.errors import NotFound
from moim.model import TunnelChanged
from moim.settings import Node, Nodes, Site, SiteSettings

DOMAIN = "moim.test"
OTHER = "other.test"
"""A second domain that the site hosts."""


class Authority:
    """A certificate authority with the face that trust shows to the edge."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.addresses = addresses
        self.signed = 0
        self.lifetime = datetime.timedelta(days=90)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder(name, name, self.key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=900))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, public_key: Any, names: Sequence[str]) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        general: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        general += [x509.IPAddress(ipaddress.ip_address(address)) for address in self.addresses]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        leaf = (
            x509.CertificateBuilder(self.certificate.subject, subject, public_key, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + self.lifetime)
            .add_extension(x509.SubjectAlternativeName(general), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return leaf.public_bytes(serialization.Encoding.PEM)

    def sign_edge(self, csr_pem: bytes) -> bytes:
        self.signed += 1
        request = x509.load_pem_x509_csr(csr_pem)
        assert request.is_signature_valid
        return self.issue(request.public_key(), [f"edge.{DOMAIN}", DOMAIN])

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Directory:
    """The password of alice, and who asked from where."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        self.asked.append((address, source))
        return (address, password) in ((f"alice@{DOMAIN}", "secret"), (f"alice@{OTHER}", "theirs"))


async def internal_srv(name: str) -> list[tuple[int, int, int, str]]:
    if name in (f"_cisco-uds._tcp.{DOMAIN}", f"_cisco-uds._tcp.{OTHER}"):
        return [(10, 20, 18443, f"inside.{DOMAIN}.")]
    raise NotFound(f"no records for {name}")


def loopback() -> str:
    """An address of this machine that no other test uses."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(2, 254)}"


class House:
    """Both halves. ``targets`` may be changed at any time before ``start``."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.edge_address, self.inside_address = loopback(), loopback()
        nodes = Nodes(inside=Node(address=self.inside_address), edge=Node(address=self.edge_address))
        self.site = Site(root, SiteSettings(domain=DOMAIN, hosted_domains=(OTHER,), nodes=nodes), {"edge": settings})
        root.mkdir(exist_ok=True)
        self.authority = Authority([self.edge_address, self.inside_address])
        self.site.ca_file.write_bytes(self.authority.pem())
        create_keys(root)
        self.directory = Directory()
        self.targets: dict[str, Target] = {}
        self.edge_bus, self.inside_bus = Bus(), Bus()
        self.changes: asyncio.Queue[TunnelChanged] = asyncio.Queue()
        self.inside_bus.subscribe(TunnelChanged, self._changed)
        self.edge = self.make_edge()
        self.inside = self.make_inside()

    async def _changed(self, fact: TunnelChanged) -> None:
        self.changes.put_nowait(fact)

    def make_edge(self) -> EdgeNodeService:
        self.edge = EdgeNodeService(site=self.site, bus=self.edge_bus)
        return self.edge

    def make_inside(self) -> EdgeInsideService:
        self.inside = EdgeInsideService(
            site=self.site,
            bus=self.inside_bus,
            signer=self.authority,
            verifier=self.directory,
            internal_srv=internal_srv,
            targets=self.targets,
            media=[(self.inside_address, 26384)],
        )
        return self.inside

    async def start(self) -> None:
        await self.edge.start()
        self.make_inside()
        await self.inside.start()
        await self.certified()

    async def certified(self) -> None:
        """Waits until the tunnel is up and the edge has its certificate."""
        async with asyncio.timeout(20):
            while not (await self.changes.get()).up:
                pass
            await self.inside.settled()
            while self.edge.certificate.context is None:
                await asyncio.sleep(0)
                await self.inside.settled()

    async def stop(self) -> None:
        await self.inside.stop()
        await self.edge.stop()

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.site.ca_file))

    @property
    def https_port(self) -> int:
        return self.site.settings.ports.bind(8443)

    async def connect(self, port: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TLS connection to the edge."""
        return await asyncio.open_connection(
            self.edge_address, port or self.https_port, ssl=self.tls(), server_hostname=f"edge.{DOMAIN}"
        )

    async def raw(self, request: bytes, *, port: int | None = None) -> bytes:
        """Sends bytes, returns everything until the edge closes."""
        reader, writer = await self.connect(port)
        try:
            writer.write(request)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()


class Upstream:
    """A server inside, on a Unix socket: keeps what arrives, answers what the test says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: inner\r\n\r\nhello"
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path), limit=1 << 20)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                self.bodies.append(await self._body(head.lower(), reader))
                writer.write(self.answer)
                await writer.drain()
        writer.close()

    async def _body(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return await reader.readexactly(int(line.split(b":")[1]))
        if b"transfer-encoding: chunked" not in head:
            return b""
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return body


@pytest.fixture
def make_house(tmp_path: Path) -> Callable[..., House]:
    def make(settings: Settings | None = None) -> House:
        return House(tmp_path / "site", settings or Settings())

    return make


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Both halves, not yet started."""
    house = House(tmp_path / "site", Settings())
    yield house
    await house.stop()


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    server = Upstream(tmp_path / "up")
    await server.start()
    yield server
    await server.stop()
