"""What the two ends of the tunnel say on the control channel: one JSON object a line, bounded, versioned.

Inside → edge: ``push`` (the whole desired state, never a difference) and ``renew`` (send a new certificate request).
Edge → inside: ``hello``, ``csr``, ``applied`` (the hash of the state that rules now) and ``status``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from moim.edge.rules import MAX_RULES, Rule
from moim.errors import PeerTimeout, ProtocolError
from moim.net.streams import ByteStream

VERSION = 1
MAX_LINE = 2 * 1024 * 1024
_PEM = 64 * 1024

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Text = Annotated[str, Field(max_length=500)]
HostName = Annotated[str, Field(max_length=253)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TcpRoute(_Frozen):
    """Which named target a TCP listener of the edge leads to."""

    listener: Name
    target: Name


class AllowedPeer(_Frozen):
    """An address and port that TURN may relay to although it is private."""

    address: Annotated[str, Field(max_length=45)]
    port: Annotated[int, Field(ge=1, le=65535)]


class TurnUser(_Frozen):
    """A long-term TURN credential."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    password: Annotated[str, Field(min_length=1, max_length=256)]


class TurnState(_Frozen):
    """Credentials and peer rules of TURN. ``secrets`` are shared secrets, the newest first."""

    secrets: Annotated[tuple[Annotated[str, Field(min_length=16, max_length=256)], ...], Field(max_length=8)] = ()
    users: Annotated[tuple[TurnUser, ...], Field(max_length=256)] = ()
    allow_peers: Annotated[tuple[AllowedPeer, ...], Field(max_length=256)] = ()


class DesiredState(_Frozen):
    """Everything that the edge does, as the inside wants it. An edge without one does nothing."""

    domains: Annotated[tuple[HostName, ...], Field(max_length=64)] = ()
    hosts: Annotated[tuple[HostName, ...], Field(max_length=256)] = ()
    http: Annotated[tuple[Rule, ...], Field(max_length=MAX_RULES)] = ()
    tcp: Annotated[tuple[TcpRoute, ...], Field(max_length=32)] = ()
    turn: TurnState = TurnState()
    certificate: Annotated[str, Field(max_length=_PEM)] = ""

    def digest(self) -> str:
        """SHA-256 over the canonical JSON form, hexadecimal: equal for equal states."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


class Push(_Frozen):
    """The whole desired state; ``certificate`` in it is a PEM chain, or empty to keep what is there."""

    type: Literal["push"] = "push"
    v: int = VERSION
    serial: int
    state: DesiredState


class Renew(_Frozen):
    """Asks for a certificate request, although the present certificate is still good."""

    type: Literal["renew"] = "renew"
    v: int = VERSION


class Hello(_Frozen):
    """The edge's first line."""

    type: Literal["hello"] = "hello"
    v: int = VERSION
    version: Text = ""


class Csr(_Frozen):
    """A certificate request (PKCS #10, PEM) for the edge's own key."""

    type: Literal["csr"] = "csr"
    v: int = VERSION
    pem: Annotated[str, Field(max_length=_PEM)]


class Applied(_Frozen):
    """What came of a push: ``digest`` of the state that rules now, and what could not be done, in sentences."""

    type: Literal["applied"] = "applied"
    v: int = VERSION
    serial: int
    digest: Annotated[str, Field(max_length=64)]
    problems: Annotated[tuple[Text, ...], Field(max_length=32)] = ()


class Listening(_Frozen):
    """One listener of the edge, like ``moim.model.ServiceStatus``."""

    name: Name
    transport: Annotated[str, Field(max_length=8)]
    address: Annotated[str, Field(max_length=45)]
    port: int
    state: Literal["starting", "running", "degraded", "stopped", "failed"]
    detail: Text = ""


class Refusal(_Frozen):
    """Something the edge turned away: when (seconds since 1970), whom, where and why; ``times`` in a row."""

    at: float
    client: Annotated[str, Field(max_length=64)]
    listener: Annotated[str, Field(max_length=32)]
    reason: Text
    times: int = 1


class Status(_Frozen):
    """A snapshot of the edge, sent at an interval and when something changes."""

    type: Literal["status"] = "status"
    v: int = VERSION
    listeners: Annotated[tuple[Listening, ...], Field(max_length=32)] = ()
    counters: Annotated[dict[str, int], Field(max_length=256)] = {}
    refusals: Annotated[tuple[Refusal, ...], Field(max_length=256)] = ()
    relays: Annotated[tuple[dict[str, Any], ...], Field(max_length=1024)] = ()


FromInside = Annotated[Push | Renew, Field(discriminator="type")]
FromEdge = Annotated[Hello | Csr | Applied | Status, Field(discriminator="type")]
Message = TypeVar("Message")
from_inside: TypeAdapter[Push | Renew] = TypeAdapter(FromInside)
from_edge: TypeAdapter[Hello | Csr | Applied | Status] = TypeAdapter(FromEdge)


def encode(message: BaseModel) -> bytes:
    """One line. Raises ProtocolError when it is longer than the other side would take."""
    line = message.model_dump_json().encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ProtocolError(f"a control message of {len(line)} bytes is over the bound of {MAX_LINE}")
    return line


def decode(line: bytes, kind: TypeAdapter[Message]) -> Message:
    """Reads one line as one of the messages of ``kind``. Raises ProtocolError."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("a line on the control channel is not JSON") from None
    version = raw.get("v") if isinstance(raw, dict) else None
    if version != VERSION:
        raise ProtocolError(
            f"the other end speaks version {version!r} of the control protocol, this one {VERSION}",
            hint="run the same version of Moim on both nodes",
        )
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:6])
        raise ProtocolError(f"a control message has a wrong field: {where}: {first['msg']}") from None


class ControlChannel:
    """Sends and receives control messages on a byte stream."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._sending = asyncio.Lock()

    async def send(self, message: BaseModel) -> None:
        """Writes one message. Raises OSError when the channel is gone, PeerTimeout when it takes nothing for 30 s."""
        line = encode(message)
        async with self._sending:
            self._stream.write(line)
            try:
                async with asyncio.timeout(30):
                    await self._stream.drain()
            except TimeoutError:
                raise PeerTimeout("the other end of the tunnel takes no control messages") from None

    async def receive(self, kind: TypeAdapter[Message]) -> Message | None:
        """The next message, or None at the end. Raises ProtocolError."""
        try:
            line = await self._stream.reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            raise ProtocolError("a line on the control channel is too long") from None
        return decode(line, kind)
