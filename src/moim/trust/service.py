"""Keeps every certificate of the site valid: issues what is missing or due, and tells who presents it.

Listeners hold the paths of a credential. On CertificateChanged they read the files again; connections that are up
keep the certificate they began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509

from moim.bus import Bus
from moim.errors import ConfigError, NotFound, UsageError
from moim.model import CertificateChanged, ServiceStatus
from moim.settings import Node, Site
from moim.trust import credentials, requests
from moim.trust.authority import Authority, new_key, trust_dir
from moim.trust.credentials import CertificateInfo, Credential
from moim.trust.profiles import KeyType, Place, Profile, certificate_name, profile_of
from moim.trust.settings import Settings

_OWN = ("tomcat", "cup-xmpp")  # presented by the inside node; the edge makes its own key
_EDGE = "edge"
_PEOPLES = "cup-xmpp"  # shown in the name of each domain

_log = logging.getLogger("moim.trust")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Service:
    """The certificates of the inside node, and the signature under the edge's.

    ``now`` gives the time in UTC; tests pass their own.
    """

    def __init__(self, site: Site, bus: Bus, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._site = site
        self._bus = bus
        self._now = now
        self._settings = site.section(Settings)
        self._home = trust_dir(site.root)
        nodes = site.settings.nodes
        self._place = Place(site.domain, _ips(nodes.inside), _ips(nodes.edge), site.here, site.settings.hosted_domains)
        self._authority: Authority | None = None
        self._lock = threading.Lock()
        self._seen: dict[str, object] = {}
        self._told: set[object] = set()
        self._missing: dict[str, tuple[str, ...]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def authority(self) -> Authority:
        """The site's authority. Raises ConfigError when it cannot be read."""
        if self._authority is None:
            self._authority = Authority.load(self._site.root)
        return self._authority

    async def start(self) -> None:
        """Issues what is missing or due, then looks again every ``check_seconds``."""
        await self.check()
        self._task = asyncio.create_task(self._run(), name="trust:renewal")

    async def stop(self) -> None:
        """Ends the timer."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def health(self) -> list[ServiceStatus]:
        """Listens nowhere; a row for each certificate, installed by hand, that lacks some of the site's domains."""
        return [
            ServiceStatus(
                "certificates", "inside", "-", "", 0, "degraded", f"{name} does not name {', '.join(missing)}"
            )
            for name, missing in sorted(self._missing.items())
        ]

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.check_seconds)
            try:
                await self.check()
            except Exception:
                _log.exception("the certificates could not be checked; trying again")

    async def check(self) -> list[str]:
        """Looks at every certificate once. Returns the purposes that changed, after telling the bus of each."""
        changed = await asyncio.to_thread(self._check)
        for purpose in changed:
            await self._bus.publish(CertificateChanged(purpose))
        return changed

    def credential(self, purpose: str) -> Credential:
        """The files of a purpose (``tomcat``) or of one certificate (``tomcat-ECDSA``), issued now if missing.

        The paths never change; the files do, after which CertificateChanged names the purpose. Raises NotFound for
        an unknown purpose and UsageError for ``edge``, whose key never leaves the edge.
        """
        profile, key = profile_of(purpose)
        if profile.purpose == _EDGE:
            raise UsageError("the key of 'edge' is on the edge node only", hint="use sign_edge with its request")
        name = certificate_name(profile.purpose, key or self._settings.key_type)
        with self._lock:
            if not self._files(name).chain.exists():
                self._issue(profile, key or self._settings.key_type)
        return self._files(name)

    def sign_edge(self, csr_pem: bytes) -> bytes:
        """Signs the edge's own request (PKCS #10, PEM) with the names of the site; returns the chain as PEM.

        Raises UsageError for a request that is not sound and Forbidden for one that asks for other names.
        """
        profile, _ = profile_of(_EDGE)
        names = profile.names(self._place)
        try:
            public_key = requests.accept(csr_pem, names)
        except Exception as error:
            _log.warning("refused a certificate request of the edge: %s", error)
            raise
        with self._lock:
            leaf = self.authority.issue(profile, names, public_key, now=self._now(), lifetime=self._lifetime)
            credentials.replace(self._home, _EDGE, [leaf], None)
        _log.info(
            "signed the edge's certificate, serial %x, valid until %s", leaf.serial_number, leaf.not_valid_after_utc
        )
        return credentials.chain_pem([leaf])

    async def renew(self, name: str) -> CertificateInfo | None:
        """Issues a certificate anew, whoever issued the present one; for ``edge`` asks the edge to send a request.

        Returns the new certificate, or None where it comes with the edge's request. Raises NotFound.
        """
        profile, key = profile_of(name)
        if profile.purpose == _EDGE:
            await self._bus.publish(CertificateChanged(_EDGE))
            return None
        kind = key or self._settings.key_type
        await asyncio.to_thread(self._renew, profile, kind)
        await self._bus.publish(CertificateChanged(profile.purpose))
        return await asyncio.to_thread(self._describe, certificate_name(profile.purpose, kind))

    async def certificates(self) -> list[CertificateInfo]:
        """Every certificate that is there, and the authority's own first."""
        return await asyncio.to_thread(self._list)

    # From here on: in a thread, or under the lock of one.

    @property
    def _lifetime(self) -> timedelta:
        return timedelta(days=self._settings.lifetime_days)

    def _files(self, name: str) -> Credential:
        return Credential(self._home / name / "chain.pem", self._home / name / "key.pem")

    def _names(self) -> list[str]:
        found = (entry.name for entry in self._home.iterdir() if not entry.name.startswith(".") and entry.is_dir())
        return sorted(found)

    def _issue(self, profile: Profile, kind: KeyType) -> None:
        name = certificate_name(profile.purpose, kind)
        key = new_key(kind)
        names = profile.names(self._place)
        leaf = self.authority.issue(profile, names, key.public_key(), now=self._now(), lifetime=self._lifetime)
        credentials.replace(self._home, name, [leaf], key)
        self._seen[name] = credentials.state_of(self._files(name))
        _log.info("issued %s, serial %x, valid until %s", name, leaf.serial_number, leaf.not_valid_after_utc)

    def _renew(self, profile: Profile, kind: KeyType) -> None:
        with self._lock:
            self._issue(profile, kind)

    def _check(self) -> list[str]:
        changed: list[str] = []
        wanted = {certificate_name(purpose, self._settings.key_type) for purpose in _OWN}
        with self._lock:
            for name in sorted(wanted.union(self._names())):
                try:
                    profile, key = profile_of(name)
                except NotFound:
                    continue  # a folder that somebody else put there
                if profile.purpose == _EDGE:
                    news = self._check_edge(profile)
                else:
                    news = self._check_own(name, profile, key or "rsa")
                if news and profile.purpose not in changed:
                    changed.append(profile.purpose)
        return changed

    def _check_own(self, name: str, profile: Profile, kind: KeyType) -> bool:
        files = self._files(name)
        if not files.chain.exists():
            self._issue(profile, kind)
            return True
        state = credentials.state_of(files)
        first, replaced = name not in self._seen, self._seen.get(name) != state
        try:
            leaf = credentials.load_pair(files)[0]
        except ConfigError as error:
            if first:
                _log.error("%s cannot be used and is issued anew: %s", name, error)
                self._issue(profile, kind)
                return True
            if replaced:  # said once; perhaps somebody is still copying
                _log.error("%s was replaced by files that cannot be used: %s", name, error)
                self._seen[name] = state
            return False
        self._seen[name] = state
        if self._due(leaf, profile):
            self._issue(profile, kind)
            self._missing.pop(name, None)
            return True
        self._look_for_domains(name, profile, leaf)
        if replaced and not first:
            _log.info("%s was replaced by hand, serial %x", name, leaf.serial_number)
            return True
        return False

    def _look_for_domains(self, name: str, profile: Profile, leaf: x509.Certificate) -> None:
        """Notes the domains whose people would be shown a certificate, installed by hand, that does not name them."""
        missing: tuple[str, ...] = ()
        if profile.purpose == _PEOPLES and not self.authority.issued(leaf):
            missing = tuple(one for one in self._place.domains if not credentials.covers(leaf, one))
        if missing and self._missing.get(name) != missing:
            _log.warning(
                "%s, installed by hand, does not name %s: clients of these domains will refuse it",
                name,
                ", ".join(missing),
            )
        if missing:
            self._missing[name] = missing
        else:
            self._missing.pop(name, None)

    def _check_edge(self, profile: Profile) -> bool:
        try:
            leaf = credentials.load_chain(self._files(_EDGE).chain)[0]
        except ConfigError:
            return False
        if not self._due(leaf, profile) or leaf.serial_number in self._told:
            return False
        self._told.add(leaf.serial_number)
        return True

    def _due(self, leaf: x509.Certificate, profile: Profile) -> bool:
        left = leaf.not_valid_after_utc - self._now()
        if self.authority.issued(leaf):
            outdated = set(credentials.alternative_names(leaf)) != set(profile.names(self._place))
            return outdated or left < (leaf.not_valid_after_utc - leaf.not_valid_before_utc) / 3
        days = left.days
        if days < 30 and (leaf.serial_number, days) not in self._told:
            self._told.add((leaf.serial_number, days))
            _log.warning(
                "the certificate for %s that was installed by hand ends on %s: replace it, or renew it from the site's"
                " authority",
                profile.purpose,
                leaf.not_valid_after_utc,
            )
        return False

    def _describe(self, name: str) -> CertificateInfo:
        leaf = credentials.load_chain(self._files(name).chain)[0]
        return credentials.describe(name, profile_of(name)[0].purpose, leaf, self.authority)

    def _list(self) -> list[CertificateInfo]:
        found = [credentials.describe("authority", "authority", self.authority.certificate, self.authority)]
        for name in self._names():
            with contextlib.suppress(NotFound, ConfigError):
                found.append(self._describe(name))
        return found


def _ips(node: Node) -> tuple[str, ...]:
    given = dict.fromkeys(value for value in (node.address, node.public_address) if value)
    return tuple(value for value in given if not ipaddress.ip_address(value).is_unspecified)
