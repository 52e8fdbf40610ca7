"""Whether a certificate leads to an authority that is trusted here (RFC 5280), for servers and for those that connect.

A self-signed certificate is trusted when it is itself among the trusted ones. Certificates of public authorities are
for servers alone since 2026; whether that is enough for a server that connects is the caller's policy.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from moim.errors import ConfigError, PeerUntrusted

Role = Literal["server", "client"]

MAX_CHAIN = 10
_MAX_FILE = 4 * 1024 * 1024
_END = b"-----END CERTIFICATE-----"


class Anchors:
    """The authorities that are trusted. ``certificates`` may hold self-signed ones of single servers as well."""

    def __init__(self, certificates: Iterable[x509.Certificate]) -> None:
        found = {one.public_bytes(Encoding.DER): one for one in certificates}
        self._single = frozenset(found)
        self._store = verification.Store(list(found.values())) if found else None

    def verify(
        self, chain: Sequence[x509.Certificate], role: Role, *, now: datetime, server_auth_only: bool = True
    ) -> datetime:
        """Checks a chain, leaf first: how long it holds, with all that it depends on (RFC 6120 section 13.7.2).

        Raises PeerUntrusted with a sentence about what is wrong.
        """
        leaf = chain[0]
        _check_dates(leaf, now)
        if leaf.public_bytes(Encoding.DER) in self._single:
            return leaf.not_valid_after_utc
        _check_critical(leaf)
        if self._store is None:
            raise PeerUntrusted("no authority is trusted here")
        # The verifier's own rule about names and usages is that of web clients; both are checked here instead.
        ca = verification.ExtensionPolicy.webpki_defaults_ca().may_be_present(
            x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, _Usage(role, server_auth_only)
        )
        end = (
            verification.ExtensionPolicy.permit_all()
            .may_be_present(x509.ExtendedKeyUsage, verification.Criticality.AGNOSTIC, _Usage(role, server_auth_only))
            .may_be_present(x509.BasicConstraints, verification.Criticality.AGNOSTIC, _no_authority)
        )
        builder = verification.PolicyBuilder().store(self._store).time(now).max_chain_depth(MAX_CHAIN)
        verifier = builder.extension_policies(ca_policy=ca, ee_policy=end).build_client_verifier()
        try:
            found = verifier.verify(leaf, list(chain[1:MAX_CHAIN]))
        except verification.VerificationError as error:
            raise PeerUntrusted(_why(leaf, chain, str(error))) from None
        return min(one.not_valid_after_utc for one in found.chain)


class _Usage:
    """Whether the extended usages of a certificate allow the role; a certificate without them allows everything."""

    def __init__(self, role: Role, server_auth_only: bool) -> None:
        wanted = {ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
        if role == "server" or server_auth_only:
            wanted.add(ExtendedKeyUsageOID.SERVER_AUTH)
        if role == "client":
            wanted.add(ExtendedKeyUsageOID.CLIENT_AUTH)
        self._wanted, self._role = wanted, role

    def __call__(
        self, _policy: verification.Policy, _certificate: x509.Certificate, usages: x509.ExtendedKeyUsage | None
    ) -> None:
        if usages is not None and self._wanted.isdisjoint(usages):
            raise ValueError(f"not meant for a {self._role}")


def _no_authority(
    _policy: verification.Policy, _certificate: x509.Certificate, constraints: x509.BasicConstraints | None
) -> None:
    if constraints is not None and constraints.ca:
        raise ValueError("it is an authority's own certificate")


def _check_dates(leaf: x509.Certificate, now: datetime) -> None:
    if now > leaf.not_valid_after_utc:
        raise PeerUntrusted(f"the certificate ended on {leaf.not_valid_after_utc:%Y-%m-%d}")
    if now < leaf.not_valid_before_utc:
        raise PeerUntrusted(f"the certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} on only")


def _check_critical(leaf: x509.Certificate) -> None:
    try:
        unknown = [one for one in leaf.extensions if one.critical and isinstance(one.value, x509.UnrecognizedExtension)]
    except ValueError:
        raise PeerUntrusted("the certificate's extensions cannot be read") from None
    if unknown:
        raise PeerUntrusted(
            f"the certificate has a critical extension that nobody knows ({unknown[0].oid.dotted_string})"
        )


def _why(leaf: x509.Certificate, chain: Sequence[x509.Certificate], said: str) -> str:
    if "not meant for" in said:
        return "the certificate's usages do not allow that role" + (
            " (it is for servers alone)" if "client" in said else ""
        )
    if leaf.issuer == leaf.subject:
        return "the certificate is self-signed and not one that is trusted here"
    issuer = leaf.issuer.rfc4514_string()[:200]
    alone = "; it was sent without the certificates in between" if len(chain) == 1 else ""
    return f"no authority that is trusted here signed the certificate (issuer {issuer}){alone}"


def load_files(paths: Iterable[Path]) -> list[x509.Certificate]:
    """The certificates of PEM files. Raises ConfigError naming the file that holds none."""
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            data = path.read_bytes()[:_MAX_FILE]
        except OSError as error:
            raise ConfigError(f"federation.trusted: {path} cannot be read: {error.strerror}") from error
        own = list(_certificates(data))
        if not own:
            raise ConfigError(f"federation.trusted: {path} holds no certificate", hint="write PEM files")
        found.extend(own)
    return found


def system_anchors() -> list[x509.Certificate]:
    """The authorities that the system trusts; none when it keeps no list."""
    paths = ssl.get_default_verify_paths()
    for name in (paths.cafile, paths.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem"):
        try:
            data = Path(name or "").read_bytes()[:_MAX_FILE]
        except OSError:
            continue
        if found := list(_certificates(data)):
            return found
    return []


def _certificates(data: bytes) -> Iterable[x509.Certificate]:
    for block in data.split(_END)[:-1]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                found = x509.load_pem_x509_certificate(block[block.index(b"-----BEGIN") :] + _END + b"\n")
        except ValueError:
            continue  # one odd old root does not take the others with it
        yield found


def read_chain(chain: Sequence[bytes]) -> list[x509.Certificate]:
    """The certificates that a peer sent in DER, leaf first. Raises PeerUntrusted when one cannot be read."""
    try:
        return [x509.load_der_x509_certificate(one) for one in chain[:MAX_CHAIN]]
    except ValueError as error:
        raise PeerUntrusted(f"a certificate cannot be read: {error}") from None


def now_utc() -> datetime:
    """The time that certificates are judged at."""
    return datetime.now(UTC)
