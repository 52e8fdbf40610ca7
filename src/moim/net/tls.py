"""Server-side TLS contexts that take a new certificate while connections stay up."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from moim.errors import ConfigError


class Credential(Protocol):
    """A certificate chain and its key, as files in PEM."""

    @property
    def chain(self) -> Path:
        """The certificate and its intermediates."""
        ...

    @property
    def key(self) -> Path:
        """The private key."""
        ...


class ServerTls:
    """A server context over a certificate chain file and a key file (PEM). ``reload`` affects new handshakes only."""

    def __init__(self, chain: Path, key: Path, *, alpn: tuple[str, ...] = ()) -> None:
        self.chain = chain
        self.key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        if alpn:
            self.context.set_alpn_protocols(list(alpn))
        self.reload()

    def reload(self) -> None:
        """Reads the files again. Raises ConfigError, keeping the old certificate, when they do not fit."""
        try:
            self.context.load_cert_chain(self.chain, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the certificate {self.chain} or its key cannot be used: {error}") from error


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """A client context that verifies names: against ``ca_file`` when given, else the system's authorities."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the authority file {ca_file} cannot be read: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def end_point(chain_pem: bytes) -> bytes:
    """The channel binding ``tls-server-end-point`` of a chain's first certificate (RFC 5929 section 4.1).

    Empty when its signature has no single hash, as Ed25519's: then the binding is not defined. Raises ConfigError for
    what is no certificate.
    """
    try:
        leaf = x509.load_pem_x509_certificate(chain_pem)
        used = leaf.signature_hash_algorithm
    except ValueError as error:
        raise ConfigError(f"the certificate cannot be read: {error}") from error
    if used is None:
        return b""
    return leaf.fingerprint(hashes.SHA256() if isinstance(used, hashes.MD5 | hashes.SHA1) else used)
