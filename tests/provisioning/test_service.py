"""Configuration files over real HTTP and HTTPS: what they say, and that nothing else is there."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moim import provisioning, settings
from moim.bus import Bus
from moim.errors import ConfigError, Unavailable
from moim.model import Address
from moim.provisioning import Endpoints, Settings, documents
from moim.settings import Site, SiteSettings
from own_certificate import Files, write_certificate

ENDPOINTS = Endpoints("inside.example.com", uds=18443, xmpp=15222, web=18080, web_scheme="http")


@dataclass(frozen=True)
class Device:
    name: str
    protocol: str = "SIP"


@dataclass(frozen=True)
class Owner:
    address: Address
    disabled: bool = False


class Devices:
    """Alice has a device; so has Mallory, who is disabled."""

    async def device_named(self, name: str) -> tuple[Device, Owner] | None:
        owners = {
            "CSFALICE": Owner(Address("alice", "example.com")),
            "CSFMALLORY": Owner(Address("mallory", "example.com"), disabled=True),
        }
        return (Device(name), owners[name]) if name in owners else None


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_certificate(tmp_path, "inside.example.com")


def site_in(path: Path, text: str = "") -> settings.Site:
    ports = "" if "port =" in text else "port = 0\nhttps_port = 0\n"
    (path / "moim.toml").write_text(f'domain = "example.com"\n[provisioning]\n{ports}{text}')
    return settings.load(path, {"provisioning": provisioning.Settings})


def service_in(path: Path, files: Files, text: str = "") -> provisioning.Service:
    return provisioning.Service(
        site_in(path, text),
        Bus(),
        credential=lambda _: files,
        endpoints=ENDPOINTS,
        devices=Devices(),
        clock=lambda: 0.0,
    )


@pytest.fixture
async def service(tmp_path: Path, files: Files) -> AsyncIterator[provisioning.Service]:
    service = service_in(tmp_path, files)
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
async def plain(service: provisioning.Service) -> AsyncIterator[httpx.AsyncClient]:
    port = service.health()[0].port
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str) -> Element:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/xml"
    return fromstring(answer.content)


async def test_service_profile(plain: httpx.AsyncClient) -> None:
    profile = await get(plain, "/SPDefault.cnf.xml")
    assert [section.tag for section in profile] == [
        "Voicemail",
        "MailStore",
        "Conferencing",
        "Directory",
        "IMandPresence",
        "CTI",
        "VideoConferenceSchedulingPortal",
    ]
    assert profile.findtext("IMandPresence/ProductType") == "Unified CM (IM and Presence)"
    assert profile.findtext("IMandPresence/PrimaryAddress") == "inside.example.com"
    assert profile.findtext("IMandPresence/PrimaryPort") == "15222"
    assert profile.findtext("Directory/UseUDS") == "true"
    assert profile.findtext("Directory/PrimaryPort") == "18443"
    assert profile.findtext("Conferencing/PrimaryProtocol") == "HTTP"
    assert profile.findtext("Voicemail/PrimaryAddress") == ""
    assert profile.findtext("CTI/Backup2Protocol") == ""


async def test_what_the_administrator_sets_wins(tmp_path: Path, files: Files) -> None:
    profile = '[provisioning.profile.Voicemail]\nPrimaryAddress = "<vm>&"\n'
    service = service_in(tmp_path, files, f'{profile}[provisioning.config.Options]\nStartCallWithVideo = "false"\n')
    await service.start()
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{service.health()[0].port}", trust_env=False
        ) as client:
            assert (await get(client, "/SPDefault.cnf.xml")).findtext("Voicemail/PrimaryAddress") == "<vm>&"
            config = await get(client, "/jabber-config.xml")
            assert (config.tag, config.get("version")) == ("config", "1.0")
            assert config.findtext("Options/StartCallWithVideo") == "false"
            assert config.findtext("Directory/DirectoryServerType") == "UDS"
    finally:
        await service.stop()


async def test_device_file(plain: httpx.AsyncClient) -> None:
    device = await get(plain, "/CSFALICE.cnf.xml")
    assert device.findtext("userId") == "alice"
    assert device.findtext("deviceProtocol") == "SIP"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/CSFNOBODY.cnf.xml",
        "/CSFMALLORY.cnf.xml",
        "/CSFALICE.cnf.xml.sgn",
        "/csfalice.cnf.xml",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/SPDefault.cnf.xml/",
        "/CSF" + "A" * 5000 + ".cnf.xml",
        "/CSFALICE%00.cnf.xml",
        "/CSFALICE.cnf.xml%0a",
    ],
)
async def test_nothing_else_is_there(plain: httpx.AsyncClient, path: str) -> None:
    assert (await plain.get(path)).status_code == 404


async def test_only_reading(plain: httpx.AsyncClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert (await plain.request(method, "/SPDefault.cnf.xml")).status_code == 405
    assert (await plain.head("/SPDefault.cnf.xml")).content == b""


async def test_https_with_a_name_that_verifies(service: provisioning.Service, files: Files) -> None:
    context = ssl.create_default_context(cafile=str(files.chain))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        answer = await client.get(
            service.device_url("CSFALICE").replace("inside.example.com", "127.0.0.1"),
            extensions={"sni_hostname": "inside.example.com"},
        )
    assert answer.status_code == 200
    assert service.profile_url == f"http://inside.example.com:{service.health()[0].port}/SPDefault.cnf.xml"


async def test_too_many_requests(tmp_path: Path, files: Files) -> None:
    service = service_in(tmp_path, files, "requests_per_second = 1\n")
    transport = httpx.ASGITransport(service.app, client=("192.0.2.9", 4000))
    async with httpx.AsyncClient(transport=transport, base_url="http://192.0.2.1") as client:
        codes = [(await client.get("/SPDefault.cnf.xml")).status_code for _ in range(6)]
    assert codes == [200] * 5 + [503]


async def test_a_port_that_is_taken_leaves_nothing_open(
    service: provisioning.Service, tmp_path: Path, files: Files
) -> None:
    taken = service.health()[0].port
    text = f"https_port = {taken}\nport = 0\n[ports]\nprofile = 'standard'\n"
    other = service_in(tmp_path, files, text)
    with pytest.raises(Unavailable):
        await other.start()
    assert [status.state for status in other.health()] == ["stopped", "stopped"]


@pytest.mark.parametrize(
    "text",
    [
        "[provisioning.profile.Voicemail]\nPassword = 'x'\n",
        "[provisioning.config.Phone]\nAccessToken = 'x'\n",
        "[provisioning.profile.Nothing]\nPrimaryAddress = 'x'\n",
        "[provisioning.config.Options]\n'a b' = 'x'\n",
    ],
)
def test_secrets_and_unknown_names_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        site_in(tmp_path, text)


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,20}", fullmatch=True), st.text(), max_size=5))
def test_any_value_stays_well_formed(values: dict[str, str]) -> None:
    root = fromstring(documents.client_config({"Options": values}))
    options = root.find("Options")
    assert options is not None
    assert [child.tag for child in options] == list(values)


def test_the_profile_names_every_inside_node_and_the_relogin_limits() -> None:
    nodes = {"inside": {"address": "192.0.2.1"}, "others": {"inside2": {"address": "192.0.2.2"}}}
    site = Site(Path("/x"), SiteSettings.model_validate({"domain": "example.com", "nodes": nodes}), {})
    for seen in (site, site.as_node("inside2")):
        profile = fromstring(documents.service_profile(Endpoints.of(seen), {}, relogin=(60, 90)))
        section = {name: profile.findtext(f"IMandPresence/{name}") for name in (
            "PrimaryAddress", "Backup1Address", "Backup1Port", "Backup2Address",
            "ClientReLoginLowerLimit", "ClientReLoginUpperLimit",
        )}  # fmt: skip
        assert list(section.values()) == ["inside.example.com", "inside2.example.com", "15222", "", "60", "90"]
        assert profile.findtext("Directory/Backup1Address") == "inside2.example.com"


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="above"):
        Settings(relogin_lower_seconds=100, relogin_upper_seconds=99)
