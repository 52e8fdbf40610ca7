"""``moim federation check``: everything that an administrator would try with nslookup and telnet, in one go, in words.

Each step says what was tried and what came back. The first that failed decides the verdict and the next step to take.
What only the outside can tell (whether a firewall lets others in) is told apart from what was tried here: when the
other server calls us back in dialback, it has told us.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from moim.errors import MoimError, NotFound
from moim.federation.connecting import Connector
from moim.federation.hosting import hoster
from moim.federation.locating import Endpoint, Endpoints, Located, Locator
from moim.federation.policies import PROBER, Policies, Policy
from moim.federation.proofs import Proofs
from moim.federation.stream import Stream, StreamFailed
from moim.federation.streams import Streams
from moim.federation.verifying import Verifier
from moim.model import domain_name
from moim.proto.xmpp import s2s

State = Literal["ok", "warning", "failed", "unknown"]

_MAX_ENDPOINTS = 6
_MAX_DOORS = 4
_NO_DIALBACK = ("not-authorized", "policy-violation", "not-acceptable", "forbidden", "encryption-required")
"""What servers say that insist on certificates."""
_NO_IPV6 = ("unreachable", "Cannot assign requested address", "Address family not supported")
"""What the kernel of a host says that has no IPv6, or no way to that network."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was tried. ``next`` is what to do when it failed."""

    what: str
    state: State
    text: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class Own:
    """This site: its domain, where others are told to connect, and the certificates (DER) that it shows there."""

    domain: str
    host: str
    addresses: tuple[str, ...]
    port: int
    certificates: frozenset[bytes]


class Checker:
    """Checks one domain after the other. ``own`` is asked at each check, and may touch the disk."""

    def __init__(
        self,
        own: Callable[[], Own],
        *,
        locator: Locator,
        streams: Streams,
        connector: Connector,
        verifier: Verifier,
        proofs: Proofs,
        policies: Policies,
        keys: s2s.Keys,
        clock: Callable[[], float],
        patience: float,
    ) -> None:
        self._own = own
        self._locator = locator
        self._streams = streams
        self._connector = connector
        self._verifier = verifier
        self._proofs = proofs
        self._policies = policies
        self._keys = keys
        self._clock = clock
        self._patience = patience

    async def check(self, domain: str) -> AsyncIterator[dict[str, Any]]:
        """Each step as it is done, then the verdict: ``verdict``, ``next``, ``ok`` and all ``steps``.

        Raises UsageError for what is no domain.
        """
        name, own = domain_name(domain), await asyncio.to_thread(self._own)
        steps: list[Step] = []
        async for step in self._steps(name, own):
            steps.append(step)
            yield asdict(step)
        yield _verdict(name, own, steps)

    async def _steps(self, name: str, own: Own) -> AsyncIterator[Step]:
        policy = self._policies.of(name)
        if name != own.domain:
            if policy.refusal:
                yield Step("policy", "failed", policy.refusal, f"moim federation policy set {name} --access allow")
                return
            yield Step("policy", "ok", f"messages with {name} are allowed: {_rules(policy.rules)}")
        async for step in self._ours(own):
            yield step
        if name == own.domain:
            return
        try:
            located = await self._locator.locate(name, policy.tls)
        except NotFound as error:
            yield Step("their records", "failed", error.message, f"{name} has to be asked: its DNS says no on purpose")
            return
        except MoimError as error:
            yield Step("their records", "failed", error.message, "check federation.resolvers, and DNS from this host")
            return
        yield _records(name, located)
        where = await self._locator.endpoints(located, name)
        for problem in where.problems:
            yield Step("their addresses", "warning", problem)
        if not where.found:
            yield _nowhere(name, located, where)
            return
        reached = False
        only_six = all(":" in endpoint.address for endpoint in where.found)
        for endpoint in where.found[:_MAX_ENDPOINTS]:
            told = [step async for step in self._theirs(name, own, endpoint, only_six=only_six)]
            for step in told:
                yield step
            reached = reached or (told[-1].what in ("encryption", "certificate") and told[-1].state != "failed")
        if reached:
            async for step in self._both_ways(name, own):
                yield step

    # --- this site ----------------------------------------------------------------------------------------------

    async def _ours(self, own: Own) -> AsyncIterator[Step]:
        doors = [Endpoint(address, own.port, False, own.host) for address in own.addresses[:2]]
        try:
            located = await self._locator.locate(own.domain, "optional")
        except MoimError as error:
            yield Step(
                "our records", "warning", f"nobody finds us by DNS as seen from here: {error.message}", _publish(own)
            )
            located = None
        if located is not None and not located.srv:
            yield Step("our records", "warning", f"{own.domain} has no SRV record as seen from here", _publish(own))
        elif located is not None:
            targets = located.targets[:_MAX_DOORS]
            who, where = next(((found, one.host) for one in targets if (found := hoster(one.host))), ("", ""))
            if who:
                yield Step(
                    "our records", "failed", f"the SRV records of {own.domain} lead to {who} ({where})",
                    f"take {own.domain} out of {who}'s service, then {_publish(own)}",
                )  # fmt: skip
                return
            yield Step("our records", "ok", f"others are told to find {own.domain} at {_listed(located)}")
            doors = []
            for target in targets:
                addresses = await self._locator.addresses(target.host)
                doors += [Endpoint(one, target.port, target.direct, target.host) for one in addresses[:2]]
                if not addresses:
                    remedy = f"publish an A or AAAA record for {target.host}"
                    yield Step("our records", "failed", f"{target.host} has no address", remedy)
        for door in doors[:_MAX_DOORS]:
            yield await self._own_door(own, door)

    async def _own_door(self, own: Own, endpoint: Endpoint) -> Step:
        """Opens a stream to ourselves the way others do. Behind a NAT the way may differ from inside."""
        place = f"{endpoint.address}:{endpoint.port}"
        stream, problem = await self._probe(endpoint, PROBER, own.domain)
        try:
            if problem:
                return Step(
                    "port in", "warning", f"from here, {place} does not lead to us: {problem}",
                    f"forward TCP {endpoint.port} at the firewall to this site's edge (some firewalls only do so for "
                    "connections from outside: then the dialback below tells)",
                )  # fmt: skip
            if stream.chain and stream.chain[0] not in own.certificates:
                return Step(
                    "port in", "failed", f"at {place} another server answers for {own.domain}",
                    f"point the records of {own.domain}, or the port forward, at this site",
                )  # fmt: skip
            return Step("port in", "ok", f"{place} leads to us, with {_tls(stream)}")
        finally:
            stream.close("the check is done")

    # --- the other one ------------------------------------------------------------------------------------------

    async def _theirs(self, name: str, own: Own, endpoint: Endpoint, *, only_six: bool) -> AsyncIterator[Step]:
        policy = self._policies.of(name)
        place = (
            f"{endpoint.host} ({endpoint.address}:{endpoint.port}{', TLS from the start' if endpoint.direct else ''})"
        )
        stream, problem = await self._probe(
            endpoint, own.domain, name, tls="off" if policy.tls == "off" else "optional"
        )
        try:
            if not stream.connected.done() or stream.connected.exception() is not None:
                if ":" in endpoint.address and any(word in problem for word in _NO_IPV6):
                    yield Step(
                        "port out", "failed" if only_six else "warning",
                        f"{place} is an IPv6 address, and this host has no way there: {problem}",
                        f"give this host IPv6, or ask {name}'s administrator for an IPv4 address",
                    )  # fmt: skip
                    return
                yield Step(
                    "port out", "failed", f"{place} cannot be reached: {problem}",
                    f"open TCP {endpoint.port} from this host to the internet; if it is open, {name}'s server is down",
                )  # fmt: skip
                return
            yield Step("port out", "ok", f"{place} accepts connections")
            if stream.condition in ("host-unknown", "host-gone"):
                yield Step(
                    "stream", "failed", f"{place} does not serve {name}: its records lead to somebody else's server",
                    f"ask {name}'s administrator to correct the SRV records, or to set the domain up on that server",
                )  # fmt: skip
                return
            encrypt = f"moim federation policy set {name} --tls required"
            if problem:
                remedy = encrypt if policy.tls == "off" and stream.final else f"ask {name}'s administrator"
                yield Step("stream", "failed", f"{place} opens no stream: {problem}", remedy)
            elif policy.tls == "off":
                yield Step("encryption", "warning", f"encryption is off for {name}, by the policy here", encrypt)
            elif not stream.secure:
                needed = policy.tls == "required"
                yield Step(
                    "encryption", "failed" if needed else "warning", f"{place} offers no encryption",
                    f"moim federation policy set {name} --tls optional" if needed else f"tell {name}'s administrator",
                )  # fmt: skip
            else:
                yield Step("encryption", "ok", f"{place}: {_tls(stream)}")
                yield await self._certificate(name, stream, policy)
        finally:
            stream.close("the check is done")

    async def _certificate(self, name: str, stream: Stream, policy: Policy) -> Step:
        if policy.certificates == "off":
            return Step("certificate", "ok", f"the certificate of {name} is not looked at, by the policy here")
        found = await self._proofs.judge(name, stream.chain, "server", policy)
        if found.proof is not None:
            return Step("certificate", "ok", f"the certificate proves {name} ({found.proof})")
        if policy.certificates != "required" and policy.dialback:
            remedy = f"tell {name}'s administrator; until then dialback vouches for {name}"
            return Step("certificate", "warning", found.reason, remedy)
        less = f"moim federation policy set {name} --certificates optional --dialback on"
        if "trusted here" in found.reason:
            return Step("certificate", "failed", found.reason, f"add its authority to federation.trusted, or: {less}")
        remedy = f"ask {name}'s administrator for a right certificate; to talk by dialback until then: {less}"
        return Step("certificate", "failed", found.reason, remedy)

    async def _both_ways(self, name: str, own: Own) -> AsyncIterator[Step]:
        policy = self._policies.of(name)
        made_up = s2s.Verify(own.domain, name, secrets.token_hex(8), secrets.token_hex(32))
        outcome, text = await self._verifier.verify(made_up, "check")
        if outcome == "invalid":
            yield Step("dialback to them", "ok", f"{name} answers for its keys, and refuses a wrong one")
        elif outcome == "valid":
            yield Step(
                "dialback to them", "failed", f"{name} says that a made-up key is right: anybody can speak for it",
                f"moim federation policy set {name} --certificates required",
            )  # fmt: skip
        else:
            yield Step("dialback to them", "warning", f"{name} does not answer for its keys: {text or outcome}")
        called: Stream | None = None
        if policy.dialback:
            called, step = await self._called_back(name, own)
            yield step
        else:
            yield Step("dialback to us", "unknown", f"dialback is off for {name}, so it was not tried")
        try:
            async with asyncio.timeout(self._patience):
                stream = await self._connector.connect(own.domain, name)
            how = next(iter(stream.sends.values()), "dialback")
            yield Step("authentication", "ok", f"a stream to {name} opens, authenticated by {how}")
        except TimeoutError:
            yield Step("authentication", "failed", f"{name} does not finish the authentication", _let_in(own))
        except MoimError as error:
            yield Step("authentication", "failed", error.message, f"compare: moim federation policy show {name}")
        if called is not None:
            called.close("the check is done")

    async def _called_back(self, name: str, own: Own) -> tuple[Stream | None, Step]:
        """Opens a stream without showing a certificate, so that the other server has to call back."""
        what = "dialback to us"
        try:
            async with asyncio.timeout(self._patience):
                stream = await self._connector.connect(own.domain, name, external=False)
        except TimeoutError:
            return None, Step(what, "failed", f"{name} does not finish the authentication", _let_in(own))
        except MoimError as error:
            if "somebody else may host" in error.message:
                remedy = f"find out who else hosts {own.domain} (an old hoster), and have it removed there"
                return None, Step(what, "failed", error.message, remedy)
            if isinstance(error, StreamFailed) and error.condition in _NO_DIALBACK:
                text = f"{name} takes certificates alone, so it did not call back: {error.message}"
                return None, Step(what, "unknown", text)
            return None, Step(what, "failed", error.message, _let_in(own))
        return stream, Step(what, "ok", f"{name} called us back, and took our key: its connections reach us")

    async def _probe(
        self, endpoint: Endpoint, local: str, remote: str, *, tls: s2s.Use = "optional"
    ) -> tuple[Stream, str]:
        """A stream as far as encryption goes, and what went wrong."""
        rules = s2s.Rules(tls=tls, certificates="off")
        machine = s2s.Outgoing(
            local, remote, rules, self._keys, now=self._clock(), secure=endpoint.direct, verify_only=True,
            timeout=self._patience,
        )  # fmt: skip
        stream = self._streams.dial(endpoint, machine)
        try:
            async with asyncio.timeout(self._patience):
                await asyncio.shield(stream.connected)
                stream.start()
                await stream.settled.wait()
        except TimeoutError:
            return stream, f"nothing came within {self._patience:g} s"
        except MoimError:
            return stream, stream.reason
        return stream, stream.reason if stream.over else ""


def _nowhere(name: str, located: Located, where: Endpoints) -> Step:
    what = "their addresses"
    if any(" is not tried: " in problem for problem in where.problems):
        text = f"the records of {name} lead to no address that may be connected to: {'; '.join(where.problems)}"
        return Step(what, "failed", text, "if that is meant, allow its network: federation.target_networks")
    if located.srv:
        text = f"the SRV records of {name} lead to no address: {'; '.join(where.problems)}"
        return Step(what, "failed", text, f"ask {name}'s administrator for an address of what its SRV records name")
    text = f"the DNS has neither an SRV record nor an address of {name}"
    remedy = f"look at how {name} is written; if it is right, ask its administrator for an SRV record"
    return Step(what, "failed", text, remedy)


def _rules(rules: s2s.Rules) -> str:
    return f"TLS {rules.tls}, certificates {rules.certificates}, dialback {'on' if rules.dialback else 'off'}"


def _tls(stream: Stream) -> str:
    return f"{stream.tls.get('version', 'TLS')}, {stream.tls.get('cipher', '')}" if stream.secure else "no encryption"


def _publish(own: Own) -> str:
    return f"publish: _xmpp-server._tcp.{own.domain} SRV 0 0 {own.port} {own.host}"


def _let_in(own: Own) -> str:
    return f"let TCP {own.port} from the internet through to this site's edge, and {_publish(own)}"


def _listed(located: Located) -> str:
    return ", ".join(f"{t.host}:{t.port}{' (TLS)' if t.direct else ''}" for t in located.targets[:6])


def _records(name: str, located: Located) -> Step:
    listed = _listed(located)
    if not located.srv:
        return Step("their records", "warning", f"{name} has no SRV record, so its own address is tried: {listed}")
    who = next((found for target in located.targets if (found := hoster(target.host))), "")
    hosted = f"; it is hosted by {who}" if who else ""
    return Step("their records", "ok", f"the SRV records of {name} lead to {listed}{hosted}")


def _verdict(name: str, own: Own, steps: Sequence[Step]) -> dict[str, Any]:
    done = {step.what: step for step in steps if step.state == "ok"}
    failed = [step for step in steps if step.state == "failed"]
    # One address of several that is down keeps nobody from the others.
    failed = [step for step in failed if step.what not in ("port out", "stream") or step.what not in done]
    if name == own.domain:
        trouble = next((step for step in steps if step.state in ("failed", "warning")), None)
        words = f"{name} is this site's own domain, and others are told to find it here."
        if trouble is not None:
            words = f"{name} is this site's own domain, and others may not find it: {trouble.text}."
        following = trouble.next if trouble is not None else ""
        return _said(name, words, following, steps, ok=trouble is None)
    works = "authentication" in done
    if works and "dialback to us" in done and not failed:
        words, following = f"Messages between {own.domain} and {name} go both ways.", ""
        # What does not stand in the way now may do so after the next change of policy, or with others.
        found = (step for step in steps if step.state == "warning" and step.what in ("encryption", "certificate"))
        if (warning := next(found, None)) is not None:
            words, following = f"{words} Yet {warning.text}.", warning.next
    elif works and (failed or "dialback to us" not in done):
        first = failed[0] if failed else None
        said = first.text if first is not None else "whether theirs reach us could not be tried from here"
        words = f"Messages to {name} go out. {said[:1].upper()}{said[1:]}."
        following = first.next if first is not None else _let_in(own)
    elif failed:
        first = failed[0]
        words, following = f"Nothing is exchanged with {name}: {first.text}.", first.next
        if first.what == "policy":
            words = f"The policy here keeps {name} out: {first.text}."
    else:
        words, following = f"It could not be told whether messages reach {name}.", "look at log/inside.log"
    return _said(name, words, following, steps, ok=works and not failed)


def _said(name: str, words: str, following: str, steps: Sequence[Step], *, ok: bool) -> dict[str, Any]:
    return {"verdict": words, "next": following, "ok": ok, "domain": name, "steps": [asdict(step) for step in steps]}
