"""UDS over real HTTPS: documents, who may read them, codes, hostile input."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import httpx
import pytest

from moim import directory, settings
from moim.bus import Bus
from moim.model import CertificateChanged
from moim.store import Store

PASSWORD = "correct horse"
ALICE = ("alice@example.com", PASSWORD)


async def get(uds: httpx.AsyncClient, path: str, auth: tuple[str, str] | None = None) -> Element:
    answer = await uds.get(path, auth=auth) if auth else await uds.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/xml")
    assert answer.content.startswith(b'<?xml version="1.0" encoding="UTF-8"')
    return fromstring(answer.content)


async def test_version_and_servers(uds: httpx.AsyncClient, service: directory.Service) -> None:
    base = f"https://inside.example.com:{service.port}/cucm-uds"
    version = await get(uds, "/cucm-uds/version")
    assert version.tag == "versionInformation"
    assert version.get("uri") == f"{base}/version"
    assert version.findtext("version") == "11.5.1"
    assert version.findtext("capabilities/usersResourceAuthEnabled") == "true"
    servers = await get(uds, "/cucm-uds/servers")
    assert [one.text for one in servers.findall("server")] == ["inside.example.com"]


@pytest.mark.parametrize(
    "query",
    [
        "username=alice",
        "username=ALICE@example.com",
        "email=a.kim@example.com",
        "email=alice@example.com",
        "useridentifier=alice",
        "useridentifier=A.Kim@Example.com",
    ],
)
async def test_cluster_user_found(uds: httpx.AsyncClient, service: directory.Service, query: str) -> None:
    found = await get(uds, f"/cucm-uds/clusterUser?{query}")
    base = f"https://inside.example.com:{service.port}/cucm-uds"
    result = found.find("result")
    assert result is not None
    assert (result.get("found"), result.get("uri")) == ("true", f"{base}/user/alice")
    home = found.find("homeCluster")
    assert home is not None
    assert (home.text, home.get("serversUri")) == ("inside.example.com", f"{base}/servers")
    assert found.find("homeClusterDetails/selfProvisioningSecureMode") is not None


@pytest.mark.parametrize("query", ["username=nobody", "username=alice@other.org", "email=x", "username=%00%25"])
async def test_cluster_user_not_found(uds: httpx.AsyncClient, query: str) -> None:
    found = await get(uds, f"/cucm-uds/clusterUser?{query}")
    result = found.find("result")
    assert result is not None
    assert result.get("found") == "false"
    assert found.find("homeCluster") is None


async def test_cluster_user_hides_who_is_disabled(uds: httpx.AsyncClient, service: directory.Service) -> None:
    await service.users.update("alice@example.com", {"disabled": True})
    result = (await get(uds, "/cucm-uds/clusterUser?username=alice")).find("result")
    assert result is not None
    assert result.get("found") == "false"
    assert (await uds.get("/cucm-uds/user/alice", auth=ALICE)).status_code == 401


async def test_user_reads_their_own(uds: httpx.AsyncClient, service: directory.Service) -> None:
    for auth in (ALICE, ("alice", PASSWORD)):
        user = await get(uds, "/cucm-uds/user/alice", auth)
    base = f"https://inside.example.com:{service.port}/cucm-uds/user/alice"
    assert user.findtext("displayName") == "Alice <& 김>"
    assert user.findtext("directoryUri") == "alice@example.com"
    assert user.findtext("serviceProfile/uri") == "http://inside.example.com:16970/SPDefault.cnf.xml"
    home = user.find("homeCluster")
    assert home is not None
    assert (home.text, home.get("enableImAndPresence")) == ("true", "true")
    account = user.find("accountType")
    assert account is not None
    assert (account.text, account.get("useLdapAuth")) == ("local", "false")
    links = {name: user.find(name).get("uri") for name in ("devices", "credentials", "extensions")}  # type: ignore[union-attr]
    assert links == {name: f"{base}/{name}" for name in links}
    for link in links.values():
        await get(uds, str(link).replace(f"https://inside.example.com:{service.port}", ""), ALICE)
    assert (await get(uds, f"/cucm-uds/user/{user.findtext('id')}", ALICE)).findtext("userName") == "alice"


async def test_devices(uds: httpx.AsyncClient, service: directory.Service) -> None:
    listed = await get(uds, "/cucm-uds/user/alice/devices", ALICE)
    (device,) = listed.findall("device")
    assert device.findtext("name") == "CSFALICE"
    path = str(device.get("uri")).replace(f"https://inside.example.com:{service.port}", "")
    whole = await get(uds, path, ALICE)
    assert next(whole.iter("uri")).text == "https://inside.example.com:16972/CSFALICE.cnf.xml"
    bob = await service.users.get("bob@example.com")
    (other,) = await service.users.devices(bob)
    assert (await uds.get(f"/cucm-uds/user/alice/device/{other.id}", auth=ALICE)).status_code == 404


@pytest.mark.parametrize("path", ["", "/devices", "/device/1", "/extensions", "/credentials"])
async def test_only_the_user_reads_what_is_theirs(uds: httpx.AsyncClient, path: str) -> None:
    for auth in (None, ("alice", "wrong password"), ("bob", PASSWORD), ("nobody", PASSWORD), ("", "")):
        answer = await (
            uds.get(f"/cucm-uds/user/alice{path}", auth=auth) if auth else uds.get(f"/cucm-uds/user/alice{path}")
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="Cisco Web Services Realm"'


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"\xff:x").decode()])
async def test_unreadable_credentials(uds: httpx.AsyncClient, value: str) -> None:
    answer = await uds.get("/cucm-uds/user/alice", headers={"Authorization": value})
    assert answer.status_code == 401


async def test_locked_account_gets_401(
    uds: httpx.AsyncClient, service: directory.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.users.sign_in, "_clock", lambda: 1000.0)  # the lock lasts as long as this test
    for _ in range(5):
        assert (await uds.get("/cucm-uds/user/alice", auth=("alice", "wrong password"))).status_code == 401
    assert (await uds.get("/cucm-uds/user/alice", auth=ALICE)).status_code == 401
    elsewhere = await uds.get("/cucm-uds/user/alice", auth=ALICE, headers={"X-Forwarded-For": "192.0.2.7"})
    assert elsewhere.status_code == 200
    history = await get(uds, "/cucm-uds/user/bob/credentials", ("bob", PASSWORD))
    assert history.findtext("credential/lastSuccessfulLogin") != ""


async def test_search(uds: httpx.AsyncClient, service: directory.Service) -> None:
    for number in range(70):
        await service.users.add(f"user{number}@example.com", last_name="Lee", phone=f"+82 2 {number:03}")
    assert (await uds.get("/cucm-uds/users?last=Lee")).status_code == 401
    found = await get(uds, "/cucm-uds/users?last=lee", ALICE)
    counts = [found.get(name) for name in ("start", "requestedCount", "returnedCount", "totalCount")]
    assert counts == ["0", "64", "64", "70"]
    found = await get(uds, "/cucm-uds/users?last=lee&start=60&max=9999", ALICE)
    counts = [found.get(name) for name in ("start", "requestedCount", "returnedCount", "totalCount")]
    assert counts == ["60", "500", "10", "70"]
    found = await get(uds, "/cucm-uds/users?numberLast=042", ALICE)
    assert [one.findtext("userName") for one in found.findall("user")] == ["user42"]
    found = await get(uds, "/cucm-uds/users?uri=sip:bob@example.com", ALICE)
    assert [one.findtext("displayName") for one in found.findall("user")] == ["Bob Park"]
    assert (await uds.get("/cucm-uds/users?start=x", auth=ALICE)).status_code == 400


async def test_change_own_password(uds: httpx.AsyncClient) -> None:
    body = '<credentials><credential type="password">brand &amp; new</credential></credentials>'
    path = "/cucm-uds/user/alice/credentials"
    assert (await uds.put(path, content=body, auth=ALICE)).status_code == 415
    headers = {"Content-Type": "application/xml"}
    assert (await uds.put(path, content=body, headers=headers)).status_code == 401
    assert (await uds.put(path, content=body, headers=headers, auth=ALICE)).status_code == 204
    assert (await uds.get(path, auth=ALICE)).status_code == 401
    assert (await uds.get(path, auth=("alice", "brand & new"))).status_code == 200


BOMB = (
    '<!DOCTYPE c [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    '<credentials><credential type="password">&b;</credential></credentials>'
)


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        "<credentials>" + "<credential>" * 100,
        "<a>" * 100 + "</a>" * 100,
        "<credentials/>",
        '<credentials><credential type="pin">12345678</credential></credentials>',
        '<credentials><credential type="password">short</credential></credentials>',
        "x" * 20_000,
        "",
    ],
)
async def test_hostile_bodies_are_refused(uds: httpx.AsyncClient, body: str) -> None:
    headers = {"Content-Type": "text/xml"}
    answer = await uds.put("/cucm-uds/user/alice/credentials", content=body, headers=headers, auth=ALICE)
    assert answer.status_code == 400
    fromstring(answer.content)
    assert (await uds.get("/cucm-uds/user/alice", auth=ALICE)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/cucm-uds/nothing", 404),
        ("GET", "/", 404),
        ("POST", "/cucm-uds/version", 405),
        ("DELETE", "/cucm-uds/user/alice", 405),
        ("GET", "/cucm-uds/clusterUser", 400),
    ],
)
async def test_codes(uds: httpx.AsyncClient, method: str, path: str, code: int) -> None:
    answer = await uds.request(method, path)
    assert answer.status_code == code
    assert fromstring(answer.content).findtext("error/code") == str(code)


async def test_single_sign_on_probe_and_options(uds: httpx.AsyncClient) -> None:
    probe = await get(uds, "/ssosp/ws/public/singleSignOn")
    status = probe.find("SingleSignOn/Status")
    assert status is not None
    assert (probe.tag, status.get("enabled")) == ("Response", "false")
    options = await get(uds, "/cucm-uds/options")
    assert options.find("installedLocales") is not None
    locales = await get(uds, "/cucm-uds/options/installedLocales")
    assert "ko_KR" in [one.text for one in locales.iter("value")]


async def test_health_and_reload(uds: httpx.AsyncClient, service: directory.Service, bus: Bus, files: object) -> None:
    (status,) = service.health()
    assert (status.name, status.transport, status.port, status.state) == ("uds", "https", service.port, "running")
    files.key.write_text("broken")  # type: ignore[attr-defined]
    await bus.publish(CertificateChanged("tomcat"))
    assert (await uds.get("/cucm-uds/version", headers={"Connection": "close"})).status_code == 200
    await service.stop()
    assert service.health()[0].state == "stopped"


async def test_people_of_another_domain_are_named_by_their_address(
    tmp_path: Path, store: Store, bus: Bus, files: Any
) -> None:
    (tmp_path / "moim.toml").write_text('hosted_domains = ["example.net"]\ndomain = "example.com"\n')
    site = settings.load(tmp_path, {"directory": directory.Settings})
    service = directory.Service(site, store, bus, credential=lambda _: files)
    await service.users.add("alice@example.com", "of the first")
    await service.users.add("alice@example.net", "of the other")
    transport = httpx.ASGITransport(service.uds.app)
    async with httpx.AsyncClient(transport=transport, base_url="https://inside.example.com") as client:
        for email, name in (("alice@example.com", "alice"), ("alice@example.net", "alice%40example.net")):
            result = (await get(client, f"/cucm-uds/clusterUser?email={email}")).find("result")
            assert result is not None
            assert str(result.get("uri")).endswith(f"/user/{name}")
        other = ("alice@example.net", "of the other")
        for path in ("alice%40example.net", "alice"):
            user = await get(client, f"/cucm-uds/user/{path}", other)
            assert (user.findtext("userName"), user.findtext("directoryUri")) == ("alice@example.net",) * 2
        assert (await client.get("/cucm-uds/user/alice", auth=("alice", "of the other"))).status_code == 401
        assert (await client.get("/cucm-uds/user/alice%40example.com", auth=other)).status_code == 401
