"""Judges a certificate request from the edge: its names must be those the site would give it anyway."""

from __future__ import annotations

import contextlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from moim.errors import Forbidden, LimitExceeded, UsageError
from moim.trust.authority import PublicKey
from moim.trust.credentials import name_text

_LARGEST = 16 * 1024
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_RSA_BITS = range(2048, 4097)


def accept(pem: bytes, allowed: list[x509.GeneralName]) -> PublicKey:
    """The key of a request (PKCS #10, RFC 2986) that asks for nothing beyond ``allowed``.

    Raises UsageError when it is no sound request, Forbidden when it asks for more, LimitExceeded when it is too long.
    """
    if len(pem) > _LARGEST:
        raise LimitExceeded(f"the certificate request is longer than {_LARGEST} bytes")
    try:
        request = x509.load_pem_x509_csr(pem)
        sound = request.is_signature_valid
        key = request.public_key()
        asked = _names(request)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise UsageError(f"the certificate request cannot be read: {error}") from error
    if not sound:
        raise UsageError("the certificate request is not signed by its own key")
    beyond = [name_text(name) for name in asked if name not in allowed]
    if beyond:
        raise Forbidden(
            f"the certificate request asks for names that are not the edge's: {', '.join(beyond[:5])}",
            hint=f"allowed: {', '.join(name_text(name) for name in allowed)}",
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return key
    raise UsageError("the certificate request has a key of an unsupported kind", hint="use P-256, P-384 or RSA 2048+")


def _names(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    common = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    names: list[x509.GeneralName] = [x509.DNSName(str(one.value)) for one in common]
    with contextlib.suppress(x509.ExtensionNotFound):
        names += request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names
