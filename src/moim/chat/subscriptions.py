"""Presence subscriptions as the state machine of RFC 6121 appendix A: a table, and nothing else.

A contact's state on one side is (subscription, pending out, pending in). Rule kept: of two accounts that both follow
the table, one has ``to`` exactly when the other has ``from``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Subscription = Literal["none", "to", "from", "both"]
Action = Literal["subscribe", "subscribed", "unsubscribe", "unsubscribed"]


@dataclass(frozen=True, slots=True)
class State:
    """One side's state: what is subscribed, whether an own request and whether a request of the contact waits."""

    subscription: Subscription = "none"
    pending_out: bool = False
    pending_in: bool = False

    @property
    def sees(self) -> bool:
        """Whether the contact's presence is shown to the owner."""
        return self.subscription in ("to", "both")

    @property
    def seen(self) -> bool:
        """Whether the owner's presence is shown to the contact."""
        return self.subscription in ("from", "both")


NONE: Final = State()
OUT: Final = State("none", pending_out=True)
IN: Final = State("none", pending_in=True)
OUT_IN: Final = State("none", pending_out=True, pending_in=True)
TO: Final = State("to")
TO_IN: Final = State("to", pending_in=True)
FROM: Final = State("from")
FROM_OUT: Final = State("from", pending_out=True)
BOTH: Final = State("both")
STATES: Final = (NONE, OUT, IN, OUT_IN, TO, TO_IN, FROM, FROM_OUT, BOTH)

# RFC 6121 appendix A.2: what the owner sends. A state that an action does not list stays as it is, and for
# "subscribed" and "unsubscribed" the stanza is then not routed either (A.2.3, A.2.4).
_OUTBOUND: Final[dict[Action, dict[State, State]]] = {
    "subscribe": {NONE: OUT, IN: OUT_IN, FROM: FROM_OUT},
    "unsubscribe": {OUT: NONE, OUT_IN: IN, TO: NONE, TO_IN: IN, FROM_OUT: FROM, BOTH: FROM},
    "subscribed": {IN: FROM, OUT_IN: FROM_OUT, TO_IN: BOTH},
    "unsubscribed": {IN: NONE, OUT_IN: OUT, TO_IN: TO, FROM: NONE, FROM_OUT: OUT, BOTH: TO},
}

# RFC 6121 appendix A.3: what the contact sends. A state that an action does not list stays, and nothing is delivered.
_INBOUND: Final[dict[Action, dict[State, State]]] = {
    "subscribe": {NONE: IN, OUT: OUT_IN, TO: TO_IN},
    "unsubscribe": {IN: NONE, OUT_IN: OUT, TO_IN: TO, FROM: NONE, FROM_OUT: OUT, BOTH: TO},
    "subscribed": {OUT: TO, OUT_IN: TO_IN, FROM_OUT: BOTH},
    "unsubscribed": {OUT: NONE, OUT_IN: IN, TO: NONE, TO_IN: IN, FROM_OUT: FROM, BOTH: FROM},
}


def outbound(state: State, action: Action) -> tuple[State, bool]:
    """The state after the owner sent ``action``, and whether the stanza is routed to the contact."""
    after = _OUTBOUND[action].get(state)
    routed = action in ("subscribe", "unsubscribe") or after is not None
    return (state if after is None else after), routed


def inbound(state: State, action: Action) -> tuple[State, bool]:
    """The state after the contact's ``action`` arrived, and whether the stanza is delivered to the owner."""
    after = _INBOUND[action].get(state)
    return (state, False) if after is None else (after, True)
