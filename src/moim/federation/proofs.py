"""What proves that a peer is the domain it says: authorities (PKIX), else DANE, else POSH; one question, one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from cryptography import x509

from moim.errors import MoimError, PeerUntrusted
from moim.federation import dane
from moim.federation.chains import Anchors, Role, now_utc, read_chain
from moim.federation.identity import names_domain, presented_names
from moim.federation.locating import Dns, Locator
from moim.federation.policies import Policy
from moim.federation.posh import Fetch, Posh
from moim.proto.xmpp.s2s import Proof


@dataclass(frozen=True, slots=True)
class Verdict:
    """``proof`` is None when nothing proves the domain; then ``reason`` is a sentence about it.

    ``until``: when the certificate ends, and with it what it proved; None for one that need not be within its dates.
    """

    proof: Proof | None
    reason: str = ""
    until: datetime | None = None


class Proofs:
    """Judges certificates. ``fetch`` gets documents over HTTPS, or is None to leave POSH out."""

    def __init__(
        self,
        anchors: Anchors,
        *,
        dns: Dns | None,
        locator: Locator,
        fetch: Fetch | None,
        clock: Callable[[], datetime] = now_utc,
    ) -> None:
        self._anchors = anchors
        self._dns = dns
        self._locator = locator
        self._posh = Posh(fetch) if fetch is not None else None
        self._clock = clock

    async def judge(self, domain: str, chain: Sequence[bytes], role: Role, policy: Policy) -> Verdict:
        """Whether a chain (DER, leaf first) proves ``domain``. ``role`` is what the peer is in the TLS connection."""
        if not chain:
            return Verdict(None, "no certificate was shown")
        found = await asyncio.to_thread(self.pkix, domain, chain, role, server_auth_only=policy.server_auth_only)
        if found.proof is not None:
            return found
        try:
            certificates = read_chain(chain)
        except PeerUntrusted as error:
            return Verdict(None, error.message)
        if self._dns is not None and not (why := await self._dane(self._dns, domain, certificates, role)):
            return Verdict("dane", until=self._ends(certificates))
        elif self._dns is not None:
            found = replace(found, reason=f"{found.reason}; {why}")
        # Somebody else's web server is asked only where it decides about the stream.
        decides = policy.certificates == "required" or not policy.dialback
        if self._posh is not None and decides:
            why = await self._posh.prove(domain, chain[0])
            if not why:
                return Verdict("posh", until=self._ends(certificates))
            return replace(found, reason=f"{found.reason}; {why}")
        return found

    def _ends(self, certificates: Sequence[x509.Certificate]) -> datetime | None:
        """When the first of them ends; DANE and POSH may vouch for those that have ended, too."""
        ends = (one.not_valid_after_utc for one in certificates)
        return min((end for end in ends if end > self._clock()), default=None)

    def pkix(self, domain: str, chain: Sequence[bytes], role: Role, *, server_auth_only: bool) -> Verdict:
        """Names and authorities alone; takes a millisecond or so."""
        try:
            certificates = read_chain(chain)
            if not names_domain(certificates[0], domain):
                listed = ", ".join(presented_names(certificates[0])) or "no name at all"
                return Verdict(None, f"the certificate is for {listed}, not for {domain}")
            until = self._anchors.verify(certificates, role, now=self._clock(), server_auth_only=server_auth_only)
        except PeerUntrusted as error:
            return Verdict(None, error.message)
        except ValueError as error:
            return Verdict(None, f"the certificate cannot be read: {error}")
        return Verdict("pkix", until=until)

    async def _dane(self, dns: Dns, domain: str, certificates: Sequence[x509.Certificate], role: Role) -> str:
        try:
            located = await self._locator.locate(domain, "optional")
            return await dane.prove(dns, domain, located, certificates, role, now=self._clock())
        except MoimError as error:
            return error.message
