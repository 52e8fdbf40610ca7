"""Server-side TLS: the channel binding that follows from a certificate."""

from __future__ import annotations

import datetime
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from moim.errors import ConfigError
from moim.net.tls import end_point


def chain(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, used: hashes.HashAlgorithm | None) -> bytes:
    """A certificate in PEM, signed by its own key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "chat.test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, used).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(("used", "name"), [(hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384")])
def test_the_hash_is_that_of_the_signature(used: hashes.HashAlgorithm, name: str) -> None:
    first, second = (chain(ec.generate_private_key(ec.SECP256R1()), used) for _ in range(2))
    assert end_point(first + second) == hashlib.new(name, der(first)).digest()


def test_a_signature_without_a_hash_has_none() -> None:
    assert end_point(chain(ed25519.Ed25519PrivateKey.generate(), None)) == b""


def test_what_is_no_certificate() -> None:
    with pytest.raises(ConfigError):
        end_point(b"rubbish")
