"""The edge's certificate: its own key, requests, what it takes into use and what not."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from moim.edge.certificate import EdgeCertificate
from moim.errors import ConfigError, PeerUntrusted, ProtocolError

from .conftest import Authority

NAME = "edge.moim.test"


@pytest.fixture
def authority() -> Authority:
    return Authority(["127.0.0.2"])


@pytest.fixture
def certificate(tmp_path: Path) -> EdgeCertificate:
    made = EdgeCertificate(tmp_path / "trust", NAME)
    made.load()
    return made


def test_a_signed_request_comes_into_use_and_is_kept(certificate: EdgeCertificate, authority: Authority) -> None:
    assert not certificate.context
    assert certificate.due()
    chain = authority.sign_edge(certificate.request())
    assert certificate.install(chain)
    assert not certificate.install(chain)
    assert certificate.context is not None
    assert not certificate.due()
    again = EdgeCertificate(certificate.key_file.parent, NAME)
    again.load()
    assert again.context is not None
    assert again.expires == certificate.expires


def test_the_context_stays_the_same_object_at_a_renewal(certificate: EdgeCertificate, authority: Authority) -> None:
    certificate.install(authority.sign_edge(certificate.request()))
    context = certificate.context
    assert certificate.install(authority.sign_edge(certificate.request()))
    assert certificate.context is context


def test_it_is_due_in_its_last_third(certificate: EdgeCertificate, authority: Authority) -> None:
    certificate.install(authority.sign_edge(certificate.request()))
    assert certificate.expires is not None
    assert not certificate.due(certificate.expires - datetime.timedelta(days=40))
    assert certificate.due(certificate.expires - datetime.timedelta(days=20))


def test_the_request_is_for_the_key_and_name(certificate: EdgeCertificate) -> None:
    request = x509.load_pem_x509_csr(certificate.request())
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert request.is_signature_valid
    assert list(names) == [x509.DNSName(NAME)]


def test_what_does_not_fit_is_not_taken(certificate: EdgeCertificate, authority: Authority) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    own = x509.load_pem_x509_csr(certificate.request()).public_key()
    with pytest.raises(PeerUntrusted, match="not for this edge's key"):
        certificate.install(authority.issue(other, [NAME]))
    with pytest.raises(PeerUntrusted, match=r"not for edge\.moim\.test"):
        certificate.install(authority.issue(own, ["other.moim.test"]))
    authority.lifetime = datetime.timedelta(minutes=-1)
    with pytest.raises(PeerUntrusted, match="ended"):
        certificate.install(authority.issue(own, [NAME]))
    for rubbish in (b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"x" * 70_000):
        with pytest.raises(ProtocolError):
            certificate.install(rubbish)
    assert certificate.context is None
    assert not certificate.chain_file.exists()


def test_a_kept_chain_of_another_key_is_asked_for_anew(certificate: EdgeCertificate, authority: Authority) -> None:
    certificate.install(authority.sign_edge(certificate.request()))
    certificate.key_file.unlink()
    again = EdgeCertificate(certificate.key_file.parent, NAME)
    again.load()
    assert again.context is None
    assert again.due()


def test_a_key_that_cannot_be_read_is_an_error(certificate: EdgeCertificate) -> None:
    certificate.key_file.write_text("rubbish")
    with pytest.raises(ConfigError, match=r"key\.pem"):
        EdgeCertificate(certificate.key_file.parent, NAME).load()
