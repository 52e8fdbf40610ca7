"""What a step of a room leaves behind to be sent: a stanza for one address, or one for many who hear the same."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from moim.chat.audience import Audience
from moim.proto.xmpp import Element, Jid


@dataclass(frozen=True, slots=True)
class Fan:
    """One stanza, without ``to``, for everybody who is in ``audience`` when it is sent, but for those in ``skip``."""

    stanza: Element
    audience: Audience
    skip: Collection[Jid] = ()


Output: TypeAlias = "tuple[Jid, Element] | Fan"
