"""Certificates for peers of federation: authorities, leaves with any names and usages, all EC P-256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def srv_name(domain: str, service: str = "xmpp-server") -> x509.OtherName:
    value = f"_{service}.{domain}".encode()
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7"), bytes([0x16, len(value)]) + value)


def xmpp_address(domain: str) -> x509.OtherName:
    value = domain.encode()
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5"), bytes([0x0C, len(value)]) + value)


@dataclass(frozen=True)
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    issuers: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def chain(self) -> list[bytes]:
        return [self.der, *(one.public_bytes(serialization.Encoding.DER) for one in self.issuers)]

    @property
    def chain_pem(self) -> bytes:
        pem = serialization.Encoding.PEM
        return b"".join(one.public_bytes(pem) for one in (self.certificate, *self.issuers))

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def authority(
    name: str = "An authority",
    parent: Made | None = None,
    *,
    usages: Sequence[x509.ObjectIdentifier] = (),
    end: datetime = NOW + timedelta(days=365),
) -> Made:
    return _make(name, [], usages, parent, ca=True, start=NOW - timedelta(days=2), end=end)


def leaf(
    names: Sequence[x509.GeneralName | str],
    parent: Made | None = None,
    *,
    usages: Sequence[x509.ObjectIdentifier] = (SERVER,),
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=30),
    critical: bool = False,
) -> Made:
    """A leaf; without ``parent`` it signs itself."""
    given = [x509.DNSName(name) if isinstance(name, str) else name for name in names]
    return _make("a server", given, usages, parent, ca=False, start=start, end=end, critical=critical)


def _make(
    name: str,
    names: Sequence[x509.GeneralName],
    usages: Sequence[x509.ObjectIdentifier],
    parent: Made | None,
    *,
    ca: bool,
    start: datetime,
    end: datetime,
    critical: bool = False,
) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = parent.certificate.subject if parent else subject
    signer = parent.key if parent else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if ca:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if critical:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), critical=True
        )
    made = builder.sign(signer, hashes.SHA256())
    issuers = (parent.certificate, *parent.issuers) if parent else ()
    return Made(made, key, issuers)
