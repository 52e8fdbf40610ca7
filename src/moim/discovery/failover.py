"""What a client does when the IM and Presence server that it is signed in to goes away (D10): a machine.

It waits for a moment between the server's re-login limits, drawn evenly, so that a whole server's users do not come at
once. Then it looks for the servers again (they change on a fail-over), tries the primary and the secondary once each,
and after both have failed does nothing more by itself until the person signs in. Rooms are entered again with the new
session. A server without the session service (SOAP) is spared its steps: its profile has the addresses.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from moim.errors import UsageError

LOWER_SECONDS: Final = 120
UPPER_SECONDS: Final = 537
_LONGEST: Final = 86_400

State = Literal[
    "XMPPCONNECTED",
    "FAILOVER",
    "SOAPCONNECT_SESSION_P",
    "SOAPCONNECT_SESSION_S",
    "SOAPCONNECT_P",
    "SOAPCONNECT_S",
    "SOAPCONNECTED",
    "XMPPCONNECT_P",
    "XMPPCONNECT_S",
    "DISCONNECTED",
]
"""Names of the source document; ``DISCONNECTED`` is where nothing happens until the person signs in."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds between which a client waits before it signs in again."""

    lower: int = LOWER_SECONDS
    upper: int = UPPER_SECONDS

    @classmethod
    def of(cls, configuration: Mapping[str, str]) -> Limits:
        """The limits in a service profile and configuration file; what is missing or no number is the default."""
        lower = _seconds(configuration.get("IMandPresence/ClientReLoginLowerLimit", ""), LOWER_SECONDS)
        upper = _seconds(configuration.get("IMandPresence/ClientReLoginUpperLimit", ""), UPPER_SECONDS)
        return cls(lower, max(lower, upper))


def _seconds(text: str, default: int) -> int:
    text = text.strip()
    return min(int(text), _LONGEST) if text.isascii() and text.isdecimal() and len(text) < 9 else default


@dataclass(frozen=True, slots=True)
class Lost:
    """Input: the connection is gone, or nothing came over it for the server's loss timeout."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Input: the attempt that was asked for worked."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Input: it did not."""


@dataclass(frozen=True, slots=True)
class Found:
    """Input: the servers' present addresses; empty where there is none."""

    primary: str
    secondary: str


@dataclass(frozen=True, slots=True)
class SignIn:
    """Input: the person asks for it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Output: try ``state`` with the server ``host``; answer with Succeeded or Refused."""

    state: State
    host: str


@dataclass(frozen=True, slots=True)
class Find:
    """Output: get the servers' present addresses; answer with Found, or Refused to go on with the known ones."""


@dataclass(frozen=True, slots=True)
class Rejoin:
    """Output: enter the rooms again that the session before was in."""


Input = Lost | Succeeded | Refused | Found | SignIn
Output = Attempt | Find | Rejoin

_SOAP: Final[tuple[State, ...]] = ("SOAPCONNECT_SESSION_P", "SOAPCONNECT_SESSION_S", "SOAPCONNECT_P", "SOAPCONNECT_S")
_XMPP: Final[tuple[State, ...]] = ("XMPPCONNECT_P", "XMPPCONNECT_S")


class Failover:
    """One signed-in client. ``soap``: the server has the session service. ``draw`` gives a number from [0, 1).

    ``next_event`` gives every state that is entered. Drive it as any machine of ``moim.machine``.
    """

    def __init__(
        self,
        primary: str,
        secondary: str,
        limits: Limits,
        *,
        soap: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.state: State = "XMPPCONNECTED"
        self.servers = Found(primary, secondary)
        self._limits = limits
        self._soap = soap
        self._draw = draw
        self._plan: deque[State] = deque()
        self._finding = False
        self._at: float | None = None
        self._events: deque[State] = deque()
        self._output: deque[Output] = deque()

    def receive(self, data: Input, now: float) -> None:
        """Takes what happened. Raises UsageError for an answer that nobody waits for."""
        if isinstance(data, Lost):
            if self.state == "XMPPCONNECTED":
                spread = self._limits.upper - self._limits.lower
                self._at = now + self._limits.lower + spread * self._draw()
                self._enter("FAILOVER")
        elif isinstance(data, SignIn):
            if self.state in ("FAILOVER", "DISCONNECTED"):
                self._begin()
        elif isinstance(data, Found) or self._finding:
            if not self._finding:
                raise UsageError("nobody asked for the servers")
            self._finding = False
            if isinstance(data, Found):
                self.servers = data
            self._next()
        elif self.state not in (*_SOAP, *_XMPP):
            raise UsageError("nothing was being tried")
        elif isinstance(data, Refused):
            self._next()
        elif self.state in _SOAP:
            self._enter("SOAPCONNECTED")
            self._plan = deque(_XMPP)
            self._find()
        else:
            self._plan.clear()
            self._enter("XMPPCONNECTED")
            self._output.append(Rejoin())

    def tick(self, now: float) -> None:
        """Begins when the wait is over."""
        if self._at is not None and now >= self._at:
            self._begin()

    def deadline(self) -> float | None:
        """When the wait is over."""
        return self._at

    def next_event(self) -> State | None:
        """The oldest state not yet told."""
        return self._events.popleft() if self._events else None

    def next_output(self) -> Output | None:
        """The oldest thing to do not yet taken."""
        return self._output.popleft() if self._output else None

    def _begin(self) -> None:
        self._at = None
        self._plan = deque(_SOAP if self._soap else _XMPP)
        self._find()

    def _find(self) -> None:
        self._finding = True
        self._output.append(Find())

    def _next(self) -> None:
        while self._plan:
            state = self._plan.popleft()
            host = self.servers.primary if state.endswith("_P") else self.servers.secondary
            if host:
                self._enter(state)
                self._output.append(Attempt(state, host))
                return
        self._enter("DISCONNECTED")

    def _enter(self, state: State) -> None:
        self.state = state
        self._events.append(state)
