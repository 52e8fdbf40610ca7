"""Streams between servers as machines without I/O: one that opens them, one that accepts them, and dialback's keys."""

from moim.proto.xmpp.s2s.dialback import Keys
from moim.proto.xmpp.s2s.incoming import MAX_PAIRS, Incoming
from moim.proto.xmpp.s2s.outgoing import Outgoing, is_final
from moim.proto.xmpp.s2s.steps import (
    Close,
    Count,
    How,
    Judge,
    Paired,
    Proof,
    Ready,
    Refused,
    Restart,
    Rules,
    Step,
    Use,
    Verified,
    Verify,
)
from moim.proto.xmpp.steps import OpenStream, Send, StartTls

__all__ = [
    "MAX_PAIRS",
    "Close",
    "Count",
    "How",
    "Incoming",
    "Judge",
    "Keys",
    "OpenStream",
    "Outgoing",
    "Paired",
    "Proof",
    "Ready",
    "Refused",
    "Restart",
    "Rules",
    "Send",
    "StartTls",
    "Step",
    "Use",
    "Verified",
    "Verify",
    "is_final",
]
