"""Where a domain's server is (RFC 6120 section 3.2, XEP-0368): SRV records in their order, else the domain itself.

Both kinds of SRV records count as one list, as XEP-0368 section 3 has it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from moim.errors import MoimError, NotFound, PeerUnreachable
from moim.federation.guard import Guard
from moim.model import domain_name
from moim.net.resolver import Answer, SrvRecord
from moim.proto.xmpp.s2s import Use

STANDARD_PORT = 5269
_MAX_TARGETS = 16
_MAX_ADDRESSES = 8
_MAX_ENDPOINTS = 24


class Dns(Protocol):
    """The questions that are asked of name servers."""

    async def services(self, name: str) -> Answer:
        """SRV."""
        ...

    async def addresses(self, host: str) -> Answer:
        """A and AAAA."""
        ...

    async def associations(self, name: str) -> Answer:
        """TLSA."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """One host and port that a domain names. ``direct``: TLS from the first byte."""

    host: str
    port: int
    direct: bool
    priority: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address to connect to."""

    address: str
    port: int
    direct: bool
    host: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Located:
    """A domain's targets in the order to try. ``srv``: its records say so; ``authentic``: and DNSSEC vouches for it."""

    targets: tuple[Target, ...]
    srv: bool
    authentic: bool


@dataclass(slots=True)
class Endpoints:
    """The addresses of targets, and sentences about those that are not used."""

    found: list[Endpoint] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    absent: bool = False
    """Whether the DNS says of every target that it has no address."""


class Locator:
    """Asks the DNS about other domains. ``choose`` gives a number below its argument, for weighted choice."""

    def __init__(self, dns: Dns, guard: Guard, *, choose: Callable[[int], int] = random.randrange) -> None:
        self._dns = dns
        self._guard = guard
        self._choose = choose

    async def locate(self, domain: str, tls: Use) -> Located:
        """The targets of a domain. Raises NotFound when there is no server, PeerError when nobody answers."""
        name = domain.strip("[]")
        try:
            ipaddress.ip_address(name)
            return Located((Target(name, STANDARD_PORT, direct=False),), srv=False, authentic=False)
        except ValueError:
            name = domain_name(domain)
        plain, direct = await asyncio.gather(
            self._dns.services(f"_xmpp-server._tcp.{name}"), self._services(f"_xmpps-server._tcp.{name}")
        )
        if _says_no(plain) and (direct is None or not direct.services or _says_no(direct)):
            raise NotFound(f"{name} says in the DNS that it exchanges no messages (SRV target '.')")
        targets = [_target(r, direct=False) for r in plain.services if r.target]
        if tls != "off" and direct is not None:
            targets += [_target(r, direct=True) for r in direct.services if r.target]
        if targets:
            authentic = plain.authentic and (direct is None or direct.authentic or not direct.services)
            return Located(tuple(self.ordered(targets)[:_MAX_TARGETS]), srv=True, authentic=authentic)
        if plain.status in ("failed", "refused"):
            raise PeerUnreachable(f"the name server {plain.server} could not tell where {name} is ({plain.detail})")
        return Located((Target(name, STANDARD_PORT, direct=False),), srv=False, authentic=plain.authentic)

    async def _services(self, name: str) -> Answer | None:
        try:
            return await self._dns.services(name)
        except MoimError:
            return None  # name servers that cannot be asked for one kind are asked for the other all the same

    def ordered(self, targets: Sequence[Target]) -> list[Target]:
        """By priority, then by chance according to weight (RFC 2782); TLS from the start first where all is equal."""
        found: list[Target] = []
        for priority in sorted({target.priority for target in targets}):
            rest = sorted((t for t in targets if t.priority == priority), key=lambda t: (t.weight, not t.direct))
            while rest:
                total = sum(target.weight for target in rest)
                at = self._choose(total + 1) if total else 0
                for target in rest:
                    at -= target.weight
                    if at <= 0:
                        break
                rest.remove(target)
                found.append(target)
        return found

    async def endpoints(self, located: Located, domain: str) -> Endpoints:
        """Where to connect, in order. Families take turns within a target (RFC 8305 section 4)."""
        result = Endpoints()
        answers = await asyncio.gather(*(self._addresses(target.host) for target in located.targets))
        seen: set[tuple[str, int, bool]] = set()
        result.absent = not any(addresses or problem for addresses, problem in answers)
        for target, (addresses, problem) in zip(located.targets, answers, strict=True):
            if not addresses:
                result.problems.append(problem or f"{target.host} has no address")
            for address in _in_turns(addresses)[:_MAX_ADDRESSES]:
                place = (address, target.port, target.direct)
                if place in seen or len(result.found) >= _MAX_ENDPOINTS:
                    continue
                seen.add(place)
                if refusal := self._guard.refusal(address, target.port):
                    result.problems.append(f"{target.host} is not tried: {refusal}")
                else:
                    result.found.append(Endpoint(*place, target.host, target.priority))
        return result

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, whatever they are; none when it has none or nobody tells."""
        addresses, _ = await self._addresses(host)
        return addresses

    async def _addresses(self, host: str) -> tuple[tuple[str, ...], str]:
        """The addresses of a host, and why nobody knows whether it has any."""
        try:
            answer = await self._dns.addresses(host)
        except MoimError as error:
            return (), f"the addresses of {host} are not known: {error.message}"
        unknown = answer.status in ("failed", "refused")
        return answer.addresses, f"the addresses of {host} are not known: {answer.detail}" if unknown else ""


def _target(record: SrvRecord, *, direct: bool) -> Target:
    return Target(record.target, record.port, direct, record.priority, record.weight)


def _says_no(answer: Answer) -> bool:
    return len(answer.services) == 1 and not answer.services[0].target


def _in_turns(addresses: Sequence[str]) -> list[str]:
    six = [address for address in addresses if ":" in address]
    four = [address for address in addresses if ":" not in address]
    found: list[str] = []
    while six or four:
        found += [family.pop(0) for family in (six, four) if family]
    return found
