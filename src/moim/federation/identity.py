"""Whether a certificate names a domain as an XMPP server's (RFC 6120 section 13.7.1.2, RFC 9525): names alone.

A certificate speaks for a domain by a dNSName (a wildcard covers one whole leftmost label), an SRVName
``_xmpp-server.domain`` (RFC 4985), an XmppAddr, or an iPAddress for domains that are addresses. Common
names do not count.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Collection, Iterator

from cryptography import x509

from moim.errors import MoimError
from moim.model import domain_name

XMPP_ADDR = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")
SRV_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")

_SERVICE = "_xmpp-server."
_IA5_STRING, _UTF8_STRING = 0x16, 0x0C
_MAX_NAMES = 1000


def names_domain(certificate: x509.Certificate, domain: str, *, hosts: Collection[str] = ()) -> bool:
    """Whether the certificate is for ``domain``, in any form of it.

    ``hosts`` are further DNS names that are as good: SRV targets that DNSSEC vouches for (RFC 7673 section 4.2).
    """
    try:
        wanted = domain_name(domain.strip("[]"))
    except MoimError:
        return _is_address(certificate, domain)
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(wanted)
        return _is_address(certificate, wanted)
    for kind, value in _presented(certificate):
        if kind == "dns" and any(_covers(value, one) for one in (wanted, *hosts)):
            return True
        if kind in ("srv", "xmpp") and value == wanted:
            return True
    return False


def presented_names(certificate: x509.Certificate) -> list[str]:
    """The names that count, in words, at most ten: for messages."""
    found = [value if kind != "srv" else f"{_SERVICE}{value}" for kind, value in _presented(certificate)]
    return list(dict.fromkeys(found))[:10]


def _presented(certificate: x509.Certificate) -> Iterator[tuple[str, str]]:
    try:
        names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return
    for name in names[:_MAX_NAMES]:
        if isinstance(name, x509.DNSName):
            yield "dns", name.value.rstrip(".").lower()
        elif isinstance(name, x509.OtherName) and name.type_id == SRV_NAME:
            text = _string(name.value, _IA5_STRING).lower()
            if text.startswith(_SERVICE) and (value := _canonical(text.removeprefix(_SERVICE))):
                yield "srv", value
        elif isinstance(name, x509.OtherName) and name.type_id == XMPP_ADDR:
            text = _string(name.value, _UTF8_STRING)
            if text and "@" not in text and "/" not in text and (value := _canonical(text)):
                yield "xmpp", value


def _canonical(text: str) -> str:
    try:
        return domain_name(text)
    except MoimError:
        return ""


def _covers(presented: str, wanted: str) -> bool:
    if presented == wanted:
        return True
    # RFC 9525 section 6.3: the wildcard is a whole leftmost label, and stands for exactly one.
    rest = presented.removeprefix("*.")
    return rest != presented and "*" not in rest and "." in rest and wanted.partition(".")[2] == rest


def _is_address(certificate: x509.Certificate, domain: str) -> bool:
    try:
        wanted = ipaddress.ip_address(domain.strip("[]"))
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return wanted in names.get_values_for_type(x509.IPAddress)


def _string(der: bytes, tag: int) -> str:
    """The text of one DER string with a definite length; empty when it is none."""
    if len(der) < 2 or der[0] != tag:
        return ""
    size, at = der[1], 2
    if size & 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 2 or len(der) < 2 + octets:
            return ""
        size, at = int.from_bytes(der[2 : 2 + octets], "big"), 2 + octets
    if len(der) != at + size:
        return ""
    try:
        return der[at:].decode("utf-8")
    except UnicodeDecodeError:
        return ""
