"""What nodes of chat say to each other: the items of a link, written and read with their bounds."""

from __future__ import annotations

from typing import Any, Final

from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid

SESSION: Final = "session"  # [_, jid, state]: bound, or changed
GONE: Final = "gone"  # [_, jid]
LIVE: Final = "live"  # [_]: every session was told
DELIVER: Final = "deliver"  # [_, xml, [jid…], covered, returned]: the stanza as it is to each of these sessions
FAN_OUT: Final = "fan-out"  # [_, xml, [jid…]]: the stanza to each of these sessions, with its address as ``to``
COPY: Final = "copy"  # [_, xml]: the message was delivered; sessions there that want carbons of it get them
END: Final = "end"  # [_, jid, xml]: close the session with this stream error
COMPONENT: Final = "component"  # [_, xml]: a stanza for a part of the server that the other node runs
ROSTER: Final = "roster"  # [_, owner, contact]: an item was written
BLOCKED: Final = "blocked"  # [_, owner]: a block list was written
ARCHIVED: Final = "archived"  # [_, owner]: archive preferences were written
EVENT: Final = "event"  # [_, owner, node, config, xml]: a personal event, for those who are connected there
FREE: Final = "free"  # [_, name]: a lease was given up
BYE: Final = "bye"  # [_]: this node leaves
WANT: Final = "want"  # [_, number, bare jid, token]: the session that the token names is to go on at the asking node
KEPT: Final = "kept"  # [_, number, handled]: it does not; how many stanzas it took, or null
MOVED: Final = "moved"  # [_, jid, state]: a session goes on there, without a connection
SENT: Final = "sent"  # [_, jid, [[xml, sole]…]]: what its client may not have got
SETTLED: Final = "settled"  # [_, jid, number]: that was all; ``number`` of what asked for it, or 0
ECHO: Final = "echo"  # [_, jid]: to be answered by the same with a yes behind it, after what was said before

OF_A_LIFE: Final = (SESSION, LIVE, WANT, MOVED, SETTLED, BYE)
"""What means nothing once the node that said it is dead, or has begun anew."""
LASTING: Final = (DELIVER, FAN_OUT, COPY, COMPONENT, ROSTER, BLOCKED, ARCHIVED, EVENT)
"""What a node that begins anew says again, to those who live on."""


def element(item: list[Any], place: int) -> Element:
    """The stanza at a place of an item. Raises ValueError."""
    try:
        return Element.parse(text(item, place))
    except ProtocolError as error:
        raise ValueError(f"a stanza of another node cannot be read: {error.message}") from error


def text(item: list[Any], place: int) -> str:
    """The text at a place of an item. Raises ValueError."""
    value = item[place] if place < len(item) else None
    if not isinstance(value, str):
        raise ValueError(f"'{item[0]}' has no text at {place}")
    return value


def jid(item: list[Any], place: int) -> Jid:
    """The address at a place of an item. Raises ValueError."""
    try:
        return Jid.parse(text(item, place))
    except ProtocolError as error:
        raise ValueError(error.message) from error


def jids(item: list[Any], place: int) -> list[Jid]:
    """The addresses at a place of an item. Raises ValueError."""
    value = item[place] if place < len(item) else None
    if not isinstance(value, list):
        raise ValueError(f"'{item[0]}' has no list at {place}")
    return [jid([item[0], one], 1) for one in value]


def number(item: list[Any], place: int) -> int:
    """The number at a place of an item. Raises ValueError."""
    value = item[place] if place < len(item) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"'{item[0]}' has no number at {place}")
    return value


def sent(item: list[Any], place: int) -> list[tuple[Element, bool]]:
    """The stanzas at a place of an item, each with whether nobody else has it. Raises ValueError."""
    value = item[place] if place < len(item) else None
    if not isinstance(value, list) or not all(isinstance(one, list) and len(one) == 2 for one in value):
        raise ValueError(f"'{item[0]}' has no stanzas at {place}")
    return [(element([item[0], one[0]], 1), one[1] is True) for one in value]


def flag(item: list[Any], place: int) -> bool:
    """Whether there is a yes at a place of an item."""
    return place < len(item) and item[place] is True
