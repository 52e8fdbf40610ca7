"""Issuing, renewing and replacing by hand, seen from outside: files, facts, openssl, live connections."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moim import settings, trust
from moim.bus import Bus
from moim.errors import ConfigError, Conflict, Forbidden, LimitExceeded, NotFound, UsageError
from moim.model import CertificateChanged
from moim.net.http_server import HttpServer
from moim.net.tls import ServerTls


def leaf_of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_authority_lies_where_clients_and_only_the_inside_node_find_it(site: settings.Site) -> None:
    root = leaf_of(site.ca_file)
    lifetime = root.not_valid_after_utc - root.not_valid_before_utc
    assert timedelta(days=3648) < lifetime < timedelta(days=3655)
    assert isinstance(root.public_key(), ec.EllipticCurvePublicKey)
    key_file = site.root / "inside" / "trust" / "ca-key.pem"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    with pytest.raises(Conflict):
        trust.create_authority(site.root, "example.com")


@pytest.mark.parametrize("purpose", ["tomcat", "cup-xmpp", "tomcat-ECDSA", "cup-xmpp-s2s", "CallManager", "TVS"])
def test_openssl_verifies_what_is_issued(site: settings.Site, service: trust.Service, purpose: str) -> None:
    credential = service.credential(purpose)
    assert stat.S_IMODE(credential.key.stat().st_mode) == 0o600
    for use in ("sslserver", "sslclient"):
        openssl("verify", "-x509_strict", "-CAfile", str(site.ca_file), "-purpose", use, str(credential.chain))
    openssl("verify", "-CAfile", str(site.ca_file), "-verify_hostname", "inside.example.com", str(credential.chain))


def test_xmpp_certificate_names_the_domain_and_the_service(service: trust.Service) -> None:
    text = openssl("x509", "-noout", "-text", "-in", str(service.credential("cup-xmpp").chain))
    assert "DNS:example.com" in text
    assert "XmppAddr" not in text
    assert "SRVName" in text or "1.3.6.1.5.5.7.8.7" in text
    assert "Digital Signature" in text
    assert "Key Encipherment" not in text  # RFC 8813 forbids it for EC keys


async def test_start_issues_and_a_second_start_keeps(site: settings.Site, bus: Bus, facts: list[str]) -> None:
    first = trust.Service(site, bus)
    await first.start()
    await first.stop()
    assert sorted(facts) == ["cup-xmpp", "tomcat"]
    serial = leaf_of(first.credential("tomcat").chain).serial_number
    second = trust.Service(site, bus)
    await second.start()
    await second.stop()
    assert leaf_of(second.credential("tomcat").chain).serial_number == serial
    assert len(facts) == 2


async def test_renews_when_a_third_is_left(service: trust.Service, clock: object, facts: list[str]) -> None:
    await service.check()
    before = leaf_of(service.credential("tomcat").chain)
    facts.clear()
    clock.offset = timedelta(days=59)  # type: ignore[attr-defined]
    assert await service.check() == []
    clock.offset = timedelta(days=61)  # type: ignore[attr-defined]
    assert sorted(await service.check()) == ["cup-xmpp", "tomcat"]
    assert leaf_of(service.credential("tomcat").chain).serial_number != before.serial_number
    assert sorted(facts) == ["cup-xmpp", "tomcat"]


async def test_new_node_address_means_new_certificate(site: settings.Site, service: trust.Service, bus: Bus) -> None:
    await service.check()
    (site.root / "moim.toml").write_text('domain = "example.com"\n[nodes.inside]\naddress = "127.0.0.9"\n')
    moved = trust.Service(settings.load(site.root, {"trust": trust.Settings}), bus)
    assert "tomcat" in await moved.check()
    info = next(one for one in await moved.certificates() if one.purpose == "tomcat")
    assert "IP:127.0.0.9" in info.names


async def test_another_hosted_domain_means_new_certificates(
    site: settings.Site, service: trust.Service, bus: Bus
) -> None:
    await service.check()
    (site.root / "moim.toml").write_text('domain = "example.com"\nhosted_domains = ["example.net"]\n')
    grown = trust.Service(settings.load(site.root, {"trust": trust.Settings}), bus)
    assert {"tomcat", "cup-xmpp"} <= {*await grown.check()}
    text = subprocess.run(
        ["openssl", "x509", "-in", grown.credential("cup-xmpp").chain, "-noout", "-checkhost", "example.net"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    assert "does match certificate" in text


async def test_a_certificate_by_hand_that_lacks_a_domain_is_shown(
    site: settings.Site, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    (site.root / "moim.toml").write_text('domain = "example.com"\nhosted_domains = ["example.net"]\n')
    service = trust.Service(settings.load(site.root, {"trust": trust.Settings}), bus)
    await service.check()
    assert service.health() == []
    _foreign(service.credential("cup-xmpp").chain.parent, days=90)
    await service.check()
    (row,) = service.health()
    assert (row.state, row.detail.partition(" ")[2]) == ("degraded", "does not name example.com, example.net")
    assert "does not name example.com, example.net" in caplog.text
    await service.renew("cup-xmpp")
    await service.check()
    assert service.health() == []


def _foreign(home: Path, days: int) -> int:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "inside.example.com")])
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (home / "key.pem").write_bytes(pem)
    (home / "chain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return certificate.serial_number


async def test_files_put_there_by_hand_are_noticed_and_never_overwritten(
    service: trust.Service, facts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    await service.check()
    facts.clear()
    files = service.credential("tomcat")
    serial = _foreign(files.chain.parent, days=5)
    assert await service.check() == ["tomcat"]
    assert facts == ["tomcat"]
    assert await service.check() == []
    assert leaf_of(files.chain).serial_number == serial
    assert "installed by hand" in caplog.text
    info = await service.renew("tomcat")
    assert info is not None
    assert info.own
    assert leaf_of(files.chain).serial_number != serial


async def test_files_that_do_not_fit_are_reported_once_and_mended_at_the_next_start(
    site: settings.Site, service: trust.Service, bus: Bus, facts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    await service.check()
    files = service.credential("tomcat")
    shutil.copyfile(service.credential("cup-xmpp").key, files.key)
    facts.clear()
    assert await service.check() == []
    assert await service.check() == []
    assert caplog.text.count("cannot be used") == 1
    assert await trust.Service(site, bus).check() == ["tomcat"]
    ServerTls(files.chain, files.key)


async def test_lost_authority_says_what_to_do(site: settings.Site, bus: Bus) -> None:
    (site.root / "inside" / "trust" / "ca-key.pem").unlink()
    with pytest.raises(ConfigError, match="backup"):
        await trust.Service(site, bus).start()


def test_unknown_purpose_and_the_edge_have_no_credential(service: trust.Service) -> None:
    with pytest.raises(NotFound):
        service.credential("../../etc")
    with pytest.raises(UsageError):
        service.credential("edge")


def _request(names: list[x509.GeneralName], key: object = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


async def test_edge_request_gets_the_names_of_the_site(
    site: settings.Site, service: trust.Service, clock: object, facts: list[str], tmp_path: Path
) -> None:
    pem = service.sign_edge(_request([x509.DNSName("edge.example.com")]))
    path = tmp_path / "edge.pem"
    path.write_bytes(pem)
    for host in ("edge.example.com", "example.com"):
        openssl("verify", "-x509_strict", "-CAfile", str(site.ca_file), "-verify_hostname", host, str(path))
    assert "_collab-edge.example.com" in str(await service.certificates())
    clock.offset = timedelta(days=61)  # type: ignore[attr-defined]
    await service.check()
    await service.check()
    assert facts.count("edge") == 1


def test_edge_request_for_other_names_is_refused(service: trust.Service, caplog: pytest.LogCaptureFixture) -> None:
    for name in (x509.DNSName("inside.example.com"), x509.DNSName("*.example.com"), x509.RFC822Name("a@example.com")):
        with pytest.raises(Forbidden):
            service.sign_edge(_request([x509.DNSName("edge.example.com"), name]))
    assert "refused a certificate request" in caplog.text


def test_edge_request_must_be_sound(service: trust.Service) -> None:
    for rubbish in (b"", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(UsageError):
            service.sign_edge(rubbish)
    with pytest.raises(LimitExceeded):
        service.sign_edge(b"x" * 20_000)
    with pytest.raises(UsageError, match="key"):
        service.sign_edge(_request([], ec.generate_private_key(ec.SECP521R1())))


async def test_renewal_keeps_open_connections_and_new_ones_see_it(
    site: settings.Site, service: trust.Service, bus: Bus
) -> None:
    async def app(_scope: object, _receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]

    files = service.credential("tomcat")
    tls = ServerTls(files.chain, files.key)

    async def reload(fact: CertificateChanged) -> None:
        if fact.purpose == "tomcat":
            tls.reload()

    bus.subscribe(CertificateChanged, reload)
    server = HttpServer(app, address="127.0.0.1", tls=tls)
    await server.start()
    client = ssl.create_default_context(cafile=str(site.ca_file))

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=client, server_hostname="inside.example.com"
        )
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return reader, writer, x509.load_der_x509_certificate(der).serial_number

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET / HTTP/1.1\r\nHost: inside.example.com\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        return head.split(b"\r\n")[0] + await reader.readexactly(2)

    try:
        reader, writer, before = await connect()
        assert b"200" in await ask(reader, writer)
        await service.renew("tomcat")
        assert b"200" in await ask(reader, writer)
        other_reader, other_writer, after = await connect()
        assert after != before
        assert b"200" in await ask(other_reader, other_writer)
        shown = await asyncio.to_thread(
            openssl,
            "s_client",
            "-connect",
            f"127.0.0.1:{server.port}",
            "-CAfile",
            str(site.ca_file),
            "-verify_return_error",
            "-verify_hostname",
            "inside.example.com",
            "-servername",
            "inside.example.com",
        )
        assert "Verification: OK" in shown
        assert "Verified peername: inside.example.com" in shown
        writer.close()
        other_writer.close()
    finally:
        await server.stop()
