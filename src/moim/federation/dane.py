"""DANE for XMPP (RFC 7712 section 5, RFC 7673): TLSA records that DNSSEC vouches for, in place of an authority.

Only usages 2 and 3 prove anything here: 0 and 1 narrow down what authorities vouch for, and where those do, the domain
is proven already. Everything is void unless SRV and TLSA answers are both authentic.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from moim.errors import MoimError, PeerUntrusted
from moim.federation.chains import Anchors, Role
from moim.federation.identity import names_domain
from moim.federation.locating import Dns, Located
from moim.net.resolver import TlsaRecord

_TRUST_ANCHOR, _END_ENTITY = 2, 3
_MAX_TARGETS = 4


async def prove(
    dns: Dns, domain: str, located: Located, chain: Sequence[x509.Certificate], role: Role, *, now: datetime
) -> str:
    """Looks for a record that stands for the certificate. Returns "" when there is one, else why there is none."""
    if not located.authentic:
        return "DNSSEC does not vouch for its records"
    targets = located.targets[:_MAX_TARGETS]
    answers = await asyncio.gather(
        *(dns.associations(f"_{target.port}._tcp.{target.host}") for target in targets), return_exceptions=True
    )
    hosts = [target.host for target in targets]
    found = False
    for answer in answers:
        if isinstance(answer, MoimError):
            continue
        if isinstance(answer, BaseException):
            raise answer
        if not answer.authentic:
            continue
        found = found or bool(answer.associations)
        if any(vouches(record, chain, domain, hosts, role, now=now) for record in answer.associations):
            return ""
    return "its TLSA records stand for another certificate" if found else "it has no TLSA records"


def vouches(
    record: TlsaRecord,
    chain: Sequence[x509.Certificate],
    domain: str,
    hosts: Sequence[str],
    role: Role,
    *,
    now: datetime,
) -> bool:
    """Whether one record stands for a chain, leaf first (RFC 7671 section 5)."""
    if record.usage == _END_ENTITY:
        return matches(record, chain[0])  # names and dates are the record's affair (RFC 7671 section 5.1)
    if record.usage != _TRUST_ANCHOR or not names_domain(chain[0], domain, hosts=hosts):
        return False
    for one in chain[1:]:
        if matches(record, one):
            try:
                Anchors([one]).verify(chain, role, now=now)
            except PeerUntrusted:
                return False
            return True
    return False


def matches(record: TlsaRecord, certificate: x509.Certificate) -> bool:
    """Whether a record's data is that of a certificate (RFC 6698 section 2.1)."""
    if record.selector == 0:
        selected = certificate.public_bytes(Encoding.DER)
    elif record.selector == 1:
        selected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        return False
    if record.matching == 0:
        return record.data == selected
    if record.matching == 1:
        return record.data == hashlib.sha256(selected).digest()
    if record.matching == 2:
        return record.data == hashlib.sha512(selected).digest()
    return False
