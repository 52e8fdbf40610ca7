"""Hashed tokens (draft-schmaus-kitten-sasl-ht-08): a sign-in in one message, as XEP-0484 uses it.

The client shows an HMAC of ``Initiator`` and the channel binding under its token, the server proves itself with one
of ``Responder``. Which binding goes in follows from the mechanism's name.
"""

from __future__ import annotations

import hmac
from typing import Final, Literal

from moim.errors import ProtocolError

HT_BINDINGS: Final = {
    "HT-SHA-256-EXPR": "tls-exporter",
    "HT-SHA-256-ENDP": "tls-server-end-point",
    "HT-SHA-256-NONE": "",
}
"""The mechanisms that are known here, the strongest first, each with its channel-binding type (empty: none)."""

_PROOF: Final = 32
_MAX_NAME: Final = 3071


def proof(token: str, side: Literal["Initiator", "Responder"], binding: bytes) -> bytes:
    """The 32 bytes by which ``side`` shows that it has the token; ``binding`` is empty without channel binding."""
    return hmac.digest(token.encode(), side.encode() + binding, "sha256")


def write_initial(name: str, token: str, binding: bytes) -> bytes:
    """The client's only message, for the account called ``name``."""
    return name.encode() + b"\0" + proof(token, "Initiator", binding)


def read_initial(message: bytes) -> tuple[str, bytes]:
    """Name and proof of a client's message. Raises ProtocolError when it is none."""
    name, separator, shown = message.partition(b"\0")
    if not separator or not name or len(name) > _MAX_NAME or len(shown) != _PROOF:
        raise ProtocolError("the token message is not a name and a proof")
    try:
        return name.decode(), shown
    except UnicodeDecodeError:
        raise ProtocolError("the name in the token message is not UTF-8") from None
