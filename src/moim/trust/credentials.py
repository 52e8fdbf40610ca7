"""Certificates with their keys on disk: a folder per certificate, replaced as a whole, and what one can read from it.

``inside/trust/<name>`` is a link to a folder of its own generation with ``chain.pem`` and ``key.pem``, so that
both change in the same instant.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from moim.errors import ConfigError
from moim.trust.authority import Authority, PrivateKey, key_pem, write_file

_LARGEST_FILE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate chain (leaf first) and its key, both PEM files whose paths stay the same over renewals."""

    chain: Path
    key: Path


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What an administrator wants to know about one certificate."""

    name: str
    purpose: str
    subject: str
    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime
    serial: str
    fingerprint: str
    own: bool
    """Signed by the site's authority, and so renewed by itself."""


def load_chain(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, leaf first. Raises ConfigError when it holds none."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificate file {path} cannot be read: {error}") from error


def load_pair(credential: Credential) -> list[x509.Certificate]:
    """The chain of a credential whose key fits it. Raises ConfigError when it does not."""
    chain = load_chain(credential.chain)
    try:
        key = serialization.load_pem_private_key(_read(credential.key), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the key file {credential.key} cannot be read: {error}") from error
    if key.public_key() != chain[0].public_key():
        raise ConfigError(
            f"{credential.key} is not the key of the certificate in {credential.chain}",
            hint="put both files of the same certificate there",
        )
    return chain


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"larger than {_LARGEST_FILE} bytes")
    return data


def chain_pem(chain: list[x509.Certificate]) -> bytes:
    """Certificates as one PEM text."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)


def replace(home: Path, name: str, chain: list[x509.Certificate], key: PrivateKey | None) -> None:
    """Puts a new generation of ``home/name`` in place in one step. The one before stays for readers under way."""
    link = home / name
    before = home / os.readlink(link) if link.is_symlink() else None
    fresh = home / f".{name}.{chain[0].serial_number:x}"
    fresh.mkdir(mode=0o700)
    if key is not None:
        write_file(fresh / "key.pem", key_pem(key), 0o600)
    write_file(fresh / "chain.pem", chain_pem(chain), 0o644)
    if link.exists() and not link.is_symlink():  # a folder that somebody made by hand
        link.rename(home / f".{name}.by-hand-{chain[0].serial_number:x}")
    part = home / f".{name}.part"
    part.unlink(missing_ok=True)
    part.symlink_to(fresh.name)
    part.replace(link)
    for old in home.glob(f".{name}.*"):
        if old not in (fresh, before) and ".by-hand-" not in old.name and old.is_dir():
            shutil.rmtree(old, ignore_errors=True)


def state_of(credential: Credential) -> tuple[tuple[int, int, int], ...]:
    """What changes when somebody replaces a file: inode, time and size of each."""
    found = []
    for path in (credential.chain, credential.key):
        try:
            status = path.stat()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """The subject alternative names; empty when there are none or they cannot be read."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return []


def covers(certificate: x509.Certificate, domain: str) -> bool:
    """Whether a certificate names a domain, or a wildcard stands for it (RFC 9525 section 6.3)."""
    names = {name.value.lower() for name in alternative_names(certificate) if isinstance(name, x509.DNSName)}
    _, dot, above = domain.partition(".")
    return domain in names or (bool(dot) and f"*.{above}" in names)


def describe(name: str, purpose: str, certificate: x509.Certificate, authority: Authority) -> CertificateInfo:
    """A certificate in words and numbers; the fingerprint is SHA-256 in hexadecimal pairs."""
    return CertificateInfo(
        name,
        purpose,
        certificate.subject.rfc4514_string(),
        tuple(name_text(one) for one in alternative_names(certificate)),
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        f"{certificate.serial_number:x}",
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
        authority.issued(certificate),
    )


def name_text(name: x509.GeneralName) -> str:
    """``DNS:example.com``, ``IP:192.0.2.1``; other names as ``1.2.3:text``."""
    match name:
        case x509.DNSName():
            return f"DNS:{name.value}"
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.OtherName():
            # Strings below 128 bytes have a header of two; longer ones say how many more in the second.
            header = 2 + (name.value[1] & 0x7F if len(name.value) > 1 and name.value[1] & 0x80 else 0)
            return f"{name.type_id.dotted_string}:{name.value[header:].decode('utf-8', 'replace')}"
        case _:
            return f"{type(name).__name__}:{name.value}"
