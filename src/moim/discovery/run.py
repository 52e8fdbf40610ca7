"""The state of one discovery, and the requests that every part of its flow makes: ask, resolve, get, sign in.

A flow is a generator that yields ``Wait`` and returns a value; parts call each other with ``yield from``. A flow that
cannot go on raises ``Stop`` with the failure to show.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from moim.discovery.actions import (
    Addresses,
    AskPassword,
    Credentials,
    Failed,
    HttpGet,
    Nothing,
    QueryAddress,
    Request,
    Response,
    Result,
)
from moim.discovery.memory import Memory
from moim.discovery.messages import sentence
from moim.discovery.outcome import (
    Authenticator,
    Device,
    Failure,
    FailureKind,
    Location,
    Outcome,
    Params,
    ProductMode,
    ServicePoint,
    Step,
    StepKind,
    StepResult,
)
from moim.discovery.target import Target
from moim.errors import MoimError
from moim.model import Address

T = TypeVar("T")
MAX_TRIES = 3
"""Passwords that a person may type."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A result with the seconds that it took."""

    result: Result
    elapsed: float


Answers = Sequence["Answered | None"]


@dataclass(frozen=True, slots=True)
class Wait:
    """What a flow yields: requests to make at the same time.

    It is resumed with their answers in the same order when all are there, or when ``enough`` of the answers so far says
    so; the others are cancelled and None.
    """

    requests: tuple[Request, ...]
    enough: Callable[[Answers], bool] | None = None
    grace: float = 0.0
    """Seconds that the others still get after ``enough``."""


Flow = Generator[Wait, Answers, T]


class Stop(Exception):
    """The flow ends with this failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Url:
    """A server and a path; ``path`` begins with a slash and keeps its query."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Url | None:
        """An absolute URL from a server's document, or None when it is not one that we would follow."""
        try:
            parts = urlsplit(text.strip()[:2048])
            port = parts.port
        except ValueError:
            return None
        host = (parts.hostname or "").rstrip(".")
        path = parts.path or "/"
        if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.fragment:
            return None
        if not (host + path + parts.query).isascii() or any(c.isspace() for c in path + parts.query):
            return None
        scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
        query = f"?{parts.query}" if parts.query else ""
        return cls(scheme, host, port or (443 if scheme == "https" else 80), path + query)

    @property
    def place(self) -> str:
        """``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Access(Protocol):
    """A way to the servers of the inside: directly, or through the edge."""

    def get(self, run: Run, url: Url, *, auth: bool) -> Flow[Got]:
        """GETs an inside URL, with the user's credentials when ``auth``."""
        ...


@dataclass(frozen=True, slots=True)
class Got:
    """The end of one GET: a response or a failure, where it came from, and the milliseconds it took."""

    result: Response | Failed
    where: str
    ms: float


class Run:
    """Everything one discovery knows so far. ``wall`` + monotonic now = seconds since 1970."""

    def __init__(
        self,
        target: Target,
        memory: Memory,
        *,
        wall: float,
        pick: Callable[[], float],
        sign_in: bool,
        tell: Callable[[Step], None],
    ) -> None:
        self.target = target
        self.memory = memory
        self.pick = pick
        self.wants_sign_in = sign_in
        self.now = 0.0
        self.address: Address | None = target.address
        self.password: str | None = None
        self.user_id = ""
        self.location: Location = "manual"
        self.authenticator: Authenticator | None = None
        self.product_mode: ProductMode | None = None
        self.signed_in = False
        self.jid = ""
        self.display_name = ""
        self.home_cluster = ""
        self.server_version = ""
        self.devices: tuple[Device, ...] = ()
        self.configuration: dict[str, str] = {}
        self.error: Failure | None = None
        self._wall = wall
        self._tell = tell
        self._steps: list[Step] = []
        self._services: dict[tuple[str, str, int], ServicePoint] = {}
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._asked = 0

    @property
    def wall(self) -> float:
        """Seconds since 1970 now."""
        return self._wall + self.now

    @property
    def username(self) -> str:
        """What the user is called at UDS and the edge: the id that UDS gave, else the part before ``@``."""
        return self.user_id or (self.address.local if self.address is not None else "")

    # -- telling ----------------------------------------------------------------------------------------------------

    def step(
        self,
        kind: StepKind,
        code: str,
        result: StepResult,
        *,
        what: str = "",
        where: str = "",
        ms: float = 0.0,
        why: str = "",
        **params: str | int,
    ) -> None:
        """Tells one step; ``code`` and ``why`` name sentences of the catalogue, ``params`` fills both."""
        self._add(kind, code, result, what, where, ms, why, params)

    def failed(
        self, kind: StepKind, failure: Failure, *, what: str = "", where: str = "", ms: float = 0.0, why: str = ""
    ) -> None:
        """Tells a step that failed, in the words of its failure."""
        self._add(kind, failure.code, "failed", what, where, ms, why, failure.params)

    def _add(
        self, kind: StepKind, code: str, result: StepResult, what: str, where: str, ms: float, why: str, params: Params
    ) -> None:
        detail, reason = sentence(code, params), sentence(why, params) if why else ""
        step = Step(kind, code, what, where, result, detail, round(ms, 1), reason, why, params)
        self._steps.append(step)
        self._tell(step)

    def service(
        self,
        name: str,
        host: str,
        port: int,
        transport: Literal["https", "http", "xmpp", "xmpps", "sips", "turn", "other"],
        *,
        used: bool = False,
    ) -> None:
        """Notes a service that was found."""
        key = (name, host, port)
        known = self._services.get(key)
        point = ServicePoint(name, host, port, transport, (), used or (known.used if known else False))
        self._services[key] = point

    def outcome(self, elapsed_ms: float) -> Outcome:
        """Everything as it stands."""
        services = tuple(
            replace(point, addresses=self._resolved.get(point.host, ())) for point in self._services.values()
        )
        return Outcome(
            address=str(self.address) if self.address is not None else "",
            domain=self.target.domain,
            voice_domain=self.target.voice_domain,
            location=self.location,
            services=services,
            authenticator=self.authenticator,
            product_mode=self.product_mode,
            signed_in=self.signed_in,
            jid=self.jid,
            display_name=self.display_name,
            home_cluster=self.home_cluster,
            server_version=self.server_version,
            devices=self.devices,
            configuration=dict(self.configuration),
            steps=tuple(self._steps),
            elapsed_ms=round(elapsed_ms, 1),
            error=self.error,
        )

    # -- asking -----------------------------------------------------------------------------------------------------

    def ask(self, request: Request) -> Flow[Answered]:
        """One request."""
        (answer,) = yield Wait((request,))
        assert answer is not None
        return answer

    def resolve(self, host: str) -> Flow[tuple[str, ...] | Failed]:
        """Addresses of a host, asked for once; failures are told here."""
        known = self._resolved.get(host)
        if known:
            return known
        question = f"A {host}"
        kept = self.memory.fresh(question, self.wall)
        if kept is not None and isinstance(kept.answer, Addresses):
            self._resolved[host] = kept.answer.addresses
            return kept.answer.addresses
        answer = yield from self.ask(QueryAddress(host))
        result, ms = answer.result, answer.elapsed * 1000
        what = f"A/AAAA {host}"
        if isinstance(result, Addresses) and result.addresses:
            self._resolved[host] = result.addresses
            if result.ttl:
                self.memory.keep(question, result, self.wall)
            listed = ", ".join(result.addresses[:4])
            self.step(
                "address", "address-found", "ok", what=what, where=result.server, ms=ms, host=host, addresses=listed
            )
            return result.addresses
        if isinstance(result, Nothing):
            code = "address-none" if result.exists else "address-no-name"
            self.step("address", code, "none", what=what, where=result.server, ms=ms, host=host)
            return Failed("dns-failed", "no-address", result.server)
        failed = result if isinstance(result, Failed) else Failed("rubbish")
        old = self.memory.stale(question, self.wall)
        if old is not None and isinstance(old.answer, Addresses):
            self._resolved[host] = old.answer.addresses
            self.step("cache", "address-stale", "ok", what=what, ms=ms, host=host, minutes=minutes(old.age(self.wall)))
            return old.answer.addresses
        self.step("address", dns_code(failed), "failed", what=what, where=failed.server, ms=ms, name=host)
        return Failed("dns-refused" if failed.reason == "dns-refused" else "dns-failed", failed.detail, failed.server)

    def forget_addresses(self) -> None:
        """Drops resolved names, so that they are asked for again."""
        self._resolved.clear()

    def get(self, url: Url, headers: tuple[tuple[str, str], ...] = (), *, name: str = "") -> Flow[Got]:
        """GETs a URL after resolving its host; ``name`` is whom the certificate must be for when not the host."""
        addresses = yield from self.resolve(url.host)
        if isinstance(addresses, Failed):
            return Got(addresses, url.place, 0.0)
        answer = yield from self.ask(HttpGet(url.scheme, url.host, url.port, url.path, addresses, headers, name))
        result = answer.result if isinstance(answer.result, Response | Failed) else Failed("rubbish")
        where = url.place
        if isinstance(result, Response) and result.address:
            where = f"{url.place} ({result.address})"
        return Got(result, where, answer.elapsed * 1000)

    def credentials(self, *, again: bool = False) -> Flow[bool]:
        """Asks for the password unless it is known; False when there is nobody to ask or enough was asked."""
        if self.password is not None and self.address is not None and not again:
            return True
        if self._asked >= MAX_TRIES or (self._asked and not again):
            return False
        self._asked += 1
        named = str(self.address) if self.address is not None else ""
        answer = yield from self.ask(AskPassword(named, self.target.domain, again))
        if not isinstance(answer.result, Credentials):
            return False
        if self.address is None:
            user = answer.result.user
            try:
                self.address = Address.parse(user if "@" in user else f"{user}@{self.target.domain}")
            except MoimError as error:
                raise Stop(Failure.of("bad-user", "usage", user=user[:64], reason=error.message)) from None
        self.password = answer.result.password
        return True

    def basic(self) -> tuple[str, str]:
        """The Basic header of the user (RFC 7617, UTF-8)."""
        plain = f"{self.username}:{self.password or ''}".encode()
        return ("Authorization", "Basic " + base64.b64encode(plain).decode("ascii"))


_FAILURES: dict[str, FailureKind] = {
    "timeout": "network",
    "refused": "network",
    "unreachable": "network",
    "closed": "network",
    "tls-name": "trust",
    "tls-expired": "trust",
    "tls-untrusted": "trust",
    "tls-failed": "trust",
    "rubbish": "rubbish",
    "dns-refused": "network",
    "dns-failed": "network",
    "credentials": "credentials",
    "login-refused": "refused",
    "unencrypted": "trust",
}


def failure_of(failed: Failed, *, service: str, where: str) -> Failure:
    """The failure to show when a request to ``service`` at ``where`` (``host:port``) was the last hope."""
    code = "srv-target-no-address" if failed.detail == "no-address" else f"{failed.reason}"
    return Failure.of(
        f"server-{code}" if not code.startswith("srv") else code,
        _FAILURES[failed.reason],
        service=service,
        where=where,
        host=where.partition(" ")[0].rpartition(":")[0],
        detail=failed.detail[:300],
    )


def worst(failures: Sequence[Failure]) -> Failure:
    """The failure that tells most when several servers failed: trust before nonsense before silence."""
    order: tuple[FailureKind, ...] = ("trust", "rubbish", "refused", "credentials", "network", "manual", "usage")
    return min(failures, key=lambda failure: order.index(failure.kind))


def minutes(seconds: float) -> int:
    """Whole minutes, at least one, for sentences."""
    return max(1, round(seconds / 60))


def dns_code(failed: Failed) -> str:
    """The code of the sentence for a question that a name server did not answer."""
    known = {"timeout": "timeout", "unreachable": "unreachable", "refused": "unreachable"}
    known |= {"dns-refused": "refused", "dns-failed": "failed"}
    return f"dns-{known.get(failed.reason, 'rubbish')}"
