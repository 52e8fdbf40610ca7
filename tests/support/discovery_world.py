"""A world for discovery on real sockets: a name server, TLS servers of a test authority, an edge, XMPP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import itertools
import re
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from moim import names
from moim.discovery import Outcome, discover
from moim.net.http_server import HttpServer
from moim.net.tls import ServerTls
from moim.proto import mra
from moim.proto.xmpp.scram import Outcome as ScramOutcome
from moim.proto.xmpp.scram import ScramServer, make_verifier
from moim.settings import Site, SiteSettings

DOMAIN = "example.test"
ALICE = f"alice@{DOMAIN}"
PASSWORD = "비밀 secret"
_numbers = itertools.count(1)


class Authority:
    """A certificate authority for one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test authority {root.name}")])
        certificate = self._sign(self.name, self.key.public_key(), x509.BasicConstraints(True, None), [], 30)
        self.file = root / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject: x509.Name, key: Any, basic: Any, hosts: list[str], days: int) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(basic, critical=True)
        )
        if hosts:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *hosts: str, days: int = 30) -> ServerTls:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        certificate = self._sign(subject, key.public_key(), x509.BasicConstraints(False, None), list(hosts), days)
        chain, private = self.root / f"{next(_numbers)}.pem", self.root / f"{next(_numbers)}.key"
        chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return ServerTls(chain, private)


def xml(text: str, status: int = 200) -> Response:
    return Response(text, status, media_type="application/xml")


def uds_app(seen: list[str]) -> Starlette:
    host = f"inside.{DOMAIN}"
    base = f"https://{host}:18443/cucm-uds"

    async def cluster_user(request: Request) -> Response:
        found = request.query_params.get("username") == "alice"
        home = f'<homeCluster serversUri="{base}/servers">{host}</homeCluster>' if found else ""
        return xml(f'<clusterUser><result found="{str(found).lower()}" uri="{base}/user/alice"/>{home}</clusterUser>')

    async def own(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if given != "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode():
            return xml("<errors/>", 401)
        if request.url.path.endswith("/devices"):
            return xml("<devices><device><name>CSFALICE</name></device></devices>")
        profile = f"<serviceProfile><uri>http://{host}:16970/SPDefault.cnf.xml</uri></serviceProfile>"
        return xml(f"<user><userName>alice</userName><displayName>앨리스</displayName>{profile}</user>")

    async def note(request: Request) -> Response:
        seen.append(request.url.path)
        answer = {
            "/cucm-uds/servers": f"<servers><server>{host}</server></servers>",
            "/cucm-uds/version": "<versionInformation><version>11.5.1</version></versionInformation>",
        }[request.url.path]
        return xml(answer)

    return Starlette(
        routes=[
            Route("/cucm-uds/clusterUser", cluster_user),
            Route("/cucm-uds/servers", note),
            Route("/cucm-uds/version", note),
            Route("/cucm-uds/user/alice", own),
            Route("/cucm-uds/user/alice/devices", own),
        ]
    )


def config_app(port: str = "<PrimaryPort>15222</PrimaryPort>") -> Starlette:
    async def profile(_: Request) -> Response:
        return xml(
            "<ServiceProfile><IMandPresence><ProductType>Unified CM (IM and Presence)</ProductType>"
            f"<PrimaryAddress>inside.{DOMAIN}</PrimaryAddress>{port}</IMandPresence></ServiceProfile>"
        )

    return Starlette(routes=[Route("/SPDefault.cnf.xml", profile)])


class Xmpp:
    """As much of an XMPP server as a sign-in needs, with SCRAM-SHA-256 under STARTTLS or direct TLS."""

    def __init__(self, tls: ssl.SSLContext, *, direct: bool = False, starttls: bool = True) -> None:
        self._tls = tls
        self._direct = direct
        self._starttls = starttls
        self._server: asyncio.Server | None = None
        self.sign_ins = 0

    async def start(self, address: str, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, address, port, ssl=self._tls if self._direct else None)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def until(end: bytes) -> str:
            return (await reader.readuntil(end)).decode()

        async def opened(features: str) -> None:
            while not re.search(r"<(stream:)?stream\b[^>]*>$", await until(b">")):
                pass
            writer.write(
                b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0'"
                b" xmlns:stream='http://etherx.jabber.org/streams' id='x' from='example.test'><stream:features>"
                + features.encode()
                + b"</stream:features>"
            )

        if not self._direct:
            await opened("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" if self._starttls else "")
            await until(b"/>")
            writer.write(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            await writer.start_tls(self._tls)
        sasl = "urn:ietf:params:xml:ns:xmpp-sasl"
        await opened(f"<mechanisms xmlns='{sasl}'><mechanism>SCRAM-SHA-256</mechanism></mechanisms>")
        scram = ScramServer("SCRAM-SHA-256", nonce="server", plus=False, plus_offered=False, bindings={})
        scram.first(base64.b64decode(re.sub("<[^>]*>", "", await until(b"</auth>"))))
        challenge = scram.challenge(make_verifier("SCRAM-SHA-256", PASSWORD, b"salt" * 4, 4096))
        writer.write(f"<challenge xmlns='{sasl}'>{base64.b64encode(challenge).decode()}</challenge>".encode())
        result, data = scram.final(base64.b64decode(re.sub("<[^>]*>", "", await until(b"</response>"))))
        if result is not ScramOutcome.ACCEPTED:
            writer.write(f"<failure xmlns='{sasl}'><not-authorized/></failure>".encode())
            return
        writer.write(f"<success xmlns='{sasl}'>{base64.b64encode(data).decode()}</success>".encode())
        await opened("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")
        await until(b"</iq>")
        jid = f"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>{scram.username}@{DOMAIN}/desk</jid></bind>"
        writer.write(f"<iq type='result' id='bind'>{jid}</iq>".encode())
        self.sign_ins += 1
        await reader.read()


@dataclass
class Live:
    """A site of name servers on two loopback addresses of its own; servers are put beside them by the tests."""

    authority: Authority
    inside: str
    edge: str
    dns: dict[str, tuple[str, int]] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    seen: list[str] = field(default_factory=list)

    async def names(self, **section: object) -> None:
        nodes = {"inside": {"address": self.inside}, "edge": {"address": self.edge}}
        settings = SiteSettings.model_validate({"domain": DOMAIN, "nodes": nodes})
        site = Site(self.authority.root, settings, {"names": names.Settings.model_validate(section)})
        for view, node in (("inside", "inside"), ("outside", "edge")):
            service = names.Service(site, view=view, node=node)  # type: ignore[arg-type]
            await service.start()
            self.stack.push_async_callback(service.stop)
            self.dns[view] = (service.health()[0].address, service.port)

    async def http(self, app: Any, address: str, port: int, *hosts: str, days: int = 30) -> None:
        tls = self.authority.issue(*hosts, days=days) if hosts else None
        server = HttpServer(app, address=address, port=port, tls=tls)
        await server.start()
        self.stack.push_async_callback(server.stop)

    async def xmpp(self, address: str, port: int, **options: bool) -> Xmpp:
        server = Xmpp(self.authority.issue(DOMAIN).context, **options)
        await server.start(address, port)
        self.stack.push_async_callback(server.stop)
        return server

    async def furnish(self, **config: str) -> Xmpp:
        host = f"inside.{DOMAIN}"
        await self.names()
        await self.http(uds_app(self.seen), self.inside, 18443, host)
        await self.http(config_app(**config), self.inside, 16972, host)
        return await self.xmpp(self.inside, 15222)

    async def discover(self, view: str = "inside", password: str | None = PASSWORD, **options: Any) -> Outcome:
        options = {"dns": [self.dns[view]], "ca": self.authority.file, "timeout": 30, **options}
        return await discover(ALICE, password=password, **options)


class EdgeApp:
    """The edge of the test: configuration and proxied requests, answered by the UDS and configuration apps."""

    def __init__(self, seen: list[str]) -> None:
        self.inner = {18443: uds_app(seen), 16972: config_app()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        basic = "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
        if request.headers.get("authorization") != basic:
            await Response(status_code=401, headers={"Server": mra.SERVER_INSIDE})(scope, receive, send)
            return
        if request.url.path.endswith("/get_edge_config"):
            config = mra.EdgeConfig(
                services=(mra.Service("_cisco-uds", (mra.Srv(0, 0, 18443, f"inside.{DOMAIN}"),)),),
                xmpp=(mra.EdgeServer(f"edge.{DOMAIN}", 15222),),
            )
            expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
            cookie = mra.EdgeCookie("token", expires, DOMAIN).set_cookie()
            reply = Response(mra.build_edge_config(config), headers={"Set-Cookie": cookie})
            await reply(scope, receive, send)
            return
        assert mra.read_cookie(request.headers["cookie"]) == "token"
        target = mra.parse_proxied_path(f"{request.url.path}?{request.url.query}")
        path, _, query = target.path.partition("?")
        assert (target.domain, target.host) == (DOMAIN, f"inside.{DOMAIN}")
        inner = dict(scope, path=path, raw_path=path.encode(), query_string=query.encode())
        await self.inner[target.port](inner, receive, send)
