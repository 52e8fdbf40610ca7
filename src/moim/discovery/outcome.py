"""What discovery tells: each step as it happens, the services found, and the outcome or the failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from moim.discovery.messages import sentence

StepKind = Literal["input", "cache", "srv", "address", "decision", "edge", "uds", "profile", "password", "sign-in"]
StepResult = Literal["ok", "none", "failed", "skipped"]
Location = Literal["inside", "outside", "manual"]
Authenticator = Literal["im-and-presence", "call-manager", "hosted"]
ProductMode = Literal["full-uc", "im-only", "phone"]
FailureKind = Literal["usage", "manual", "credentials", "network", "trust", "rubbish", "refused"]
Params = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done.

    ``what`` was asked ``where``; ``result`` in a word and ``detail`` in a sentence; ``why_next`` says what follows
    from it. ``code`` and ``why_code`` are the stable names of both sentences, ``params`` fills them in any language.
    """

    kind: StepKind
    code: str
    what: str
    where: str
    result: StepResult
    detail: str
    elapsed_ms: float
    why_next: str = ""
    why_code: str = ""
    params: Params = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object with the field names of this class."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why it ended without a sign-in: a stable ``code``, a sentence, and the next step for the person."""

    code: str
    kind: FailureKind
    message: str
    hint: str
    params: Params = field(default_factory=dict)

    @classmethod
    def of(cls, code: str, kind: FailureKind, **params: str | int) -> Failure:
        """A failure with its sentences from the catalogue."""
        return cls(code, kind, sentence(code, params), sentence(f"hint.{code}", params), params)


@dataclass(frozen=True, slots=True)
class ServicePoint:
    """A service that was found.

    ``name``: ``uds``, ``im-and-presence``, ``config``, ``xmpp``, ``edge``, ``edge-xmpp``, ``edge-sip``, ``edge-turn``.
    """

    name: str
    host: str
    port: int
    transport: Literal["https", "http", "xmpp", "xmpps", "sips", "turn", "other"]
    addresses: tuple[str, ...] = ()
    used: bool = False
    """Whether discovery talked to it and it answered rightly."""


@dataclass(frozen=True, slots=True)
class Device:
    """One device of the user, as the user data service lists it."""

    name: str
    model: str
    description: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one discovery. Empty strings and None stand for "not known"."""

    address: str
    domain: str
    voice_domain: str
    location: Location
    services: tuple[ServicePoint, ...]
    authenticator: Authenticator | None
    product_mode: ProductMode | None
    signed_in: bool
    jid: str
    display_name: str
    home_cluster: str
    server_version: str
    devices: tuple[Device, ...]
    configuration: Mapping[str, str]
    """Merged parameters ``Section/Name`` of the service profile and the configuration file."""
    steps: tuple[Step, ...]
    elapsed_ms: float
    error: Failure | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without empty parameters; ``error`` is null or code, kind, message, hint and params."""
        return {
            "address": self.address,
            "domain": self.domain,
            "voice_domain": self.voice_domain,
            "location": self.location,
            "steps": [step.to_json() for step in self.steps],
            "services": [asdict(service) for service in self.services],
            "authenticator": self.authenticator,
            "product_mode": self.product_mode,
            "signed_in": self.signed_in,
            "jid": self.jid,
            "display_name": self.display_name,
            "home_cluster": self.home_cluster,
            "server_version": self.server_version,
            "devices": [asdict(device) for device in self.devices],
            "configuration": {name: value for name, value in self.configuration.items() if value},
            "elapsed_ms": self.elapsed_ms,
            "error": asdict(self.error) if self.error is not None else None,
        }
