"""Sign-in through the edge and proxied HTTPS, by httpx through the real tunnel."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from moim.edge import Settings
from moim.edge.settings import MraSettings
from moim.model import Address, UserChanged, UserRemoved
from moim.net.http_server import HttpServer
from moim.net.tls import ServerTls
from moim.proto import mra

from .conftest import House, Upstream

ALICE = ("alice", "secret")
TOKEN = mra.encode_token("moim.test")


class Uds:
    """A server inside that tells what it was asked."""

    def __init__(self, house: House, folder: Path, names: list[str]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "uds.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / "uds.pem").write_bytes(house.authority.issue(key.public_key(), names))
        self.requests: list[Request] = []
        app = Starlette(
            routes=[
                Route("/cucm-uds/big", self._big),
                Route("/{path:path}", self._answer, methods=["GET", "PUT", "POST", "DELETE"]),
            ]
        )
        self.server = HttpServer(
            app,
            address=house.inside_address,
            port=house.site.settings.ports.bind(8443),
            tls=ServerTls(folder / "uds.pem", folder / "uds.key"),
        )

    async def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        body = await request.body()
        return JSONResponse({"path": request.url.path, "query": request.url.query, "body": body.decode()})

    async def _big(self, _request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(10_000)

        return StreamingResponse(chunks())


@pytest.fixture
async def uds(house: House, tmp_path: Path) -> AsyncIterator[Uds]:
    uds = Uds(house, tmp_path, ["inside.moim.test"])
    await uds.server.start()
    yield uds
    await uds.server.stop()


@contextlib.asynccontextmanager
async def _client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    context = ssl.create_default_context(cafile=str(house.site.ca_file))
    base = f"https://{house.edge_address}:{house.https_port}"
    async with httpx.AsyncClient(verify=context, base_url=base, trust_env=False) as client:
        yield client


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx.AsyncClient]:
    await house.start()
    async with _client(house) as client:
        yield client


def proxied(house: House, path: str, *, scheme: str = "https", host: str = "inside.moim.test", port: int = 8443) -> str:
    return mra.proxied_path("moim.test", scheme, host, house.site.settings.ports.bind(port), path)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_edge_configuration(client: httpx.AsyncClient, house: House, slash: str) -> None:
    answer = await client.get(
        f"/{TOKEN}/get_edge_config{slash}?service_name=_cisco-uds&service_name=_cuplogin&service_name=_evil", auth=ALICE
    )
    assert answer.status_code == 200
    assert answer.headers["server"] == "CE_C ECS"
    config = mra.parse_edge_config(answer.content)
    uds, cup, evil = (config.service(name) for name in ("_cisco-uds", "_cuplogin", "_evil"))
    assert uds is not None
    assert uds.servers == (mra.Srv(10, 20, 18443, "inside.moim.test"),)
    assert cup is not None
    assert cup.error == "NameError"
    assert evil is not None
    assert evil.error == "NameError"
    assert config.http == (mra.EdgeServer("edge.moim.test", 18443),)
    assert config.xmpp == (mra.EdgeServer("edge.moim.test", 15222),)
    assert config.user_uds == (mra.EdgeServer("inside.moim.test", 18443),)
    assert house.directory.asked == [("alice@moim.test", "127.0.0.1")]


async def test_the_cookie_is_one_that_clients_take(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/{TOKEN}/get_edge_config", auth=ALICE)
    header = answer.headers["set-cookie"]
    for part in ("Domain=.moim.test", "Path=/", "Secure", "HttpOnly", "Expires="):
        assert part in header
    value = mra.read_cookie(header.split(";")[0])
    assert len(value) == 36
    other = await client.get(f"/{TOKEN}/get_edge_config", auth=ALICE)
    assert mra.read_cookie(other.headers["set-cookie"].split(";")[0]) != value


@pytest.mark.parametrize(
    "auth",
    [None, ("alice", "wrong"), ("bob", "secret"), ("alice@other.example", "secret"), ("", "secret"), ("alice", "")],
)
async def test_wrong_credentials_are_challenged(client: httpx.AsyncClient, auth: tuple[str, str] | None) -> None:
    answer = await client.get(f"/{TOKEN}/get_edge_config", auth=auth)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="Cisco-Edge"'
    assert answer.headers["server"] == "CE_C ECS"
    assert "set-cookie" not in answer.headers


async def test_an_address_signs_in_too(client: httpx.AsyncClient) -> None:
    assert (await client.get(f"/{TOKEN}/get_edge_config", auth=("Alice@moim.test", "secret"))).status_code == 200


@pytest.mark.parametrize("path", ["get_edge_config", "get_edge_config/", "get_edge_sso"])
async def test_other_domains_are_refused_at_the_border(client: httpx.AsyncClient, house: House, path: str) -> None:
    answer = await client.get(f"/{mra.encode_token('other.example')}/{path}", auth=ALICE)
    assert (answer.status_code, answer.headers["server"]) == (403, "CE_E")
    assert not house.directory.asked


async def test_single_sign_on_is_answered_with_no(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/{TOKEN}/get_edge_sso?email=alice@moim.test")
    assert answer.status_code == 200
    assert b'enabled="false"' in answer.content


async def test_proxied_requests_need_a_session_or_credentials(
    client: httpx.AsyncClient, house: House, uds: Uds
) -> None:
    path = proxied(house, "/cucm-uds/version?x=1")
    assert (await client.get(path)).status_code == 401
    assert (
        await client.get(path, headers={"Cookie": "X-Auth=00000000-0000-4000-8000-000000000000"})
    ).status_code == 401
    assert (await client.get(path, auth=ALICE)).json() == {"path": "/cucm-uds/version", "query": "x=1", "body": ""}
    cookie = mra.read_cookie((await client.get(f"/{TOKEN}/get_edge_config", auth=ALICE)).headers["set-cookie"])
    answer = await client.get(path, headers={"Cookie": f"a=b; X-Auth={cookie}"})
    assert answer.status_code == 200
    wrong = await client.get(path, headers={"Cookie": f"X-Auth={cookie}"}, auth=("alice", "guess"))
    assert wrong.status_code == 401
    assert len(uds.requests) == 2
    first, second = uds.requests
    assert first.headers["authorization"].startswith("Basic ")
    assert first.headers["host"] == "inside.moim.test:18443"
    assert second.headers["cookie"] == "a=b"
    assert second.headers["x-forwarded-for"] == "127.0.0.1"


async def test_people_of_another_hosted_domain(client: httpx.AsyncClient, house: House, uds: Uds) -> None:
    other = mra.encode_token("other.test")
    for name in ("alice", "alice@other.test"):
        answer = await client.get(f"/{other}/get_edge_config?service_name=_cisco-uds", auth=(name, "theirs"))
        assert answer.status_code == 200
        found = mra.parse_edge_config(answer.content).service("_cisco-uds")
        assert found is not None
        assert found.servers == (mra.Srv(10, 20, 18443, "inside.moim.test"),)
    assert (await client.get(f"/{other}/get_edge_config", auth=ALICE)).status_code == 401
    assert (await client.get(f"/{TOKEN}/get_edge_config", auth=("alice", "theirs"))).status_code == 401
    port = house.site.settings.ports.bind(8443)
    path = mra.proxied_path("other.test", "https", "inside.moim.test", port, "/cucm-uds/user/alice")
    assert (await client.get(path, auth=("alice", "theirs"))).status_code == 200
    said = base64.b64decode(uds.requests[-1].headers["authorization"].removeprefix("Basic "))
    assert said == b"alice@other.test:theirs"


async def test_bodies_are_carried(client: httpx.AsyncClient, house: House, uds: Uds) -> None:
    path = proxied(house, "/cucm-uds/user/alice")
    assert (await client.put(path, auth=ALICE, content=b"x" * 5000)).json()["body"] == "x" * 5000

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    assert (await client.put(path, auth=ALICE, content=chunks())).json()["body"] == "onetwo"
    assert (await client.put(path, auth=ALICE, content=b"x" * (1 << 21))).status_code == 413
    assert len((await client.get(proxied(house, "/cucm-uds/big"), auth=ALICE)).content) == 1_000_000


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/", {}),
        ("/admin", {}),
        ("/cucm-uds", {}),
        ("/cucm-uds/version", {"host": "edge.moim.test"}),
        ("/cucm-uds/version", {"host": "evil.example"}),
        ("/cucm-uds/version", {"host": "127.0.0.1"}),
        ("/cucm-uds/version", {"host": "169.254.169.254"}),
        ("/cucm-uds/version", {"port": 443}),
        ("/cucm-uds/version", {"scheme": "http"}),
        ("/cucm-uds/version", {"scheme": "http", "port": 8445}),
    ],
)
async def test_the_proxy_goes_nowhere_else(
    client: httpx.AsyncClient, house: House, uds: Uds, path: str, options: dict[str, Any]
) -> None:
    answer = await client.get(proxied(house, path, **options), auth=ALICE)
    assert answer.status_code == 403
    assert not uds.requests


async def test_the_inside_judges_for_itself(client: httpx.AsyncClient, house: House, uds: Uds) -> None:
    """An edge that is in wrong hands can ask for anything: the allow-list inside is what holds."""
    transport = httpx.AsyncHTTPTransport(uds=str(house.site.run / "edge-mra.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as inner:
        elsewhere: tuple[dict[str, Any], ...] = ({"host": "127.0.0.1"}, {"port": 443}, {"host": "evil.example"})
        for options in elsewhere:
            answer = await inner.get(proxied(house, "/cucm-uds/version", **options), auth=ALICE)
            assert (answer.status_code, answer.headers["server"]) == (403, "CE_E")
        other = mra.proxied_path("other.example", "https", "inside.moim.test", 18443, "/cucm-uds/version")
        assert (await inner.get(other, auth=ALICE)).status_code == 403
        assert (await inner.get(f"/{mra.encode_token('other.example')}/get_edge_config", auth=ALICE)).status_code == 403
        for path in ("/", "/x", "/%ff/y", f"/{TOKEN}/other", "/" + "A" * 2000 + "/get_edge_config"):
            assert (await inner.get(path, auth=ALICE)).status_code == 404
        raw = httpx.Request("GET", "http://edge" + proxied(house, "/cucm-uds/%2e%2e/admin"), headers={"Host": "edge"})
        raw.headers["authorization"] = httpx.BasicAuth(*ALICE)._auth_header
        assert (await inner.send(raw)).status_code == 404
        assert (await inner.delete(proxied(house, "/cucm-uds/x"), auth=ALICE)).status_code == 403
    assert not uds.requests


async def test_a_server_with_another_name_is_not_trusted(house: House, tmp_path: Path) -> None:
    house.authority.addresses = []
    uds = Uds(house, tmp_path, ["other.moim.test"])
    house.authority.addresses = [house.edge_address]
    await uds.server.start()
    await house.start()
    async with _client(house) as client:
        assert (await client.get(proxied(house, "/cucm-uds/version"), auth=ALICE)).status_code == 502
    await uds.server.stop()
    assert not uds.requests


async def test_a_server_that_is_down_is_a_bad_gateway(client: httpx.AsyncClient, house: House) -> None:
    assert (await client.get(proxied(house, "/cucm-uds/version"), auth=ALICE)).status_code == 502


async def test_sessions_end_with_the_user_and_the_password(client: httpx.AsyncClient, house: House, uds: Uds) -> None:
    alice = Address("alice", "moim.test")
    for fact in (UserRemoved(alice), UserChanged(alice, password_changed=True)):
        cookie = mra.read_cookie((await client.get(f"/{TOKEN}/get_edge_config", auth=ALICE)).headers["set-cookie"])
        headers = {"Cookie": f"X-Auth={cookie}"}
        client.cookies.clear()
        assert (await client.get(proxied(house, "/cucm-uds/version"), headers=headers)).status_code == 200
        await house.inside_bus.publish(fact)
        assert (await client.get(proxied(house, "/cucm-uds/version"), headers=headers)).status_code == 401


async def test_responses_have_a_bound(make_house: Callable[..., House], tmp_path: Path) -> None:
    house = make_house(Settings(mra=MraSettings(response_bytes=50_000)))
    uds = Uds(house, tmp_path, ["inside.moim.test"])
    await uds.server.start()
    await house.start()
    async with _client(house) as client:
        with pytest.raises(httpx.HTTPError):
            await client.get(proxied(house, "/cucm-uds/big"), auth=ALICE)
    await uds.server.stop()
    await house.stop()


async def test_rows_that_an_administrator_adds_open_a_way(
    client: httpx.AsyncClient, house: House, upstream: Upstream
) -> None:
    app = Starlette(routes=[Route("/files/x", lambda _request: PlainTextResponse("file"))])
    server = HttpServer(app, address=house.inside_address, port=0)
    await server.start()
    path = mra.proxied_path("moim.test", "http", house.inside_address, server.port, "/files/x")
    assert (await client.get(path, auth=ALICE)).status_code == 403
    await house.inside.replace_manual_rules(
        "Url,Deployment,HttpMethods,MatchType,Description\n"
        f"http://{house.inside_address}:{server.port}/files/,,GET,Prefix,Files\n"
    )
    await house.inside.settled()
    assert (await client.get(path, auth=ALICE)).text == "file"
    await server.stop()
