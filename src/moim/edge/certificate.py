"""The edge's own TLS key and the certificate for it: the key never leaves the edge, the inside has the request signed.

Both are kept in ``SITE/edge/trust``, so that a restart serves at once, tunnel or not.
"""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moim.edge.keys import write_private, write_public
from moim.errors import ConfigError, PeerUntrusted, ProtocolError
from moim.net.tls import ServerTls

_MAX_CHAIN = 64 * 1024
_log = logging.getLogger("moim.edge.certificate")


class EdgeCertificate:
    """Key, request and chain in ``folder``; ``name`` is the host name that the request asks for."""

    def __init__(self, folder: Path, name: str) -> None:
        self.key_file = folder / "key.pem"
        self.chain_file = folder / "chain.pem"
        self._name = name
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._leaf: x509.Certificate | None = None
        self._tls: ServerTls | None = None

    def load(self) -> None:
        """Reads key and chain, makes the key when there is none. Raises ConfigError for a key that cannot be used."""
        self.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            key = serialization.load_pem_private_key(self.key_file.read_bytes(), password=None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ConfigError(f"{self.key_file} is not an elliptic-curve key", hint="remove it to have one made")
            self._key = key
        except FileNotFoundError:
            self._key = ec.generate_private_key(ec.SECP256R1())
            pem = self._key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(self.key_file, pem)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"the edge's key {self.key_file} cannot be read: {error}") from error
        try:
            self._use(self.chain_file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ProtocolError, PeerUntrusted) as error:
            _log.warning("the kept certificate %s is of no use, a new one is asked for: %s", self.chain_file, error)

    @property
    def context(self) -> ssl.SSLContext | None:
        """The server context for the listeners, or None while there is no certificate."""
        return self._tls.context if self._tls is not None else None

    @property
    def expires(self) -> datetime | None:
        """When the certificate ends (UTC), or None without one."""
        return self._leaf.not_valid_after_utc if self._leaf is not None else None

    def due(self, now: datetime | None = None) -> bool:
        """Whether to ask for a certificate: there is none, or less than a third of its time is left."""
        if self._leaf is None:
            return True
        lifetime = self._leaf.not_valid_after_utc - self._leaf.not_valid_before_utc
        return self._leaf.not_valid_after_utc - (now or datetime.now(UTC)) < lifetime / 3

    def request(self) -> bytes:
        """A certificate request (PKCS #10, PEM) for the key."""
        assert self._key is not None
        names = x509.SubjectAlternativeName([x509.DNSName(self._name)])
        builder = x509.CertificateSigningRequestBuilder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)])
        )
        request = builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM)

    def install(self, chain: bytes) -> bool:
        """Takes a chain (PEM, leaf first) into use for new connections; False when it is the one in use.

        Raises ProtocolError when it cannot be read and PeerUntrusted when it is for another key, name or time.
        """
        if self._leaf is not None and self.chain_file.exists() and self.chain_file.read_bytes() == chain:
            return False
        self._check(chain)
        write_public(self.chain_file, chain)
        self._use(chain)
        return True

    def _use(self, chain: bytes) -> None:
        self._leaf = self._check(chain)
        if self._tls is None:
            self._tls = ServerTls(self.chain_file, self.key_file, alpn=("http/1.1",))
        else:
            self._tls.reload()

    def _check(self, chain: bytes) -> x509.Certificate:
        assert self._key is not None
        if len(chain) > _MAX_CHAIN:
            raise ProtocolError("the certificate chain is too long")
        try:
            leaf = x509.load_pem_x509_certificates(chain)[0]
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            same = leaf.public_key() == self._key.public_key()
        except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
            raise ProtocolError(f"the certificate chain cannot be read: {error}") from error
        if not same:
            raise PeerUntrusted("the certificate is not for this edge's key")
        if self._name not in names.get_values_for_type(x509.DNSName):
            raise PeerUntrusted(f"the certificate is not for {self._name}")
        if leaf.not_valid_after_utc <= datetime.now(UTC):
            raise PeerUntrusted(f"the certificate ended on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        return leaf
