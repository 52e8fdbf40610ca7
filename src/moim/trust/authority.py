"""The site's own certificate authority: made once with the site, its key readable by the inside node alone.

Certificates follow RFC 5280: random serial numbers, key identifiers on both sides, a critical key usage.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from moim.errors import ConfigError, Conflict
from moim.trust.profiles import KeyType, Profile

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_ROOT_YEARS = 10
_CLOCK_SKEW = timedelta(hours=1)  # clients whose clocks run late still accept a new certificate
_COMMON_NAME = 64  # ub-common-name and ub-organization-name, RFC 5280 appendix A.1


def trust_dir(site_root: Path) -> Path:
    """Where the inside node keeps its keys."""
    return site_root / "inside" / "trust"


def create_authority(site_root: Path, domain: str) -> x509.Certificate:
    """Makes the authority of a new site: EC P-256, 10 years; its certificate goes to ``ca.pem`` as well.

    Raises Conflict when the site has one, since replacing it would turn every client away.
    """
    home = trust_dir(site_root)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    key_file = home / "ca-key.pem"
    if key_file.exists():
        raise Conflict(f"the site has an authority already: {key_file}", hint="remove the site first to start anew")
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain[:_COMMON_NAME]),
            # The key's own digits keep two sites of one domain apart in a client's trust store.
            x509.NameAttribute(NameOID.COMMON_NAME, f"Moim authority {identifier.digest[:4].hex()}"),
        ]
    )
    now = datetime.now(UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now.replace(year=now.year + _ROOT_YEARS, day=min(now.day, 28)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    write_file(home / "ca.pem", pem, 0o644)
    write_file(site_root / "ca.pem", pem, 0o644)
    write_file(key_file, key_pem(key), 0o600)
    return certificate


@dataclass(frozen=True)
class Authority:
    """A loaded authority, ready to issue."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def load(cls, site_root: Path) -> Authority:
        """Reads the site's authority. Raises ConfigError when it is missing or its files do not fit."""
        home = trust_dir(site_root)
        try:
            certificate = x509.load_pem_x509_certificate((home / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((home / "ca-key.pem").read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"the authority in {home} cannot be read: {error}", hint="restore ca.pem and ca-key.pem from a backup"
            ) from error
        if not isinstance(key, PrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError(f"ca.pem and ca-key.pem in {home} do not belong together", hint="restore both")
        return cls(certificate, key)

    def issue(
        self,
        profile: Profile,
        names: list[x509.GeneralName],
        public_key: PublicKey,
        *,
        now: datetime,
        lifetime: timedelta,
    ) -> x509.Certificate:
        """A certificate for ``public_key`` by the profile, never valid longer than the authority itself."""
        host = next((name.value for name in names if isinstance(name, x509.DNSName)), "")
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, host)] if 0 < len(host) <= _COMMON_NAME else []
        kind: KeyType = "ec" if isinstance(public_key, ec.EllipticCurvePublicKey) else "rsa"
        usages = profile.key_usage(kind)
        signs = "key_cert_sign" in usages
        now = now.replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(now - _CLOCK_SKEW, self.certificate.not_valid_before_utc))
            .not_valid_after(min(now + lifetime, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=signs, path_length=0 if signs else None), critical=True)
            .add_extension(_usage(*usages), critical=True)
            .add_extension(x509.ExtendedKeyUsage(sorted(profile.extended, key=lambda oid: oid.dotted_string)), False)
            .add_extension(x509.SubjectAlternativeName(names), critical=not subject)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._own_identifier(), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())

    def _own_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this authority signed the certificate."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except Exception:  # the library names several kinds of mismatch; all of them mean no
            return False
        return True


def new_key(kind: KeyType) -> PrivateKey:
    """A fresh key: P-256 or RSA with 2048 bits."""
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_pem(key: PrivateKey) -> bytes:
    """A private key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Puts ``data`` at ``path`` in one step: readers, and a machine that crashed, see the old file or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
