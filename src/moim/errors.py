"""The one tree of exceptions. Each class says who is at fault; each message says what to do.

MoimError
├── UsageError          the caller: wrong arguments or a call out of order
├── ConfigError         the administrator: moim.toml or a file it names
├── Refused             the request is understood and not allowed
│   ├── AuthError           credentials missing, wrong or expired
│   ├── LimitExceeded       a bound on size, rate or count
│   └── Forbidden           authenticated, but not permitted
├── NotFound            what was named does not exist
├── Conflict            it exists already, or changed meanwhile
├── PeerError           the other side of a connection
│   ├── ProtocolError       it sent bytes that break the protocol
│   ├── PeerTimeout         it did not answer in time
│   ├── PeerUnreachable     no connection could be made
│   └── PeerUntrusted       its certificate or key is not the expected one
└── Unavailable         something of ours: disk, database, port, a node that is down
"""

from __future__ import annotations

from typing import ClassVar, Literal

Fault = Literal["caller", "administrator", "peer", "us"]


class MoimError(Exception):
    """Base of every error that Moim raises on purpose.

    ``message`` is a plain sentence about what happened; ``hint`` is the next step for the person who reads it.
    """

    fault: ClassVar[Fault] = "us"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(MoimError):
    """The caller passed arguments that cannot be meant."""

    fault: ClassVar[Fault] = "caller"


class ConfigError(MoimError):
    """The configuration cannot be used as it stands."""

    fault: ClassVar[Fault] = "administrator"


class Refused(MoimError):
    """The request was understood and is not allowed."""

    fault: ClassVar[Fault] = "caller"


class AuthError(Refused):
    """Credentials are missing, wrong or expired."""


class LimitExceeded(Refused):
    """A bound on size, rate or count was reached."""


class Forbidden(Refused):
    """The caller is known, and not permitted to do this."""


class NotFound(MoimError):
    """What was named does not exist."""

    fault: ClassVar[Fault] = "caller"


class Conflict(MoimError):
    """It exists already, or changed meanwhile."""

    fault: ClassVar[Fault] = "caller"


class PeerError(MoimError):
    """The other side of a connection failed."""

    fault: ClassVar[Fault] = "peer"


class ProtocolError(PeerError):
    """The peer sent bytes that break the protocol."""


class PeerTimeout(PeerError):
    """The peer did not answer in time."""


class PeerUnreachable(PeerError):
    """No connection to the peer could be made."""


class PeerUntrusted(PeerError):
    """The peer's certificate or key is not the expected one."""


class Unavailable(MoimError):
    """Something of ours is not there: disk, database, port or node."""
