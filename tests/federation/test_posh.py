"""POSH: documents and their bounds, for how long they hold, and how they come over real HTTPS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import NotFound
from moim.federation import posh
from moim.federation.chains import Anchors
from moim.federation.fetching import Fetcher
from moim.federation.guard import Guard
from moim.federation.locating import Locator
from moim.federation.policies import Policy
from moim.federation.posh import PATH, Posh
from moim.federation.proofs import Proofs
from peer_certificates import Made, authority, leaf
from s2s_network import FakeDns

HERE = f"b.example{PATH}"
MADE = leaf(["x"])


def document(made: Made, **more: Any) -> bytes:
    digest = base64.b64encode(hashlib.sha256(made.der).digest()).decode()
    return json.dumps({"fingerprints": [{"sha-256": digest}], "expires": 3600} | more).encode()


def leading(url: str, expires: int = 3600) -> bytes:
    return json.dumps({"url": url, "expires": expires}).encode()


class Web:
    """What web servers say, by host and path; and a clock."""

    def __init__(self, **documents: bytes) -> None:
        self.documents = documents
        self.asked: list[str] = []
        self.now = 0.0
        self.posh = Posh(self._fetch, clock=lambda: self.now)

    async def _fetch(self, host: str, path: str) -> bytes:
        self.asked.append(f"{host}{path}")
        if self.asked[-1] not in self.documents:
            raise NotFound("not there")
        return self.documents[self.asked[-1]]

    async def proves(self, made: Made = MADE) -> str:
        return await self.posh.prove("b.example", made.der)


async def test_a_document_stands_for_a_certificate() -> None:
    assert not await Web(**{HERE: document(MADE)}).proves()
    assert "another certificate" in await Web(**{HERE: document(leaf(["x"]))}).proves()
    assert "vouches for nothing (not there)" in await Web().proves()
    assert "its POSH document is not JSON" in await Web(**{HERE: b"?"}).proves()


async def test_a_document_may_lead_to_one_other() -> None:
    there = leading("https://hoster.example/posh.json?for=b")
    assert not await Web(**{HERE: there, "hoster.example/posh.json?for=b": document(MADE)}).proves()
    assert "on and on" in await Web(**{HERE: there, "hoster.example/posh.json?for=b": there}).proves()
    for url in ("http://hoster.example/x", "https://hoster.example:8443/x", "https:///x", "file:///etc/passwd"):
        assert "not HTTPS" in await Web(**{HERE: leading(url)}).proves()


async def test_a_document_is_remembered_for_as_long_as_it_says() -> None:
    web = Web(**{HERE: document(MADE, expires=100)})
    for _ in range(3):
        assert not await web.proves()
    assert len(web.asked) == 1
    renewed = leaf(["x"])
    web.documents[HERE] = document(renewed, expires=10**9)
    assert not await web.proves(renewed), "a certificate that it does not know is asked about"
    assert await web.proves(), "and the old one is no longer right"
    web.now += 24 * 3600
    web.documents.clear()
    assert await web.proves(renewed), "nothing is remembered for longer than a day"


async def test_the_shorter_time_of_two_documents_counts() -> None:
    there = "hoster.example/posh.json"
    for first, second in ((10, 1000), (1000, 10)):
        web = Web(**{HERE: leading(f"https://{there}", first), there: document(MADE, expires=second)})
        assert not await web.proves()
        web.now += 11
        web.documents.clear()
        assert await web.proves()


async def test_not_everything_is_remembered() -> None:
    async def fetch(host: str, path: str) -> bytes:
        return document(MADE)

    found = Posh(fetch)
    for number in range(1100):
        assert not await found.prove(f"{number}.example", MADE.der)
    assert len(found._remembered) == 1000


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"fingerprints": []}', b'{"expires": 0, "fingerprints": []}', b"[" * 100_000,
        b'{"expires": true, "fingerprints": []}', b'{"expires": 1, "fingerprints": [{"sha-256": "?"}]}',
        b'{"expires": 1, "fingerprints": [], "url": "https://x"}', b" " * 70_000,
    ],
)  # fmt: skip
def test_posh_documents_that_are_none(body: bytes) -> None:
    with pytest.raises(ValueError):
        posh.read(body)


@given(st.binary(max_size=200))
def test_any_posh_document_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        posh.read(body)


# --- over real HTTPS --------------------------------------------------------------------------------------------------


class WebServer:
    """An HTTPS server for the hosts that its certificate names. ``pages`` are whole answers by host and path."""

    def __init__(self, folder: Path, made: Made) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: list[str] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (folder / "web.pem").write_bytes(made.chain_pem + made.key_pem)
        self._tls.load_cert_chain(folder / "web.pem")

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            host = next(line for line in head.splitlines() if line.startswith("Host: ")).split()[1].partition(":")[0]
            self.asked.append(host + head.split()[1])
            writer.write(self.pages.get(self.asked[-1], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
            await writer.drain()
        writer.close()

    def put(self, place: str, body: bytes, status: str = "200 OK", more: str = "") -> None:
        self.pages[place] = f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def stop(self) -> None:
        self._server.close()


class House:
    """A web server for b.example and hoster.example, and what judges by it."""

    def __init__(self, web: WebServer, dns: FakeDns, root: Made, port: int, *, allowed: str = "127.0.0.0/8") -> None:
        self.web, self.dns = web, dns
        trusting = ssl.create_default_context(cadata=root.chain_pem.decode())
        guard = Guard([allowed], lambda: [("127.0.0.1", 5269)])
        self.fetcher = Fetcher(dns, guard, trusting, port=port)
        self.proofs = Proofs(Anchors([]), dns=None, locator=Locator(dns, guard), fetch=self.fetcher)

    async def judge(self, domain: str = "b.example", made: Made = MADE) -> str:
        """What is wrong; empty when the web server vouches for the certificate."""
        rules = Policy("required", "required", False, True)
        found = await self.proofs.judge(domain, made.chain, "server", rules)
        assert found.proof in (None, "posh")
        return "" if found.proof == "posh" else found.reason


ROOT = authority("The web's authority")


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[tuple[WebServer, FakeDns, int]]:
    server = WebServer(tmp_path, leaf(["b.example", "hoster.example"], ROOT))
    port = await server.start()
    dns = FakeDns()
    for host in ("b.example", "c.example", "hoster.example"):
        dns.hosts[host] = ["127.0.0.1"]
    yield server, dns, port
    server.stop()


@pytest.fixture
async def house(web: tuple[WebServer, FakeDns, int]) -> AsyncIterator[House]:
    server, dns, port = web
    made = House(server, dns, ROOT, port)
    yield made
    await made.fetcher.aclose()


async def test_a_web_server_vouches_for_a_certificate(house: House) -> None:
    house.web.put(HERE, document(MADE))
    assert not await house.judge()
    assert not await house.judge()
    assert house.web.asked == [HERE], "once is enough while it holds"
    assert "names another certificate" in await house.judge(made=leaf(["b.example"]))


async def test_it_may_send_to_another_web_server(house: House) -> None:
    house.web.put(HERE, leading("https://hoster.example/certificates/b.json"))
    house.web.put("hoster.example/certificates/b.json", document(MADE))
    assert not await house.judge()
    assert house.web.asked == [HERE, "hoster.example/certificates/b.json"]


async def test_answers_that_are_no_documents(house: House) -> None:
    assert "answered 404" in await house.judge()
    house.web.put(HERE, b"", "302 Found", "Location: https://hoster.example/x\r\n")
    house.web.put("hoster.example/x", document(MADE))
    assert "answered 302" in await house.judge(), "a document says where else to look, HTTP does not"
    house.web.put(HERE, document(MADE, padding=" " * posh.MAX_DOCUMENT))
    assert f"sent more than {posh.MAX_DOCUMENT} bytes" in await house.judge()
    house.web.put(HERE, b"<html>")
    assert "is not JSON" in await house.judge()
    house.web.pages[HERE] = b"SSH-2.0-x\r\n\r\n"
    assert "broke the protocol" in await house.judge()


async def test_the_web_server_has_to_be_the_domains(house: House, web: tuple[WebServer, FakeDns, int]) -> None:
    house.web.put(f"c.example{PATH}", document(MADE))
    assert "vouches for nothing" in await house.judge("c.example"), "its certificate is for others"
    stranger = House(web[0], web[1], authority("Another one"), web[2])
    house.web.put(HERE, document(MADE))
    assert "vouches for nothing" in await stranger.judge(), "nobody that is trusted signed its certificate"
    assert not house.web.asked
    await stranger.fetcher.aclose()


async def test_web_servers_inside_are_not_asked(house: House, web: tuple[WebServer, FakeDns, int]) -> None:
    careful = House(web[0], web[1], ROOT, web[2], allowed="192.0.2.0/24")
    house.web.put(HERE, document(MADE))
    assert "https://b.example has no address that may be connected to" in await careful.judge()
    assert not house.web.asked
    await careful.fetcher.aclose()
    for inside in ("::1", "169.254.169.254", "10.0.0.1", "127.0.0.1"):
        house.dns.hosts[inside] = [inside]
        house.web.put(HERE, leading(f"https://[{inside}]/x" if ":" in inside else f"https://{inside}/x"))
        assert "vouches for nothing" in await house.judge()
    house.dns.hosts["hoster.example"] = ["10.0.0.1"]
    house.web.put(HERE, leading("https://hoster.example/x"))
    assert "https://hoster.example has no address that may be connected to" in await house.judge()
    assert set(house.web.asked) == {HERE}
